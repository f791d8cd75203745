"use strict";
// Enlarges a picture, and steps through those that stand beside it.
(() => {
  const dialog = document.getElementById("large");
  const picture = document.getElementById("picture");
  const caption = document.getElementById("caption");
  let row = [];
  let place = 0;

  function show(index) {
    place = (index + row.length) % row.length;
    const small = row[place].querySelector("img");
    const [width, height] = ["width", "height"].map((name) => Number(small.getAttribute(name)));
    // As large as the window allows, and all pictures of a tile at the same scale.
    const room = Math.min(
      (Math.min(innerWidth * 0.96, 1280) - 28) / width,
      (innerHeight * 0.96 - 90) / height,
    );
    picture.src = small.src;
    picture.alt = small.alt;
    picture.style.width = `${Math.round(width * room)}px`;
    caption.textContent = row[place].dataset.caption;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".enlarge");
    if (button) {
      row = [...button.closest(".trio, .examples").querySelectorAll(".enlarge")];
      show(row.indexOf(button));
      dialog.showModal();
    } else if (event.target === dialog || event.target.id === "close") {
      dialog.close();
    }
  });
  document.getElementById("previous").addEventListener("click", () => show(place - 1));
  document.getElementById("next").addEventListener("click", () => show(place + 1));
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(place - 1);
    if (event.key === "ArrowRight") show(place + 1);
  });
})();

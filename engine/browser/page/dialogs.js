// Short messages, and dialogs that wait for an answer.

const TOAST_MS = 6000;
const part = (id) => document.getElementById(id);

export function toast(words, act) {
  const note = document.createElement("p");
  note.className = act?.bad ? "toast bad" : "toast";
  note.textContent = words;
  if (act?.label) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = act.label;
    button.addEventListener("click", () => {
      note.remove();
      act.run();
    });
    note.append(" ", button);
  }
  const box = part("toasts");
  while (box.children.length > 2) box.firstChild.remove();
  box.append(note);
  setTimeout(() => note.remove(), TOAST_MS);
}

export const complain = (words) => toast(words, { bad: true });

export function showHelp() {
  part("help-dialog").showModal();
}

// Ask what to split and into how many parts; null where nobody wants to.
export function askSplit(label, clusters, name) {
  const dialog = part("split-dialog");
  part("split-title").textContent = `Split ${label}`;
  const choice = part("split-cluster");
  choice.replaceChildren(
    ...clusters.map((cluster) => new Option(`cluster ${cluster.number}`, cluster.number)),
  );
  part("split-of").hidden = clusters.length < 2;
  dialog.returnValue = "";
  dialog.showModal();
  part("split-parts").select();
  return new Promise((answer) => {
    const done = () => {
      const isMeant = dialog.returnValue === "split";
      const parts = Number(part("split-parts").value);
      answer(isMeant ? { cluster: Number(choice.value), parts } : null);
    };
    dialog.addEventListener("close", done, { once: true });
  });
}

for (const button of document.querySelectorAll("dialog .close")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

// Classes as cards: one element a class, kept while it lives, so that nothing jumps as one types.

const EMPTY_PICTURES = 4; // places that a card without exemplars keeps

export const percent = (share) =>
  share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;

export const labelOf = (one) => one.name || `cluster ${one.value}`;

export class Cards {
  // acts: what is done with a class: name, colour, ignore, split, show, take, separate, unsplit.
  constructor(box, template, acts) {
    this.box = box;
    this.template = template;
    this.acts = acts;
    this.cards = new Map(); // by value of the class
    this.order = []; // values as they are shown
    this.classes = new Map();
    this.chosen = new Set();
    this.current = null;
    this.kind = "all";
    this.words = "";
  }

  // Show a state; cards stay where they are, new ones come after the one they were split from.
  show(classes) {
    const before = this.classes;
    this.classes = new Map(classes.map((one) => [one.value, one]));
    const focused = this.box.contains(document.activeElement) ? this.current : null;
    const place = this.order.indexOf(focused);
    const order = this.order.filter((value) => this.classes.has(value));
    for (const one of classes) {
      if (before.has(one.value)) continue;
      const home = before.size ? order.indexOf(this.#origin(one, before)) : -1;
      if (home < 0) order.push(one.value);
      else order.splice(home + 1, 0, one.value);
    }
    this.order = order;
    for (const [value, card] of this.cards) {
      if (!this.classes.has(value)) {
        card.remove();
        this.cards.delete(value);
        this.chosen.delete(value);
      }
    }
    for (const one of classes) this.#fill(this.#card(one), one);
    this.#arrange();
    if (focused !== null && !this.classes.has(focused)) {
      const visible = this.visible();
      const next = this.order.slice(Math.max(place, 0)).find((value) => visible.includes(value));
      this.focus(next ?? visible.at(-1), true);
    }
  }

  // Let fields that nobody types in show what is known.
  revertAll() {
    for (const [value, card] of this.cards) {
      if (!card.contains(document.activeElement)) this.revert(value);
    }
  }

  sort() {
    this.order = [...this.classes.keys()];
    this.#arrange();
  }

  sift(kind, words) {
    this.kind = kind;
    this.words = words.trim().toLowerCase();
    this.#arrange();
  }

  visible() {
    return this.order.filter((value) => !this.cards.get(value).hidden);
  }

  focus(value, isTyping) {
    const card = this.cards.get(value);
    if (!card) return;
    if (card.hidden) this.acts.unsift();
    const field = card.querySelector(".name");
    (isTyping ? field : card).focus();
    if (isTyping) field.select();
    card.scrollIntoView({ block: "nearest" });
  }

  // Go on from a class by a number of cards.
  move(value, step, isTyping) {
    const visible = this.visible();
    const place = visible.indexOf(value);
    const next = visible[Math.min(Math.max(place + step, 0), visible.length - 1)];
    if (next !== undefined) this.focus(next, isTyping);
  }

  columns() {
    const tops = this.visible().map((value) => this.cards.get(value).offsetTop);
    return Math.max(tops.filter((top) => top === tops[0]).length, 1);
  }

  choose(value, isChosen) {
    if (isChosen) this.chosen.add(value);
    else this.chosen.delete(value);
    const card = this.cards.get(value);
    if (card) {
      card.classList.toggle("chosen", isChosen);
      card.querySelector(".pick input").checked = isChosen;
    }
    this.acts.chose();
  }

  letGo() {
    for (const value of [...this.chosen]) this.choose(value, false);
  }

  #origin(one, before) {
    // A part takes a new number: it stands beside the class whose pictures it shares, the one that
    // was split last; or where the class was that it was taken out of.
    const numbers = new Set(one.clusters.map((cluster) => cluster.number));
    for (const [value, old] of before) {
      if (old.clusters.some((cluster) => numbers.has(cluster.number))) return value;
    }
    return this.current;
  }

  #card(one) {
    const known = this.cards.get(one.value);
    if (known) return known;
    const card = this.template.content.firstElementChild.cloneNode(true);
    const value = one.value;
    const field = card.querySelector(".name");
    card.dataset.value = value;
    card.addEventListener("focusin", () => {
      if (this.current === value) return;
      this.cards.get(this.current)?.classList.remove("current");
      this.current = value;
      card.classList.add("current");
      this.acts.looked(value);
    });
    field.addEventListener("change", () => this.keep(value));
    const colour = card.querySelector(".colour");
    colour.addEventListener("input", () => this.acts.tint(value, colour.value));
    colour.addEventListener("change", () => this.acts.colour(value, colour.value));
    card.querySelector(".pick input").addEventListener("change", (event) => {
      this.choose(value, event.target.checked);
    });
    for (const act of ["suggestion", "ignore", "split", "show"]) {
      card.querySelector(`.${act}`).addEventListener("click", () => this.acts[act](value));
    }
    this.cards.set(value, card);
    return card;
  }

  // Keep what stands in a field, where it is another name than before.
  keep(value) {
    const field = this.cards.get(value)?.querySelector(".name");
    if (!field || field.value.trim() === field.dataset.known) return;
    field.dataset.known = field.value.trim(); // Enter is followed by a change, which is the same
    this.acts.name(value, field.value);
  }

  revert(value) {
    const one = this.classes.get(value);
    if (!one) return;
    const field = this.cards.get(value).querySelector(".name");
    field.value = field.dataset.known = one.name;
  }

  #fill(card, one) {
    const part = (name) => card.querySelector(`.${name}`);
    const field = part("name");
    // What is being typed stays, whatever else comes in.
    const isTyped = document.activeElement === field && field.value !== field.dataset.known;
    if (!isTyped) field.value = field.dataset.known = one.name;
    field.placeholder = `cluster ${one.value}`;
    field.setAttribute("aria-label", `Name of cluster ${one.value}`);
    card.classList.toggle("ignored", one.ignore);
    card.classList.toggle("doubtful", one.doubtful);
    card.setAttribute("aria-label", labelOf(one));
    part("number").textContent = one.value;
    part("colour").value = one.colour;
    part("colour").setAttribute("aria-label", `Colour of ${labelOf(one)}`);
    part("pick").firstElementChild.setAttribute("aria-label", `Choose ${labelOf(one)}`);
    part("ignore").setAttribute("aria-pressed", one.ignore);
    part("share").textContent = `${percent(one.share)} of the area`;
    part("size").querySelector(".bar span").style.width = `${Math.max(100 * one.share, 0.5)}%`;
    part("size").querySelector(".bar span").style.background = one.colour;
    this.#suggest(part("suggestion"), one);
    part("where").textContent = this.#where(one);
    part("where").title = one.mainly.join("\n");
    this.#parts(part("parts"), one);
    this.#near(part("near"), one);
    this.#pictures(part("pictures"), one);
  }

  #suggest(button, one) {
    const isOffered = one.suggestion && one.suggestion.name !== one.name;
    button.hidden = !isOffered;
    if (!isOffered) return;
    const name = document.createElement("bdi");
    name.textContent = one.suggestion.name;
    button.replaceChildren(name, ` · ${percent(one.suggestion.share)} by real labels`);
  }

  #where(one) {
    const words = [];
    if (one.doubtful) words.push(`only ${percent(one.carried)} had this name before`);
    words.push(`in ${one.sources} ${one.sources === 1 ? "source" : "sources"}`);
    if (one.dates.length) words.push(one.dates.join(" – "));
    if (one.mainly.length) words.push(`mostly ${one.mainly[0]}`);
    return words.join(" · ");
  }

  #parts(line, one) {
    const rows = [];
    if (one.clusters.length > 1) {
      for (const cluster of one.clusters) {
        const out = document.createElement("button");
        out.type = "button";
        out.className = "chip";
        out.title = `Take cluster ${cluster.number} out of this class`;
        out.textContent = `${cluster.number} ×`;
        out.addEventListener("click", () => this.acts.separate(one.value, cluster.number));
        rows.push(out, " ");
      }
    }
    for (const cluster of one.splits) {
      const whole = document.createElement("button");
      whole.type = "button";
      whole.className = "chip";
      whole.textContent = `make ${cluster} whole again`;
      whole.addEventListener("click", () => this.acts.unsplit(cluster));
      rows.push(whole, " ");
    }
    line.hidden = !rows.length;
    line.replaceChildren(...(one.clusters.length > 1 ? ["clusters "] : []), ...rows);
  }

  #near(line, one) {
    const links = one.near
      .filter((value) => this.classes.has(value))
      .map((value) => {
        const other = this.classes.get(value);
        const link = document.createElement("button");
        link.type = "button";
        link.className = "chip";
        const swatch = document.createElement("span");
        swatch.className = "swatch";
        swatch.style.background = other.colour;
        const name = document.createElement("bdi");
        name.textContent = other.name || value;
        link.append(swatch, name);
        link.title = `Go to ${labelOf(other)}`;
        link.addEventListener("click", () => this.focus(value, false));
        return link;
      });
    line.replaceChildren("like ", ...links);
  }

  #pictures(box, one) {
    const path = (e) => `exemplar/${e.since}/${e.cluster}/${e.place}`;
    const wanted = one.exemplars.map(path).join(" ");
    if (box.dataset.shown === wanted) return;
    box.dataset.shown = wanted;
    const buttons = one.exemplars.map((exemplar) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = `${exemplar.source} at ${exemplar.x}, ${exemplar.y}`;
      button.setAttribute("aria-label", `Show on the map: ${button.title}`);
      const image = document.createElement("img");
      image.loading = "lazy";
      image.fetchPriority = "low"; // the map does not wait for them
      image.decoding = "async";
      image.alt = "";
      image.src = path(exemplar);
      button.append(image);
      button.addEventListener("click", () => this.acts.goTo(exemplar));
      return button;
    });
    while (buttons.length < EMPTY_PICTURES) {
      buttons.push(document.createElement("span"));
    }
    box.replaceChildren(...buttons);
  }

  #arrange() {
    for (const value of this.order) {
      const card = this.cards.get(value);
      card.hidden = !this.#fits(this.classes.get(value));
    }
    const wanted = this.order.map((value) => this.cards.get(value));
    // Only what is out of place is moved: an element that is moved loses the focus.
    wanted.forEach((card, place) => {
      if (this.box.children[place] !== card) {
        this.box.insertBefore(card, this.box.children[place] ?? null);
      }
    });
    this.acts.arranged(this.visible().length);
  }

  #fits(one) {
    const kinds = {
      all: true,
      open: !one.name && !one.ignore,
      doubtful: one.doubtful,
      ignored: one.ignore,
    };
    const isFound =
      !this.words ||
      one.name.toLowerCase().includes(this.words) ||
      one.clusters.some((cluster) => String(cluster.number) === this.words);
    return kinds[this.kind] && isFound;
  }
}

// The page for naming: what is pressed and clicked, and what becomes of it.

import { Cards, labelOf, percent } from "./cards.js";
import { askSplit, complain, showHelp, toast } from "./dialogs.js";
import { SceneMap, scenes } from "./map.js";
import { get, news, open, post } from "./server.js";

const NEWS_MS = 2000;
const BUSY_NEWS_MS = 400;
const MOST_SCENES = 5000; // in the list
const $ = (id) => document.getElementById(id);

let state = null;
let isOwner = false;
let said = "";
const list = new Map(); // scenes by index

const acts = {
  name: (value, text) => change({ do: "name", clusters: [value], text }),
  suggestion: (value) => take(value),
  colour: (value, text) => change({ do: "colour", clusters: [value], text }),
  tint: (value, colour) => map.tint(value, colour),
  ignore: (value) => {
    change({ do: "ignore", clusters: [value], on: !cards.classes.get(value).ignore });
  },
  split: (value) => split(value),
  separate: (value, cluster) => change({ do: "separate", clusters: [cluster] }),
  unsplit: (cluster) => change({ do: "unsplit", clusters: [cluster] }),
  show: (value) => {
    const [exemplar] = cards.classes.get(value).exemplars;
    if (exemplar) goTo(exemplar);
    else complain("no segment of this class is in the sample");
  },
  goTo: (exemplar) => goTo(exemplar),
  looked: (value) => map.look(value),
  chose: () => tellChosen(),
  arranged: (count) => ($("none").hidden = count > 0),
  unsift: () => sift("all", ""),
};
const cards = new Cards($("cards"), $("card"), acts);
const map = new SceneMap($("map"), $("map-words"), {
  picked: (value) => {
    view("classes");
    cards.focus(value, true);
  },
});

// What is done.

async function change(values) {
  await tell(() => post("change", values));
}

async function tell(ask) {
  try {
    show(await ask());
  } catch (error) {
    isOwner &&= !error.taken;
    complain(error.message);
    cards.revertAll();
    if (state) show(state);
  }
  tellNotices();
}

async function go(way) {
  const words = state?.[way];
  if (!words) return;
  await tell(() => post(way));
  toast(`${way === "undo" ? "Undone" : "Done again"}: ${words}`);
}

async function merge() {
  const chosen = [...cards.chosen];
  if (chosen.length === 1 && cards.current !== null && cards.current !== chosen[0]) {
    chosen.unshift(cards.current);
  }
  if (chosen.length < 2) {
    complain("choose two classes or more with X, then merge them with M");
    return;
  }
  cards.letGo();
  await change({ do: "merge", clusters: chosen });
  const merged = state.classes.find((one) => one.clusters.some((c) => c.number === chosen[0]));
  if (merged) cards.focus(merged.value, !merged.name);
}

async function split(value) {
  const one = cards.classes.get(value);
  const answer = await askSplit(labelOf(one), one.clusters);
  if (!answer) return;
  setTimeout(look, 300);
  await change({ do: "split", clusters: [answer.cluster], parts: answer.parts });
}

function take(value) {
  const { suggestion } = cards.classes.get(value);
  if (suggestion) change({ do: "name", clusters: [value], text: suggestion.name });
}

async function paint() {
  try {
    await post("paint");
    await look();
  } catch (error) {
    complain(error.message);
  }
}

async function goTo(exemplar) {
  const scene = list.get(exemplar.scene);
  if (!scene) return;
  view("map");
  const part = scene.parts.findIndex(
    ([x, y, w, h]) =>
      exemplar.x >= x && exemplar.x < x + w && exemplar.y >= y && exemplar.y < y + h,
  );
  $("scene").value = scene.index;
  tellParts(scene, Math.max(part, 0));
  await load([exemplar.x, exemplar.y]);
}

// What is shown.

function show(next) {
  if (state && next.version < state.version) return; // it was overtaken on its way
  const isNew = state?.survey !== next.survey;
  state = next;
  document.title = `${state.title} · naming`;
  $("title").textContent = state.title;
  cards.show(state.classes);
  map.tint(null, null);
  map.show(state.classes);
  if (isNew && list.size) load();
  const names = [...new Set(state.classes.map((one) => one.name).filter(Boolean))].sort();
  $("names").replaceChildren(...names.map((name) => new Option(name, name)));
  const done = state.classes.filter((one) => one.name || one.ignore);
  const share = done.reduce((sum, one) => sum + one.share, 0);
  $("far").textContent =
    `${done.length} of ${state.classes.length} classes named · ${percent(share)} of the area`;
  $("far-bar").style.width = `${100 * share}%`;
  for (const way of ["undo", "redo"]) {
    $(way).disabled = !state[way];
    $(way).title = state[way];
  }
  $("sample").textContent =
    state.groups < state.allGroups
      ? `of a sample: ${state.groups} of ${state.allGroups} groups of sources`
      : "of the whole archive";
  tellNotices();
}

function tellNotices() {
  $("other").hidden = isOwner;
  $("older").hidden = !state || state.painted;
  $("paint").classList.toggle("main", Boolean(state && !state.painted));
}

function tellBusy(busy) {
  $("busy").hidden = !busy;
  document.body.classList.toggle("busy", Boolean(busy));
  $("paint").disabled = Boolean(busy);
  if (!busy) return;
  const of = busy.total ? `: ${busy.done} of ${busy.total}` : "";
  $("busy-words").textContent = `${busy.what}${of} `;
  if (busy.total) {
    $("busy-bar").max = busy.total;
    $("busy-bar").value = busy.done;
  } else {
    $("busy-bar").removeAttribute("value");
  }
}

function tellChosen() {
  const count = cards.chosen.size;
  $("chosen").hidden = !count;
  $("chosen-words").textContent = `${count} ${count === 1 ? "class" : "classes"} chosen`;
  $("merge").disabled = count < 2;
}

async function look() {
  let busy = null;
  try {
    const now = await news();
    $("lost").hidden = true;
    isOwner = now.owner;
    busy = now.busy;
    tellBusy(busy);
    if (now.said && now.said !== said) toast(now.said, { bad: now.said.includes("failed") });
    said = now.said;
    if (state && now.version !== state.version && !busy) show(await get("state"));
    tellNotices();
  } catch {
    $("lost").hidden = false;
  }
  clearTimeout(look.next);
  look.next = setTimeout(look, busy ? BUSY_NEWS_MS : NEWS_MS);
}

function sift(kind, words) {
  $("find").value = words;
  for (const button of document.querySelectorAll("[data-kind]")) {
    button.setAttribute("aria-pressed", button.dataset.kind === kind);
  }
  cards.sift(kind, words);
}

function view(name) {
  document.body.dataset.view = name;
  for (const button of document.querySelectorAll(".tabs button")) {
    button.setAttribute("aria-pressed", button.dataset.view === name);
  }
}

// The map's scene.

function tellParts(scene, part) {
  $("part").hidden = scene.parts.length < 2;
  $("part").replaceChildren(
    ...scene.parts.map(([x, y], number) => new Option(`part ${number + 1} at ${x}, ${y}`, number)),
  );
  $("part").value = part;
}

async function load(place) {
  const scene = list.get(Number($("scene").value));
  if (!scene) return;
  try {
    await map.load(scene, Number($("part").value || 0), state.survey, place);
  } catch (error) {
    $("map-words").textContent = error.message;
  }
}

function turnScene(step) {
  const choice = $("scene");
  const next = choice.selectedIndex + step;
  if (next < 0 || next >= choice.length) return;
  choice.selectedIndex = next;
  choice.dispatchEvent(new Event("change"));
}

async function listScenes() {
  for await (const found of scenes()) {
    for (const scene of found) {
      list.set(scene.index, scene);
      $("scene").append(new Option(scene.name, scene.index));
    }
    if (list.size === found.length && found.length) {
      tellParts(found[0], 0);
      load();
    }
    if (list.size >= MOST_SCENES) return;
  }
}

// Keys.

const KEYS = {
  n: (value) => cards.focus(value, true),
  Enter: (value) => cards.focus(value, true),
  a: (value) => take(value),
  x: (value) => cards.choose(value, !cards.chosen.has(value)),
  " ": (value) => cards.choose(value, !cards.chosen.has(value)),
  s: (value) => split(value),
  i: (value) => acts.ignore(value),
  c: (value) => cards.cards.get(value).querySelector(".colour").click(),
  v: (value) => acts.show(value),
  ArrowRight: (value) => cards.move(value, 1, false),
  ArrowLeft: (value) => cards.move(value, -1, false),
  ArrowDown: (value) => cards.move(value, cards.columns(), false),
  ArrowUp: (value) => cards.move(value, -cards.columns(), false),
};
const ANYWHERE = {
  m: merge,
  u: () => go("undo"),
  r: () => go("redo"),
  p: paint,
  o: () => $("only").click(),
  "/": () => $("find").focus(),
  "?": showHelp,
  "[": () => turnScene(-1),
  "]": () => turnScene(1),
  Escape: () => cards.letGo(),
};

function pressedInName(event, value) {
  const card = cards.cards.get(value);
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    take(value);
    cards.move(value, 1, true);
  } else if (event.key === "Enter") {
    cards.keep(value);
    cards.move(value, event.shiftKey ? -1 : 1, true);
  } else if (event.key === "Escape") {
    cards.revert(value);
    card.focus();
  } else {
    return false;
  }
  return true;
}

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.isComposing || event.altKey) return;
  const { target } = event;
  const isName = target.classList.contains("name");
  const isText = isName || target.id === "find" || target.type === "number";
  const value = target.closest?.(".card") ? cards.current : null;
  if (isName && pressedInName(event, value)) {
    event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey) {
    const isTyped = isText && !(isName && target.value === target.dataset.known);
    const key = event.key.toLowerCase();
    const way = key === "y" || (key === "z" && event.shiftKey) ? "redo" : key === "z" && "undo";
    if (!way || isTyped) return;
    event.preventDefault();
    go(way);
    return;
  }
  if (isText) {
    if (target.id === "find" && (event.key === "Enter" || event.key === "Escape")) {
      if (event.key === "Escape") sift("all", "");
      cards.focus(cards.visible()[0], false);
      event.preventDefault();
    }
    return;
  }
  const isButton = target.matches("button, select, input") && ["Enter", " "].includes(event.key);
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (isButton || (target.matches("select, input") && key.startsWith("Arrow"))) return;
  const run = KEYS[key] && cards.current !== null ? () => KEYS[key](cards.current) : ANYWHERE[key];
  if (!run) return;
  event.preventDefault();
  run();
});

$("undo").addEventListener("click", () => go("undo"));
$("redo").addEventListener("click", () => go("redo"));
$("paint").addEventListener("click", paint);
$("help").addEventListener("click", showHelp);
$("merge").addEventListener("click", merge);
$("drop").addEventListener("click", () => cards.letGo());
$("sort").addEventListener("click", () => cards.sort());
$("find").addEventListener("input", () => cards.sift(cards.kind, $("find").value));
$("take").addEventListener("click", async () => {
  isOwner = (await post("take")).owner;
  tellNotices();
});
$("scene").addEventListener("change", () => {
  tellParts(list.get(Number($("scene").value)), 0);
  load();
});
$("part").addEventListener("change", () => load());
$("scene-back").addEventListener("click", () => turnScene(-1));
$("scene-on").addEventListener("click", () => turnScene(1));
$("zoom-in").addEventListener("click", () => map.zoom(1.5));
$("zoom-out").addEventListener("click", () => map.zoom(1 / 1.5));
$("zoom-fit").addEventListener("click", () => map.fit());
$("opacity").addEventListener("input", () => map.setOpacity($("opacity").value / 100));
$("only").addEventListener("change", () => map.setOnly($("only").checked));
for (const button of document.querySelectorAll("[data-kind]")) {
  button.addEventListener("click", () => sift(button.dataset.kind, $("find").value));
}
for (const button of document.querySelectorAll(".tabs button")) {
  button.addEventListener("click", () => view(button.dataset.view));
}

// What sticks to the top is as high as it has something to say.
new ResizeObserver(([{ target }]) => {
  document.documentElement.style.setProperty("--top", `${target.offsetHeight}px`);
}).observe(document.querySelector(".sticky"));

isOwner = await open();
show(await get("state"));
look();
if (matchMedia("(pointer: fine)").matches) cards.focus(cards.visible()[0], true);
await listScenes();

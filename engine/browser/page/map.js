// A scene with its classes over it. The browser has the number of each pixel's cluster, and colours
// it anew whenever a class changes; nothing is asked of the program for that.

import { labelOf } from "./cards.js";
import { get, numbers } from "./server.js";

const NONE = 65535;
const MOST_SCALE = 40; // pixels of the screen for one of the picture
const RING = 24; // radius round the place that was asked for
const CLICK = 5; // pixels that a click may move

export class SceneMap {
  // acts: picked(value of a class).
  constructor(canvas, words, acts) {
    this.canvas = canvas;
    this.words = words;
    this.acts = acts;
    this.context = canvas.getContext("2d");
    this.layer = document.createElement("canvas"); // the classes in their colours
    this.ids = null; // Uint16Array, a cluster a pixel
    this.image = null;
    this.size = [0, 0];
    this.view = { x: 0, y: 0, scale: 1 };
    this.opacity = 0.55;
    this.only = false;
    this.current = null;
    this.ofCluster = new Map(); // cluster -> class
    this.tints = new Map(); // value of a class -> colour that is being tried
    this.mark = null; // a place of the picture that somebody should look at
    this.asked = 0;
    this.pointers = new Map();
    this.#listen();
    new ResizeObserver(() => this.#resize()).observe(canvas);
  }

  // Load a part of a scene; a place (x, y in pixels of the scene) comes into the middle.
  async load(scene, part, survey, place) {
    const turn = ++this.asked;
    const key = `${scene.index}/${part}`;
    this.words.textContent = "…";
    const [image, coded] = await Promise.all([
      this.key === key ? this.image : picture(`scene/${key}/image`),
      numbers(`scene/${key}/clusters/${survey}`),
    ]);
    if (turn !== this.asked) return;
    const isOther = this.key !== key;
    this.key = key;
    this.shown = scene.parts[part];
    this.image = image;
    this.size = [coded[0], coded[1]];
    this.ids = coded.subarray(2);
    [this.layer.width, this.layer.height] = this.size;
    this.words.textContent = "";
    this.#colour();
    if (isOther) this.fit();
    this.mark = null;
    if (place) this.centre(place);
  }

  show(classes) {
    this.ofCluster.clear();
    for (const one of classes) {
      for (const cluster of one.clusters) this.ofCluster.set(cluster.number, one);
    }
    this.#colour();
  }

  tint(value, colour) {
    this.tints.clear();
    if (colour) this.tints.set(value, colour);
    this.#colour();
  }

  look(value) {
    this.current = value;
    if (this.only) this.#colour();
  }

  setOnly(isOnly) {
    this.only = isOnly;
    this.#colour();
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this.#draw();
  }

  fit() {
    const [width, height] = this.size;
    const { width: across, height: down } = this.canvas;
    if (!width || !across) return;
    const scale = Math.min(across / width, down / height);
    this.view = { scale, x: (across - width * scale) / 2, y: (down - height * scale) / 2 };
    this.#draw();
  }

  centre([x, y]) {
    const [left, top, width] = this.shown;
    const ratio = this.size[0] / width;
    const scale = Math.max(this.view.scale, 2 * devicePixelRatio);
    this.mark = [(x - left) * ratio, (y - top) * ratio];
    this.view = {
      scale,
      x: this.canvas.width / 2 - this.mark[0] * scale,
      y: this.canvas.height / 2 - this.mark[1] * scale,
    };
    this.#draw();
  }

  zoom(factor, at = [this.canvas.width / 2, this.canvas.height / 2]) {
    const { x, y, scale } = this.view;
    const least = 0.5 * Math.min(this.canvas.width / this.size[0], this.canvas.height / this.size[1]);
    const next = Math.min(Math.max(scale * factor, least), MOST_SCALE);
    const ratio = next / scale;
    this.view = { scale: next, x: at[0] - (at[0] - x) * ratio, y: at[1] - (at[1] - y) * ratio };
    this.#draw();
  }

  pan(dx, dy) {
    this.view.x += dx;
    this.view.y += dy;
    this.#draw();
  }

  // The class at a place of the canvas, in its own pixels.
  #classAt([x, y]) {
    const column = Math.floor((x - this.view.x) / this.view.scale);
    const row = Math.floor((y - this.view.y) / this.view.scale);
    const [width, height] = this.size;
    if (!this.ids || column < 0 || row < 0 || column >= width || row >= height) return null;
    return this.ofCluster.get(this.ids[row * width + column]) ?? null;
  }

  #colour() {
    if (!this.ids) return;
    const table = new Uint32Array(NONE + 1); // colours as ABGR, the way a canvas holds them
    for (const [cluster, one] of this.ofCluster) {
      const isOther = this.only && this.current !== null && one.value !== this.current;
      if (one.ignore || isOther) continue;
      const colour = parseInt((this.tints.get(one.value) ?? one.colour).slice(1), 16);
      const [red, green, blue] = [colour >> 16, (colour >> 8) & 255, colour & 255];
      table[cluster] = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    }
    const pixels = new Uint32Array(this.ids.length);
    for (let i = 0; i < pixels.length; i++) pixels[i] = table[this.ids[i]];
    const bytes = new Uint8ClampedArray(pixels.buffer);
    this.layer.getContext("2d").putImageData(new ImageData(bytes, ...this.size), 0, 0);
    this.#draw();
  }

  #draw() {
    if (this.isDrawing) return;
    this.isDrawing = true;
    requestAnimationFrame(() => {
      this.isDrawing = false;
      const { context, canvas, view } = this;
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, canvas.width, canvas.height);
      if (!this.ids) return;
      context.imageSmoothingEnabled = view.scale < 1.5;
      const [width, height] = this.size;
      const place = [view.x, view.y, width * view.scale, height * view.scale];
      context.globalAlpha = 1;
      context.drawImage(this.image, ...place);
      context.imageSmoothingEnabled = view.scale < 1;
      context.globalAlpha = this.opacity;
      context.drawImage(this.layer, ...place);
      if (this.mark) this.#ring(this.mark);
    });
  }

  #ring([x, y]) {
    const { context, view } = this;
    context.globalAlpha = 1;
    context.beginPath();
    context.arc(view.x + x * view.scale, view.y + y * view.scale, RING * devicePixelRatio, 0, 7);
    for (const [colour, width] of [["#000", 6], ["#fff", 3]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * devicePixelRatio;
      context.stroke();
    }
  }

  #resize() {
    const box = this.canvas.getBoundingClientRect();
    const width = Math.round(box.width * devicePixelRatio);
    const height = Math.round(box.height * devicePixelRatio);
    if (!width || (width === this.canvas.width && height === this.canvas.height)) return;
    [this.canvas.width, this.canvas.height] = [width, height];
    this.fit();
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((at) => at * devicePixelRatio);
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.mark = null;
      this.pointers.set(event.pointerId, { at: this.#at(event), moved: 0 });
    });
    canvas.addEventListener("pointermove", (event) => this.#moved(event));
    canvas.addEventListener("pointerup", (event) => {
      this.moved = this.pointers.get(event.pointerId)?.moved ?? Infinity;
      this.pointers.delete(event.pointerId);
    });
    // Not before: what a touch sends after it would go to what is there then.
    canvas.addEventListener("click", (event) => {
      const one = this.#classAt(this.#at(event));
      if (this.moved < CLICK * devicePixelRatio && one) this.acts.picked(one.value);
    });
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => (this.words.textContent = ""));
    const turned = (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / (event.deltaMode ? 15 : 300)), this.#at(event));
    };
    canvas.addEventListener("wheel", turned, { passive: false });
    canvas.addEventListener("keydown", (event) => this.#pressed(event));
  }

  #moved(event) {
    const pointer = this.pointers.get(event.pointerId);
    const at = this.#at(event);
    if (!pointer) {
      const one = this.#classAt(at);
      this.words.textContent = one ? labelOf(one) : "";
      this.canvas.classList.toggle("on-class", one !== null);
      return;
    }
    const [dx, dy] = [at[0] - pointer.at[0], at[1] - pointer.at[1]];
    const others = [...this.pointers.values()].filter((other) => other !== pointer);
    if (others.length) {
      const [other] = others;
      const gap = (one) => Math.hypot(one[0] - other.at[0], one[1] - other.at[1]);
      this.zoom(gap(at) / Math.max(gap(pointer.at), 1), other.at);
      other.moved = Infinity;
    } else {
      this.pan(dx, dy);
    }
    pointer.moved += Math.hypot(dx, dy);
    pointer.at = at;
  }

  #pressed(event) {
    const step = this.canvas.width / 8;
    const moves = {
      ArrowLeft: [step, 0],
      ArrowRight: [-step, 0],
      ArrowUp: [0, step],
      ArrowDown: [0, -step],
    };
    if (moves[event.key]) this.pan(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// All scenes of the run that can be shown, some at a time, the first ones at once.
export async function* scenes() {
  let first = 0;
  for (;;) {
    const { scenes: found, next } = await get(`scenes/${first}`);
    yield found;
    if (next === null) return;
    first = next;
  }
}

async function picture(path) {
  const image = new Image();
  image.src = path;
  await image.decode();
  return image;
}

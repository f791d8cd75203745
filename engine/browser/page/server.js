// What is asked of the program that shows this page. Changes go one after the other.

let session = null;
let last = Promise.resolve();

export class Refused extends Error {
  constructor(words, taken) {
    super(words);
    this.taken = taken;
  }
}

export async function get(path) {
  return read(await fetch(path, { cache: "no-store" }));
}

export function post(path, values = {}) {
  const done = last.then(() => send(path, values));
  last = done.catch(() => {});
  return done;
}

export async function numbers(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) await read(answer);
  return new Uint16Array(await answer.arrayBuffer());
}

export async function open() {
  const known = sessionStorage.getItem("session");
  if (known) session = Number(known);
  const news = known ? await get(`news/${session}`) : null;
  if (news?.owner) return true;
  const opened = await send("open", {});
  session = opened.session;
  sessionStorage.setItem("session", session);
  addEventListener("pagehide", leave);
  return opened.owner;
}

export const news = () => get(`news/${session}`);

function leave() {
  // A beacon outlives the page.
  navigator.sendBeacon("leave", JSON.stringify({ session }));
}

async function send(path, values) {
  const body = JSON.stringify(path === "open" ? {} : { session, ...values });
  return read(await fetch(path, { method: "POST", body, cache: "no-store" }));
}

async function read(answer) {
  let values;
  try {
    values = await answer.json();
  } catch {
    throw new Refused(`the program answered ${answer.status}`);
  }
  if (!answer.ok) throw new Refused(values.error, values.taken);
  return values;
}

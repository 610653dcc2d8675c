// The live page: asks the read-only API every few seconds and shows the answer.
//
// #/                         all targets (?q= filter, &status=, &sort=)
// #/NAMESPACE/NAME[/TRIGGER] one target (?at= seconds since 1970: the decision that stood then)

import { clock, duration, make, setText } from "./dom.js";
import { DetailView } from "./detail.js";
import { ListView } from "./list.js";
import { themeButton } from "./theme.js";

const EVERY_MAX_S = 5;
const EVERY_MIN_S = 1;
const ANSWER_WITHIN_S = 10;
const TICKS_SILENT = 3; // decisions older than that are no longer served to KEDA either

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const health = document.getElementById("health");

/** What is shown now: one view, when it last had an answer, and the next question. */
const page = { view: null, route: "", heard_at_s: null, every_s: EVERY_MAX_S, turn: 0, timer: 0 };

/** The list once it was shown: its filter, order and place survive a look at a target. */
let kept = null;

addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => document.hidden || ask());
document.querySelector(".top").append(themeButton());
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment belongs to the routes
  main.focus();
});
setInterval(tellHealth, 1000);
show();

/** Builds the view of the present route; the list is kept as it was for the way back. */
function show() {
  const { path, query } = route();
  const name = path.join("/");
  if (page.view && page.route === name) return page.view.changed(query);
  page.view?.leave();
  page.route = name;
  page.view = path.length >= 2 ? new DetailView(path, { back: kept?.address ?? "#/", query, fetched }) : listView(query);
  main.replaceChildren(page.view.element);
  page.view.enter();
  document.title = page.view.title;
  ask();
}

function listView(query) {
  if (kept) kept.changed(query);
  else kept = new ListView(query);
  return kept;
}

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return { path: path.split("/").filter(Boolean).map(plain), query: new URLSearchParams(query) };
}

/** A part of the address as text; a broken escape is taken literally. */
function plain(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** One question, its answer, and the appointment for the next; a newer question overtakes it. */
async function ask() {
  const turn = ++page.turn;
  clearTimeout(page.timer);
  const { view } = page;
  try {
    const answer = await fetched(view.url);
    if (turn !== page.turn) return;
    page.heard_at_s = Date.now() / 1000;
    page.every_s = Math.min(Math.max(answer.body.tick_s ?? EVERY_MAX_S, EVERY_MIN_S), EVERY_MAX_S);
    view.update(answer);
    tellHealth();
    warn(silence(answer.body));
  } catch (error) {
    if (turn !== page.turn) return;
    warn(`${reason(error)} ${lastHeard()} Asking again every ${duration(page.every_s)}.`);
  }
  if (!document.hidden) page.timer = setTimeout(ask, page.every_s * 1000);
}

async function fetched(url) {
  const answer = await fetch(url, {
    signal: AbortSignal.timeout(ANSWER_WITHIN_S * 1000),
    headers: { Accept: "application/json" },
    cache: "no-store",
  });
  const body = await answer.json();
  if (answer.ok || answer.status === 404) return { status: answer.status, body };
  throw new Error(body.error ?? `status ${answer.status}`);
}

/** Why there was no answer, for people. */
function reason(error) {
  if (error.name === "TimeoutError") {
    return `The daemon did not answer within ${ANSWER_WITHIN_S} s.`;
  }
  if (error instanceof TypeError) return "The daemon cannot be reached.";
  return `The daemon cannot answer: ${error.message}.`;
}

function lastHeard() {
  if (page.heard_at_s === null) return "";
  return `What is shown is from ${clock(page.heard_at_s)}.`;
}

/** A daemon that answers and no longer decides; empty while all is well. */
function silence(body) {
  const ages = (body.targets ?? [body]).map((target) => target.age_s).filter(Number.isFinite);
  if (!ages.length || !body.tick_s) return "";
  const youngest_s = Math.min(...ages);
  if (youngest_s <= TICKS_SILENT * body.tick_s) return "";
  return `The daemon answers, and has decided nothing for ${duration(youngest_s)}.`;
}

/** Shows or clears the banner; the alert is only spoken when its words change. */
function warn(text) {
  banner.hidden = !text;
  document.body.classList.toggle("stale", Boolean(text));
  setText(banner, text);
}

function tellHealth() {
  if (page.heard_at_s === null) return;
  const ago_s = Date.now() / 1000 - page.heard_at_s;
  const text = ago_s < 2 * EVERY_MAX_S ? "" : ` (${duration(ago_s)} ago)`;
  if (!health.firstElementChild) {
    health.replaceChildren(make("span", { cls: "wide", text: "Updated " }), make("time"));
  }
  setText(health.lastElementChild, clock(page.heard_at_s) + text);
}

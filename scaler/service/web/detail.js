// One target: what is wanted and why, and its past; a past decision where a time is pinned.

import { Charts } from "./charts.js";
import {
  ABSENT, count, duration, make, number, percent, reconcile, setAttr, setBadge, setText, words,
} from "./dom.js";
import { WALL, DAYS } from "./scales.js";
import { changes, forTime, runs } from "./series.js";
import { Why } from "./why.js";

const DASHED = [5, 3];
const DOTTED = [1.5, 3];

/** The panels; a line's column is one of the history's, or made from them. */
const PANELS = [
  {
    title: "Replicas", unit: "and load in their worth", whole: true, tall: true, format: number,
    lines: [
      { column: "ready", label: "ready", tone: "--ready", step: true, area: true, format: count },
      { column: "starting", label: "starting", tone: "--starting", step: true, dash: DOTTED, format: count },
      { column: "wanted", label: "current", tone: "--wanted", step: true, dash: DASHED, format: count },
      { column: "load", label: "load", tone: "--load" },
      { column: "desired", label: "desired", tone: "--desired", step: true, width: 2.2, format: count },
    ],
  },
  {
    title: "TTFT p95", unit: "seconds", least: 0.05, limits_max: 5, format: number,
    lines: [{ column: "ttft_p95_s", label: "p95", tone: "--ttft", format: seconds }],
  },
  {
    title: "Requests", unit: "", whole: true, format: number,
    lines: [
      { column: "running", label: "running", tone: "--running" },
      { column: "waiting", label: "waiting", tone: "--waiting", area: true, dash: DASHED },
    ],
  },
  {
    title: "Forecast", unit: "for each time, against the load that came", format: number,
    bands: [{ low: "expected", high: "upper", label: "mean to upper", tone: "--forecast" }],
    lines: [
      { column: "upper", label: "upper", tone: "--forecast", dash: DOTTED },
      { column: "load", label: "load", tone: "--load" },
    ],
  },
  {
    title: "Use", unit: "mean over replicas", max: 1, format: percent,
    lines: [
      { column: "kv_cache_ratio", label: "KV cache", tone: "--kv" },
      { column: "gpu_util_ratio", label: "GPU", tone: "--gpu", dash: DASHED },
    ],
  },
];
const OVERVIEW = [
  { column: "ready", tone: "--ready", step: true, area: true, width: 1 },
  { column: "load", tone: "--load", width: 1 },
];
const FIRST_SHOWN_S = 3 * 3600; // of the day in memory; the overview has the rest

const TILES = [
  ["Desired", "what an active target would publish", (t) => count(t.desired)],
  ["Published", "what KEDA is told; nothing while it is unknown", told],
  ["Current", "spec.replicas of the target", (t) => count(t.wanted)],
  ["Ready", "replicas that serve", (t) => count(t.ready)],
  ["Starting", "scheduled, not ready yet", (t) => count(t.starting)],
  ["No room", "cannot be scheduled", (t) => count(t.unschedulable)],
  ["Limits", "of the ScaledObject", limits],
  ["Data age", "oldest signal in use", (t) => duration(t.data_age_s)],
];

function told({ status, published }) {
  return status === "unknown" ? ABSENT : count(published);
}

function seconds(value) {
  return value === null || Number.isNaN(value) ? ABSENT : `${number(value)} s`;
}

function limits({ replicas_min: low, replicas_max: high }) {
  return (low ?? high ?? null) === null ? ABSENT : `${count(low)} to ${count(high)}`;
}

export class DetailView {
  /** `back` is the address of the list as the reader left it; `fetched` asks the daemon. */
  constructor([namespace, name, trigger], { back, query, fetched }) {
    this.title = `${namespace}/${name} · vllm-scaler`;
    this.url = `api/targets/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
    this.query = trigger ? `?trigger=${encodeURIComponent(trigger)}` : "";
    this.url += this.query;
    this.fetched = fetched;
    this.asked_at_s = askedAt(query); // of the address: the reader followed a link to a past time
    this.past = null; // what the daemon said of the time that is pinned
    this.turn = 0;
    this.charts = new Charts(PANELS, { overview: OVERVIEW, time: WALL, pinned: (place) => this.pinned(place) });
    this.why = new Why(this.url);
    this.element = this.build(namespace, name, back);
  }

  // Building, once.

  build(namespace, name, back) {
    this.missing = make("p", { cls: "empty", attrs: { hidden: "" } });
    this.content = make("div", {
      cls: "content",
      kids: [this.buildTiles(), this.buildSays(), make("div", { cls: "split", kids: [this.buildHistory(), this.why.element] })],
    });
    return make("article", { cls: "detail", kids: [this.buildHeading(namespace, name, back), this.missing, this.content] });
  }

  buildHeading(namespace, name, address) {
    this.badge = make("span", { cls: "badge" });
    this.mode = make("span", { cls: "mode" });
    this.kind = make("span", { cls: "kind" });
    const heading = make("h1", {
      kids: [make("span", { cls: "ns", text: `${namespace}/` }), make("span", { cls: "name", text: name })],
    });
    const back = make("a", { cls: "back", text: "← All targets", attrs: { href: address } });
    return make("div", { cls: "heading", kids: [back, heading, this.badge, this.mode, this.kind] });
  }

  buildTiles() {
    this.tiles = TILES.map(() => make("dd", { text: ABSENT }));
    return make("dl", {
      cls: "tiles",
      kids: TILES.map(([label, hint], place) =>
        make("div", { attrs: { title: hint }, kids: [make("dt", { text: label }), this.tiles[place]] })),
    });
  }

  buildSays() {
    this.headline = make("p", { cls: "headline" });
    this.notes = make("ul", { cls: "notes" });
    return make("div", { cls: "says", kids: [this.headline, this.notes] });
  }

  buildHistory() {
    this.none = make("p", { cls: "empty", text: "No decision yet: there is nothing to draw." });
    this.span = make("span", { cls: "quiet" });
    const heading = make("div", {
      cls: "over", kids: [make("h2", { text: "Past" }), this.charts.tools, this.span, this.charts.when],
    });
    const hint = make("p", { cls: "hint quiet", text: "Click a time for the decision made then; drag to zoom, double click for everything." });
    return make("section", { cls: "history", kids: [heading, this.none, this.buildThen(), this.charts.element, hint] });
  }

  /** The line that says which past decision is explained, and the way back. */
  buildThen() {
    this.thenTime = make("b");
    this.thenWords = make("span");
    const now = make("button", { cls: "tool", text: "Back to now", attrs: { type: "button", title: "Explain the latest decision (Escape in the charts)" } });
    now.addEventListener("click", () => this.charts.pin(null));
    this.then = make("div", { cls: "then", attrs: { role: "status", hidden: "" }, kids: [make("p", { kids: [this.thenTime, " ", this.thenWords] }), now] });
    return this.then;
  }

  // The page's calls.

  enter() {
    scrollTo(0, 0);
  }

  leave() {}

  changed(query) {
    this.asked_at_s = askedAt(query);
    this.goToAsked();
  }

  // A past time.

  /** The reader pinned a time, or let it go: what was decided then takes the place of the latest. */
  async pinned(place) {
    const turn = ++this.turn;
    const at_s = place === null ? null : this.endOf(place);
    history.replaceState(null, "", this.address(at_s));
    if (place === null) return this.tell(null);
    const { status, body } = await this.ask(at_s);
    if (turn === this.turn) this.tell({ found: status === 200, at_s, ...body });
  }

  /** The last decision in a row: a row of five minutes has many, and shows its last counts. */
  endOf(place) {
    const { at_s, step_s, tick_s } = this.charts.data;
    return at_s[place] + Math.max(step_s[place] - tick_s, 0);
  }

  urlAt(at_s) {
    return `${this.url}${this.query ? "&" : "?"}at=${at_s}`;
  }

  async ask(at_s) {
    try {
      return await this.fetched(this.urlAt(at_s));
    } catch (error) {
      return { status: 0, body: { error: error.message } };
    }
  }

  tell(past) {
    this.past = past?.found ? past : null;
    this.then.hidden = past === null;
    if (past) {
      setText(this.thenTime, DAYS.full(past.asked_at_s ?? past.at_s));
      setText(this.thenWords, past.found ? standing(past) : `${past.error}.`);
    }
    if (this.body) this.explain();
  }

  address(at_s) {
    const [path] = location.hash.split("?", 1);
    return at_s === null ? path : `${path}?at=${at_s}`;
  }

  goToAsked() {
    if (this.asked_at_s === null || !this.begun) return;
    this.charts.goTo(this.asked_at_s, FIRST_SHOWN_S / 2);
    this.asked_at_s = null;
  }

  update({ status, body }) {
    const found = status === 200;
    this.content.hidden = !found;
    this.missing.hidden = found;
    setText(this.missing, found ? "" : `${body.error ?? "No such target"}. It may have been deleted.`);
    setBadge(this.badge, found ? body.status : "gone");
    if (found) this.fill(body);
  }

  fill(body) {
    this.body = body;
    setText(this.mode, body.mode);
    setAttr(this.mode, "data-mode", body.mode);
    setText(this.kind, body.target === "unknown" ? "" : body.target);
    TILES.forEach(([, , text], place) => setText(this.tiles[place], text(body)));
    setText(this.headline, body.headline ?? (body.faults.length ? FAULTY : UNDECIDED));
    reconcile(this.notes, notes(body), () => make("li"), fillNote);
    this.fillHistory(body);
    this.explain();
    this.goToAsked();
  }

  explain() {
    const { past } = this;
    if (past) this.why.fill(past, `Why ${count(past.desired)} at ${WALL.full(past.at_s)}`, this.urlAt(past.asked_at_s));
    else this.why.fill(this.body);
  }

  fillHistory(body) {
    const { rows } = body.history;
    this.none.hidden = rows.length > 0;
    for (const part of [this.charts.when, this.charts.tools, this.charts.element]) part.hidden = !rows.length;
    if (!rows.length) return;
    const past = pastOf(body);
    const span_s = past.at_s.at(-1) - past.at_s[0];
    setText(this.span, `${duration(span_s)}, a decision every ${duration(body.tick_s)}`);
    this.charts.update({ ...past, limits: goals(body), sparse: true });
    if (!this.begun && span_s > FIRST_SHOWN_S) this.charts.span(FIRST_SHOWN_S);
    this.begun = true;
  }
}

function askedAt(query) {
  const at_s = Number.parseFloat(query?.get("at"));
  return Number.isFinite(at_s) ? at_s : null;
}

/** What holds between the decision that is remembered and the time that is pinned. */
function standing({ desired, at_s, asked_at_s: asked_s, tick_s, headline }) {
  if (asked_s < at_s + 1.5 * tick_s) return headline;
  const wanted = `${count(desired)} ${desired === 1 ? "replica" : "replicas"} wanted`;
  const since = `unchanged since the decision of ${WALL.full(at_s)}, which is explained`;
  return `${wanted}, ${since}: ${headline}`;
}

const FAULTY = "Nothing is decided, and KEDA is told of an error: the trigger is not understood.";
const UNDECIDED = "Nothing is decided yet: there has been no good observation of this target.";

/** What an operator must not miss, most urgent first: kind and words. */
function notes(body) {
  const found = body.faults.map((fault) => ["fault", fault]);
  found.push(...unseenNotes(body.decision?.blind ?? []));
  if (body.unschedulable > 0) {
    found.push(["blind", `${body.unschedulable} of the replicas cannot be scheduled: there is no room for them.`]);
  }
  if (body.mode !== "active" && body.desired !== undefined) found.push(["advice", difference(body)]);
  return found;
}

/** One line for all signals that are blind for the same reason. */
function unseenNotes(blind) {
  const reasons = new Map();
  for (const { signal, cause, detail } of blind) {
    const reason = words(cause) + (detail ? `, ${detail}` : "");
    reasons.set(reason, [...(reasons.get(reason) ?? []), words(signal)]);
  }
  return [...reasons].map(([reason, signals]) => ["blind", `Not seen: ${signals.join(", ")} (${reason}).`]);
}

function fillNote(item, [kind, text]) {
  setAttr(item, "data-kind", kind);
  setText(item, text);
}

/** What an active target would do now, and would have come to over the time drawn. */
function difference(body) {
  const { desired, wanted, mode, history: past } = body;
  const start = `${mode === "frozen" ? "Frozen" : "Advisory"}: would be ${count(desired)} against ${count(wanted)} now`;
  const sum = replicaHours(past);
  if (!sum) return `${start}.`;
  const { would, current, span_s: span } = sum;
  const part = current > 0 ? ` (${would >= current ? "+" : "−"}${percent(Math.abs(would / current - 1))})` : "";
  return `${start}; over the last ${duration(span)}, ${number(would)} replica-hours against ${number(current)}${part}.`;
}

const HELD_STEPS = 4;

/** Replica-hours wanted and had, where both are known: each row holds until the next. */
function replicaHours({ columns, rows }) {
  const [at, step, desired, wanted] = ["at_s", "step_s", "desired", "wanted"].map((name) => columns.indexOf(name));
  const sum = { would: 0, current: 0, span_s: 0 };
  for (let place = 1; place < rows.length; place += 1) {
    const row = rows[place - 1];
    const lasted_s = Math.min(rows[place][at] - row[at], HELD_STEPS * row[step]); // a silence is nobody's
    if (row[wanted] === null) continue;
    sum.would += (row[desired] * lasted_s) / 3600;
    sum.current += (row[wanted] * lasted_s) / 3600;
    sum.span_s += lasted_s;
  }
  return sum.span_s > 0 ? sum : null;
}

/** The rows of the answer as columns, with what the charts need beside them. */
function pastOf({ history: { columns: names, rows, stages }, tick_s, mode }) {
  const columns = Object.fromEntries(names.map((name, place) =>
    [name, Float64Array.from(rows, (row) => row[place] ?? NaN)]));
  const { at_s, step_s, forecast_lead_s: lead_s } = columns;
  columns.expected = forTime(at_s, lead_s, columns.forecast_mean);
  columns.upper = forTime(at_s, lead_s, columns.forecast_upper);
  const past = { at_s, columns, step_s, tick_s, stages, stage: columns.decided_by };
  return { ...past, events: [...changed(past), ...blindness(past), ...(mode === "active" ? [] : apart(past))] };
}

/** Changes of the count that the target has. */
function changed({ at_s, columns }) {
  return changes(at_s, columns.wanted).map(([at, before, after]) => ({
    at_s: at, kind: after > before ? "up" : "down", label: `replicas ${before} to ${after}`,
  }));
}

const BLIND = new Set(["blind", "floor", "no_api"]);

/** Spans in which data or the Kubernetes API was missing. */
function blindness(past) {
  return spans(past, past.stage)
    .filter((run) => BLIND.has(past.stages[run.value]))
    .map((run) => ({ at_s: run.begin_s, until_s: run.end_s, kind: "fault", label: words(past.stages[run.value]) }));
}

/** Spans in which this scaler, only asked for advice, wanted another count than there was. */
function apart(past) {
  const { desired, wanted } = past.columns;
  const sides = desired.map((would, place) => Math.sign(would - wanted[place]) || 0);
  return spans(past, sides)
    .filter((run) => run.value !== 0)
    .map((run) => ({
      at_s: run.begin_s, until_s: run.end_s, kind: run.value > 0 ? "more" : "fewer", label: run.value > 0 ? "wants more" : "wants fewer",
    }));
}

function spans({ at_s, step_s }, values) {
  const reach_s = at_s.map((at, place) => at + step_s[place] * 2);
  return runs(at_s, values, { reach_s, step_s, range: [0, at_s.length] });
}

/** Horizontal lines by panel. */
function goals({ ttft_slo_s: slo_s, replicas_max: most, history: { columns, rows } }) {
  const desired = columns.indexOf("desired");
  const near = most && rows.some((row) => row[desired] >= most);
  return { "TTFT p95": [[slo_s, `SLO ${number(slo_s)} s`]], Replicas: near ? [[most, `maximum ${most}`]] : [] };
}

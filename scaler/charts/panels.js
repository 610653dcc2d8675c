// The parts of a stack of charts: a panel of lines and bands, the strip of stages, the events.

import { ABSENT, make, setText, words } from "./dom.js";
import { Layers, arrow, band, dot, rule, series, text } from "./canvas.js";
import { highest, runs } from "./series.js";
import { linear, niceTop, timeTicks } from "./scales.js";
import { inkOn, tone } from "./theme.js";

export const GUTTER = { left: 46, right: 14, top: 8, bottom: 6 };
const STRIP = 24;
const TIMES = 18; // of a chart saved by itself: the row of times below it

/**
 * Lines and bands over one scale.  `lines`: `column`, `label`, `tone` (a custom property), and
 * `step`, `area`, `dash`, `width`, `format`; `bands`: `low`, `high` (columns), `label`, `tone`.
 * `max` is a fixed top, `least` the lowest top, `whole` puts ticks at integers; `limits_max` cuts the
 * scale at so many times the first limit, so that one outlier does not flatten everything else.
 * `misses_max` is the same for a share that should be near `max`: the scale begins where so many
 * times as much is missing as the first limit allows.
 */
export class Panel {
  constructor({ title, unit = "", lines, bands = [], max = null, least = 1, whole = false, tall = false, limits_max: cut = Infinity, misses_max: misses = null, format }) {
    Object.assign(this, { title, unit, lines, bands, max, least, whole, cut, misses, format, over: false, under: false });
    this.values = lines.map(() => make("b", { text: ABSENT }));
    const keys = lines.map((line, place) => key(line, this.values[place]));
    const bandKeys = bands.map((one) => key(one, null, "sample wide"));
    this.layers = new Layers(tall ? "tall" : "");
    const heading = make("h3", { text: title, kids: unit ? [make("small", { text: ` ${unit}` })] : [] });
    this.element = make("figure", {
      cls: "panel",
      attrs: { "data-panel": title },
      kids: [make("figcaption", { kids: [heading, ...keys, ...bandKeys] }), this.layers.element],
    });
  }

  draw(view) {
    const context = this.layers.fit();
    this.view = view;
    if (context) this.paint(context, view);
  }

  /** What a file of this chart has: the chart, its key, and the times below it. */
  saved() {
    const { title, unit, lines, bands, view, layers } = this;
    return {
      title: unit ? `${title}, ${unit}` : title, note: spanOf(view), width: layers.width, height: layers.height + TIMES,
      keys: [...lines, ...bands.map((one) => ({ ...one, block: true }))],
      paint: (context) => {
        this.paint(context, view);
        times(context, view, layers.height + TIMES / 2);
      },
    };
  }

  paint(context, view) {
    const { scale, range, columns, limits } = view;
    const lines = limits[this.title] ?? [];
    this.bottom = this.layers.height - GUTTER.bottom;
    this.y = this.upright(this.foot({ columns, range, lines }), this.top({ columns, range, lines }));
    this.grid(context, view);
    const common = { ...view, x: scale, y: this.y, floor: this.bottom };
    context.save();
    context.beginPath();
    context.rect(scale.from, 0, scale.to - scale.from + 1, this.layers.height);
    context.clip();
    shades(context, view, this.layers.height);
    for (const one of this.bands) {
      band(context, one, { ...common, low: columns[one.low], high: columns[one.high] });
    }
    for (const line of this.lines) series(context, line, { ...common, values: columns[line.column] });
    context.restore();
    for (const [value, label] of lines) this.limit(context, { value, label, scale });
  }

  top({ columns, range, lines }) {
    if (this.max !== null) return this.max;
    const shown = [...this.lines.map((line) => line.column), ...this.bands.map((one) => one.high)];
    const top = highest(shown.map((name) => columns[name]), range, this.least);
    const limit = lines.length ? lines[0][0] : Infinity;
    this.over = top > limit * this.cut;
    return niceTop(Math.max(Math.min(top, limit * this.cut), ...lines.map(([value]) => value * 1.2)), this.whole);
  }

  /** Where the scale begins; in round parts of what may miss. */
  foot({ columns, range: [from, to], lines }) {
    if (this.misses === null || !lines.length) return 0;
    const allowed = this.max - lines[0][0];
    let least = lines[0][0];
    for (const { column } of this.lines) {
      for (let place = from; place < to; place += 1) if (columns[column][place] < least) least = columns[column][place];
    }
    const foot = Math.max(this.max - allowed * this.misses, 0);
    this.under = least < foot;
    return Math.max(foot, Math.min(this.max - niceTop((this.max - least) * 1.1 || allowed, false), this.max - 2 * allowed));
  }

  upright(low, top) {
    const scale = linear({ low, high: top, from: this.bottom, to: GUTTER.top });
    return Object.assign((value) => scale(Math.min(Math.max(value, low), top)), { low, top });
  }

  grid(context, { scale, time }) {
    const { at } = timeTicks(scale, { zero_s: time.zero(scale.high) });
    for (const at_s of at) rule(context, { x1: scale(at_s), x2: scale(at_s), y1: GUTTER.top, y2: this.bottom });
    const { low, top } = this.y;
    for (const value of this.whole && top < 2 ? [0, top] : [low, (low + top) / 2, top]) {
      rule(context, { x1: scale.from, x2: scale.to, y1: this.y(value), y2: this.y(value) });
      const more = this.over && value === top ? "≥ " : this.under && value === low ? "≤ " : "";
      text(context, more + this.format(value), { x: scale.from - 6, y: this.y(value), align: "right" });
    }
  }

  limit(context, { value, label, scale }) {
    const y = this.y(value);
    rule(context, { x1: scale.from, x2: scale.to, y1: y, y2: y, colour: "--limit", dash: [6, 4], width: 1.3 });
    const above = y - 16 > GUTTER.top ? -8 : 9; // below the line where there is no room above it
    text(context, label, { x: scale.to - 4, y: y + above, colour: "--limit", align: "right", weight: 600, halo: 4 });
  }

  showAt({ place, x, pin, selected }) {
    if (!this.view || !this.layers.width) return;
    const { columns, scale } = this.view;
    const values = this.lines.map((line) => columns[line.column][place]);
    this.lines.forEach((line, index) => {
      setText(this.values[index], written(values[index], line.format ?? this.format));
    });
    const context = this.layers.over();
    upright(context, { x, pin, selected, scale, bottom: this.bottom, top: GUTTER.top });
    if (x === null || x < scale.from - 1 || x > scale.to + 1) return;
    this.lines.forEach((line, index) => {
      if (!Number.isNaN(values[index])) dot(context, { x, y: this.y(values[index]), colour: line.tone });
    });
  }

  spoken() {
    return this.lines.map(({ label }, place) => `${label} ${this.values[place].textContent}`);
  }
}

/** Replica changes, faults and whatever else happened, in one row of marks. */
export class Lane {
  constructor() {
    this.value = make("span", { cls: "told", text: ABSENT });
    this.layers = new Layers("lane");
    const title = make("h3", { text: "Events" });
    this.element = make("figure", {
      cls: "panel", kids: [make("figcaption", { kids: [title, this.value] }), this.layers.element],
    });
  }

  draw(view) {
    this.view = view;
    this.element.hidden = !view.events.length;
    const context = this.layers.fit();
    if (!context) return;
    const { scale, events } = view;
    context.save();
    context.beginPath();
    context.rect(scale.from - 5, 0, scale.to - scale.from + 10, this.layers.height);
    context.clip();
    for (const event of events) {
      if ((event.until_s ?? event.at_s) < scale.low || event.at_s > scale.high) continue;
      if (event.until_s === undefined) {
        const up = event.kind === "up";
        arrow(context, { x: scale(event.at_s), y: up ? 7 : 17, up, colour: eventTone(event) });
      } else this.block(context, event, scale);
    }
    context.restore();
  }

  block(context, event, scale) {
    const x = Math.max(scale(event.at_s), scale.from);
    const width = Math.max(Math.min(scale(event.until_s), scale.to) - x, 2);
    context.fillStyle = tone(eventTone(event));
    context.globalAlpha = 0.3;
    context.fillRect(x, 2, width, this.layers.height - 4);
    context.globalAlpha = 1;
    if (width > event.label.length * 6 + 8) {
      text(context, event.label, { x: x + width / 2, y: this.layers.height / 2, align: "center", colour: "--ink", weight: 600 });
    }
  }

  showAt({ x, pin, selected, at_s: at }) {
    if (!this.view || this.element.hidden || !this.layers.width) return;
    const { scale, events, time } = this.view;
    upright(this.layers.over(), { x, pin, selected, scale, top: 0, bottom: this.layers.height });
    if (x === null) return setText(this.value, `${events.length} in all`);
    const reach_s = (6 * (scale.high - scale.low)) / (scale.to - scale.from); // some pixels
    const near = events.filter((event) => event.at_s - reach_s <= at && at <= (event.until_s ?? event.at_s) + reach_s);
    const told = near.slice(0, 2).map((event) => `${time.full(event.at_s)}: ${event.label}`);
    if (near.length > 2) told.push(`${near.length - 2} more`);
    setText(this.value, told.join("; ") || ABSENT);
  }
}

/** Which stage decided, as a strip of colours with words where there is room, and a legend. */
export class Strip {
  constructor() {
    this.title = "Decided by";
    this.value = make("b", { text: ABSENT });
    this.legend = make("p", { cls: "legend" });
    this.layers = new Layers("strip");
    const shown = make("span", { cls: "key", kids: [this.value] });
    this.element = make("figure", {
      cls: "panel last",
      kids: [make("figcaption", { kids: [make("h3", { text: this.title }), shown] }), this.layers.element, this.legend],
    });
  }

  draw(view) {
    const context = this.layers.fit();
    if (!context) return;
    this.view = view;
    this.keys(this.paint(context, view), view.stages);
  }

  saved() {
    const { view, layers } = this;
    const shown = new Set(runs(view.at_s, view.stage, view).map(({ value }) => view.stages[value]));
    const keys = [...shown].map((name) => ({ label: words(name), tone: stageTone(name), block: true, solid: true }));
    return {
      title: this.title, note: spanOf(view), keys, width: layers.width, height: layers.height,
      paint: (context) => this.paint(context, view),
    };
  }

  paint(context, view) {
    const { at_s, stage, stages, scale } = view;
    const found = runs(at_s, stage, view);
    for (const run of found) block(context, run, { scale, name: stages[run.value] });
    times(context, view, STRIP + 12);
    return found;
  }

  keys(found, stages) {
    const shares = new Map();
    let total = 0;
    for (const { value, begin_s: begin, end_s: end } of found) {
      shares.set(value, (shares.get(value) ?? 0) + end - begin);
      total += end - begin;
    }
    const order = [...shares].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    this.legend.replaceChildren(...order.map(([value, lasted]) => {
      const share = Math.round((100 * lasted) / total);
      const swatch = make("i", { cls: "swatch", attrs: { "data-stage": stages[value] } });
      return make("span", { cls: "key", kids: [swatch, `${words(stages[value])} ${share < 1 ? "<1" : share} %`] });
    }));
  }

  showAt({ place, x, pin, selected, time }) {
    if (!this.view || !this.layers.width) return;
    const { stage, stages, scale } = this.view;
    setText(this.value, words(stages[stage[place]]));
    const context = this.layers.over();
    upright(context, { x, pin, selected, scale, top: 0, bottom: STRIP });
    if (x === null || x < scale.from - 1 || x > scale.to + 1) return;
    const half = time.length * 3.2;
    const middle = Math.min(Math.max(x, half), this.layers.width - half);
    text(context, time, { x: middle, y: STRIP + 12, align: "center", colour: "--ink", weight: 600, halo: 8 });
  }
}

function times(context, { scale, time }, y) {
  const { at, step_s } = timeTicks(scale, { zero_s: time.zero(scale.high) });
  for (const at_s of at) {
    const x = Math.min(Math.max(scale(at_s), 24), scale.to - 18);
    text(context, time.tick(at_s, step_s), { x, y, align: "center" });
  }
}

function spanOf({ scale, time }) {
  return `${time.full(scale.low)} to ${time.full(scale.high)}`;
}

function block(context, { begin_s: begin, end_s: end }, { scale, name }) {
  const x = Math.max(scale(begin), scale.from);
  const width = Math.max(Math.min(scale(end), scale.to) - x, 1);
  const colour = tone(stageTone(name));
  context.fillStyle = colour;
  context.fillRect(x, 0, width, STRIP);
  const label = words(name);
  if (width < label.length * 6.6 + 8) return;
  text(context, label, { x: x + width / 2, y: STRIP / 2 + 0.5, align: "center", colour: inkOn(colour), weight: 600 });
}

/** The colour of a stage; what is not one of ours (a peer's name) has the neutral one. */
function stageTone(name) {
  return STAGES.has(name) ? `--st-${name.replaceAll("_", "-")}` : "--st-bounds";
}

const STAGES = new Set([
  "work", "forecast", "queue", "kv_cache", "ttft", "itl", "gpu", "idle", "wake", "hold_down", "keep", "veto",
  "no_api", "blind", "floor", "bounds", "unreachable_step", "frozen",
]);

const EVENTS = { up: "--up", down: "--down", more: "--up", fewer: "--down" };

function eventTone({ kind }) {
  return EVENTS[kind] ?? "--fault";
}

/** Spans of time in which something was wrong, behind the lines. */
function shades(context, { events, scale }, height) {
  for (const event of events) {
    if (event.kind !== "fault" || event.until_s === undefined || event.until_s < scale.low || event.at_s > scale.high) continue;
    context.globalAlpha = 0.09;
    context.fillStyle = tone(eventTone(event));
    const x = scale(event.at_s);
    context.fillRect(x, 0, Math.max(scale(event.until_s) - x, 1), height);
    context.globalAlpha = 1;
  }
}

/** The cursor's line, the pin's, and what is being selected. */
function upright(context, { x, pin, selected, scale, top, bottom }) {
  if (selected) {
    const [from, to] = selected.map((at) => Math.min(Math.max(at, scale.from), scale.to));
    context.globalAlpha = 0.14;
    context.fillStyle = tone("--focus");
    context.fillRect(from, top, to - from, bottom - top);
    context.globalAlpha = 1;
  }
  const inside = (at) => at !== null && at >= scale.from - 1 && at <= scale.to + 1;
  if (inside(pin)) rule(context, { x1: pin, x2: pin, y1: top, y2: bottom, colour: "--focus", width: 1.6 });
  if (inside(x) && x !== pin) rule(context, { x1: x, x2: x, y1: top, y2: bottom, colour: "--ink", alpha: 0.55 });
}

function key({ label, tone: colour, dash = [] }, value, cls = "sample") {
  const sample = make("i", { cls });
  sample.style.setProperty("--tone", `var(${colour})`);
  if (dash.length) sample.style.borderTopStyle = dash[0] < 3 ? "dotted" : "dashed";
  return make("span", { cls: "key", attrs: { "data-key": label }, kids: [sample, `${label} `, ...(value ? [value] : [])] });
}

/** A value as text; a dash where nothing was seen. */
function written(value, format) {
  return value === undefined || Number.isNaN(value) ? ABSENT : format(value);
}

// Charts over one time axis, drawn as SVG: lines, a strip of stages, and one cursor for all.

import { ABSENT, clock, make, makeSvg, setAttr, setText, words } from "./dom.js";

const GUTTER = { left: 46, right: 14, top: 8, bottom: 6 };
const AXIS = 20; // below the last panel
const STRIP = 24;
const GAP_TICKS = 4; // a longer silence breaks a line
const SPAN_TICKS_MIN = 20; // a daemon that has just started is not drawn as two wide steps
const TICK_STEPS_S = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];

/**
 * A stack of panels.  Each panel: title, unit, lines (`column`, `label`, `cls`, `step`, `format`),
 * and options `max` (a fixed top), `whole` (ticks at integers), `format`.
 */
export class Charts {
  constructor(panels) {
    this.columns = [];
    this.rows = [];
    this.cursor_at_s = null;
    this.panels = panels.map((panel) => new Panel(panel));
    this.strip = new Strip();
    this.when = make("output", { cls: "when", text: ABSENT });
    this.element = this.build();
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  build() {
    const element = make("div", {
      cls: "charts",
      attrs: {
        tabindex: "0", role: "slider", "aria-label": "Time in the charts: arrow keys move the cursor",
        "aria-orientation": "horizontal", "aria-valuemin": "0", "aria-valuemax": "0", "aria-valuenow": "0",
      },
      kids: [...this.panels.map((panel) => panel.element), this.strip.element],
    });
    element.addEventListener("pointermove", (event) => this.point(event));
    element.addEventListener("pointerdown", (event) => this.point(event));
    element.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.moveTo(null));
    element.addEventListener("keydown", (event) => this.key(event));
    element.addEventListener("blur", () => this.moveTo(null));
    return element;
  }

  /** New rows; `lines` are horizontal limits by panel title: `[value, label]`. */
  update({ history, tick_s: tickS, limits }) {
    this.columns = history.columns;
    this.rows = history.rows;
    this.stages = history.stages;
    this.tick_s = tickS;
    this.limits = limits;
    this.draw();
  }

  column(name) {
    const place = this.columns.indexOf(name);
    return this.rows.map((row) => row[place]);
  }

  draw() {
    const width = this.element.clientWidth;
    if (!width || !this.columns.length) return;
    const at_s = this.column("at_s");
    this.scale = timeScale(at_s, this.tick_s, width);
    const gap_s = GAP_TICKS * this.tick_s;
    for (const panel of this.panels) {
      const lines = panel.lines.map((line) => this.column(line.column));
      panel.draw({ scale: this.scale, at_s, lines, gap_s, limits: this.limits[panel.title] ?? [] });
    }
    this.strip.draw({
      scale: this.scale, at_s, gap_s, tick_s: this.tick_s,
      stages: this.column("decided_by").map((place) => this.stages[place]),
    });
    this.showCursor();
  }

  // The cursor.

  point(event) {
    if (!this.rows.length) return;
    const x = event.clientX - this.element.getBoundingClientRect().left;
    this.moveTo(nearest(this.column("at_s"), this.scale.time(x)));
  }

  key(event) {
    const last = this.rows.length - 1;
    const here = this.cursor_at_s === null ? last : this.index();
    const jump = Math.max(1, Math.round(this.rows.length / 10));
    const next = {
      ArrowLeft: here - 1, ArrowRight: here + 1, PageUp: here - jump, PageDown: here + jump, Home: 0, End: last,
    }[event.key];
    if (event.key === "Escape") this.moveTo(null);
    if (next === undefined || last < 0) return;
    event.preventDefault();
    this.moveTo(Math.min(Math.max(next, 0), last));
  }

  /** The cursor stays at its time, not at its place: rows move on under it. */
  moveTo(index) {
    this.cursor_at_s = index === null ? null : this.column("at_s")[index];
    this.showCursor();
  }

  index() {
    return nearest(this.column("at_s"), this.cursor_at_s);
  }

  /** Values at the cursor; without one, the latest. */
  showCursor() {
    const last = this.rows.length - 1;
    if (last < 0) return;
    const pinned = this.cursor_at_s !== null;
    const index = pinned ? this.index() : last;
    const at_s = this.column("at_s")[index];
    const x = pinned ? this.scale.x(at_s) : null;
    for (const panel of this.panels) panel.showAt(index, x);
    const stage = this.stages[this.column("decided_by")[index]];
    this.strip.showAt(stage, x, clock(at_s));
    setText(this.when, pinned ? `At ${clock(at_s)}` : `Latest, ${clock(at_s)}`);
    this.speak(index, last, `${clock(at_s)}, decided by ${words(stage)}`);
  }

  speak(index, last, when) {
    setAttr(this.element, "aria-valuemax", String(last));
    setAttr(this.element, "aria-valuenow", String(index));
    const values = this.panels.flatMap((panel) => panel.spoken());
    setAttr(this.element, "aria-valuetext", [when, ...values].join(", "));
  }
}

class Panel {
  constructor({ title, unit, lines, max = null, least = 1, whole = false, format }) {
    Object.assign(this, { title, lines, max, least, whole, format });
    this.values = lines.map(() => make("b", { text: ABSENT }));
    const keys = lines.map((line, place) => key(line.cls, line.label, this.values[place]));
    this.svg = makeSvg("svg", { cls: "plot", attrs: { "aria-hidden": "true" } });
    this.element = make("figure", {
      cls: "panel",
      kids: [
        make("figcaption", { kids: [make("h3", { text: title, kids: [make("small", { text: ` ${unit}` })] }), ...keys] }),
        this.svg,
      ],
    });
  }

  draw({ scale, at_s, lines, gap_s, limits }) {
    const height = this.svg.clientHeight;
    this.data = lines;
    const top = this.max ?? niceTop(highest(lines, limits, this.least), this.whole);
    const bottom = height - GUTTER.bottom;
    const y = (value) => bottom - (Math.min(value, top) / top) * (bottom - GUTTER.top);
    const ticks = (this.whole && top < 2 ? [0, top] : [0, top / 2, top]).map((value) => this.tick(value, y, scale));
    const paths = this.lines.map((line, place) => series(line, lines[place], { at_s, scale, y, gap_s, bottom }));
    this.y = y;
    this.cursor = makeSvg("g", { cls: "cursor" });
    this.svg.replaceChildren(
      ...verticals(scale, GUTTER.top, bottom), ...ticks.flat(), ...paths.flat(),
      ...limits.flatMap(([value, label]) => limitLine(label, y(value), scale)), this.cursor,
    );
    this.bottom = bottom;
  }

  tick(value, y, { left, right }) {
    const at = y(value);
    return [
      makeSvg("line", { cls: "grid", attrs: { x1: left, x2: right, y1: at, y2: at } }),
      makeSvg("text", { cls: "tick", text: this.format(value), attrs: { x: left - 6, y: at + 4, "text-anchor": "end" } }),
    ];
  }

  showAt(index, x) {
    if (!this.data) return;
    this.lines.forEach((line, place) => {
      setText(this.values[place], (line.format ?? this.format)(this.data[place][index]));
    });
    if (x === null) return this.cursor.replaceChildren();
    const dots = this.lines.map((line, place) => [line, this.data[place][index]]).filter(([, value]) => value !== null);
    this.cursor.replaceChildren(
      makeSvg("line", { attrs: { x1: x, x2: x, y1: GUTTER.top, y2: this.bottom } }),
      ...dots.map(([line, value]) => makeSvg("circle", { cls: line.cls, attrs: { cx: x, cy: this.y(value), r: 3.5 } })),
    );
  }

  spoken() {
    return this.lines.map(({ label }, place) => `${label} ${this.values[place].textContent}`);
  }
}

/** Which stage decided, as a strip of colours with words where there is room, and a legend. */
class Strip {
  constructor() {
    this.value = make("b", { text: ABSENT });
    this.legend = make("p", { cls: "legend" });
    this.svg = makeSvg("svg", { cls: "plot strip", attrs: { "aria-hidden": "true" } });
    this.element = make("figure", {
      cls: "panel last",
      kids: [
        make("figcaption", { kids: [make("h3", { text: "Decided by" }), make("span", { cls: "key", kids: [this.value] })] }),
        this.svg, this.legend,
      ],
    });
  }

  draw({ scale, at_s, stages, gap_s, tick_s }) {
    this.scale = scale;
    const found = runs(at_s, stages, gap_s, tick_s);
    this.cursor = makeSvg("g", { cls: "cursor" });
    this.svg.replaceChildren(
      ...found.flatMap((run) => block(run, scale)), ...timeAxis(scale, STRIP + 2), this.cursor,
    );
    const shares = new Map();
    for (const { stage, ticks } of found) shares.set(stage, (shares.get(stage) ?? 0) + ticks);
    const order = [...shares].sort((a, b) => b[1] - a[1]);
    reconcileKeys(this.legend, order, stages.length);
  }

  showAt(stage, x, time) {
    setText(this.value, words(stage));
    if (!this.cursor) return;
    if (x === null) return this.cursor.replaceChildren();
    const middle = Math.min(Math.max(x, this.scale.left - 10), this.scale.right - 16);
    this.cursor.replaceChildren(
      makeSvg("line", { attrs: { x1: x, x2: x, y1: 0, y2: STRIP } }),
      makeSvg("text", { cls: "now", text: time, attrs: { x: middle, y: STRIP + AXIS - 5, "text-anchor": "middle" } }),
    );
  }
}

function reconcileKeys(legend, order, total) {
  const keys = order.map(([stage, ticks]) => {
    const share = Math.round((100 * ticks) / total);
    return make("span", {
      cls: "key",
      kids: [make("i", { cls: "swatch", attrs: { "data-stage": stage } }), `${words(stage)} ${share < 1 ? "<1" : share} %`],
    });
  });
  legend.replaceChildren(...keys);
}

function key(cls, label, value) {
  return make("span", { cls: `key ${cls}`, kids: [make("i", { cls: "sample" }), `${label} `, value] });
}

/** Runs of one stage in a row; the last one reaches one tick beyond its last row. */
function runs(at_s, stages, gap_s, tick_s) {
  const found = [];
  at_s.forEach((time_s, place) => {
    const open = found.at(-1);
    const broken = place > 0 && time_s - at_s[place - 1] > gap_s;
    if (open && !broken) open.end_s = time_s;
    if (open && !broken && open.stage === stages[place]) {
      open.ticks += 1;
      open.end_s = time_s + tick_s;
      return;
    }
    found.push({ stage: stages[place], begin_s: time_s, end_s: time_s + tick_s, ticks: 1 });
  });
  return found;
}

function block({ stage, begin_s: beginS, end_s: endS }, scale) {
  const x = scale.x(beginS);
  const width = Math.max(Math.min(scale.x(endS), scale.right) - x, 1);
  const label = words(stage);
  const rect = makeSvg("rect", { attrs: { "data-stage": stage, x, y: 0, width, height: STRIP } });
  if (width < label.length * 7 + 10) return [rect];
  const text = makeSvg("text", { cls: "on", text: label, attrs: { x: x + width / 2, y: 16, "text-anchor": "middle" } });
  return [rect, text];
}

/** One line of a panel, with its area where its style has one. */
function series(line, values, { at_s, scale, y, gap_s, bottom }) {
  const parts = [];
  let part = null;
  values.forEach((value, place) => {
    const broken = place > 0 && at_s[place] - at_s[place - 1] > gap_s;
    if (value === null || broken) part = null;
    if (value === null) return;
    if (!part) parts.push((part = []));
    part.push([scale.x(at_s[place]), y(value)]);
  });
  const drawn = parts.map((points) => outline(points, line.step));
  const made = [makeSvg("path", { cls: `line ${line.cls}`, attrs: { d: drawn.join("") } })];
  if (line.area) {
    const areas = parts.map((points, place) => closed(drawn[place], points, bottom));
    made.unshift(makeSvg("path", { cls: `area ${line.cls}`, attrs: { d: areas.join("") } }));
  }
  return made;
}

function outline(points, step) {
  const [[x, y], ...rest] = points;
  if (!rest.length) return `M${round(x)},${round(y)}h0.01`; // a dot: the line's round cap
  const onward = rest.map(([toX, toY]) => (step ? `H${round(toX)}V${round(toY)}` : `L${round(toX)},${round(toY)}`));
  return `M${round(x)},${round(y)}${onward.join("")}`;
}

function closed(path, points, bottom) {
  return `${path}L${round(points.at(-1)[0])},${bottom}H${round(points[0][0])}Z`;
}

function round(pixels) {
  return Math.round(pixels * 10) / 10;
}

function limitLine(label, y, { left, right }) {
  return [
    makeSvg("line", { cls: "limit", attrs: { x1: left, x2: right, y1: y, y2: y } }),
    makeSvg("text", { cls: "limit", text: label, attrs: { x: right - 4, y: y - 4, "text-anchor": "end" } }),
  ];
}

// Scales.

function timeScale(at_s, tickS, width) {
  const last_s = at_s.at(-1) ?? 0;
  const first_s = Math.min(at_s[0] ?? 0, last_s - SPAN_TICKS_MIN * tickS);
  const left = GUTTER.left;
  const right = width - GUTTER.right;
  const perS = (right - left) / (last_s - first_s);
  return {
    left, right, first_s, last_s,
    x: (time_s) => left + (time_s - first_s) * perS,
    time: (x) => first_s + (x - left) / perS,
  };
}

/** Round times of day where the reader is, some 90 pixels apart. */
function timeTicks({ first_s: first, last_s: last, left, right }) {
  const wanted_s = ((last - first) * 90) / (right - left);
  const step_s = TICK_STEPS_S.find((step) => step >= wanted_s) ?? TICK_STEPS_S.at(-1);
  const zone_s = new Date(last * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((first - zone_s) / step_s) * step_s + zone_s; at <= last; at += step_s) found.push(at);
  return { found, short: step_s >= 60 };
}

function verticals(scale, top, bottom) {
  return timeTicks(scale).found.map((at) => {
    const x = round(scale.x(at));
    return makeSvg("line", { cls: "grid", attrs: { x1: x, x2: x, y1: top, y2: bottom } });
  });
}

function timeAxis(scale, y) {
  const { found, short } = timeTicks(scale);
  return found.map((at) => {
    const x = Math.min(Math.max(scale.x(at), 24), scale.right - 18);
    return makeSvg("text", {
      cls: "tick", text: clock(at, { short }), attrs: { x: round(x), y: y + AXIS - 7, "text-anchor": "middle" },
    });
  });
}

function highest(lines, limits, least) {
  let top = least;
  for (const values of lines) for (const value of values) if (value > top) top = value;
  for (const [value] of limits) top = Math.max(top, value * 1.2);
  return top;
}

/** The next round number; on whole axes one whose middle is whole too. */
function niceTop(value, whole) {
  const power = 10 ** Math.floor(Math.log10(value));
  const tops = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((step) => step * power);
  const fits = (top) => top >= value * (1 - 1e-9) && (!whole || top === 1 || top % 2 === 0);
  return tops.find(fits) ?? value;
}

/** The place of the time nearest to `time_s`; times ascend. */
function nearest(at_s, time_s) {
  let low = 0;
  let high = at_s.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (at_s[middle] < time_s) low = middle + 1;
    else high = middle;
  }
  return low > 0 && time_s - at_s[low - 1] < at_s[low] - time_s ? low - 1 : low;
}

// Points and curves over two quantities: what is gained against what it costs.

import { make } from "./dom.js";
import { Layers, dot, rule, text } from "./canvas.js";
import { saveButtons } from "./export.js";
import { linear, niceTicks } from "./scales.js";
import { onTheme, tone } from "./theme.js";

const MARGIN = { left: 78, right: 22, top: 14, bottom: 44 };
const REACH_PX = 16;

/** The focus that shows everything. */
export const EVERYTHING = Symbol("everything");

const MISSES_LEAST = 1e-5; // 99.999 %: what a day of requests can tell apart
const NINES = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999, 1 - MISSES_LEAST];

/**
 * `x` and `y`: `label`, `format`, and for y `nines`, an axis on which each further nine takes the
 * same room.  `chosen` is called with the point that is clicked.
 */
export class Scatter {
  constructor({ x, y, label, chosen = () => {} }) {
    Object.assign(this, { axes: { x, y }, chosen, series: [], rules: [], zoom: null, marked: null });
    this.layers = new Layers("scatter");
    this.tip = make("p", { cls: "tip", attrs: { hidden: "" } });
    this.layers.element.append(this.tip);
    const plot = make("div", { attrs: { role: "img", "aria-label": label }, kids: [this.layers.element] });
    this.element = make("div", { cls: "xy", kids: [saveButtons(label, () => [this.saved(label)]), plot] });
    const { element } = this.layers;
    element.addEventListener("pointerdown", (event) => this.press(event));
    element.addEventListener("pointermove", (event) => this.point(event));
    element.addEventListener("pointerup", (event) => this.release(event));
    element.addEventListener("pointerleave", () => this.tell(null));
    element.addEventListener("dblclick", () => this.focus(this.zoom ? null : EVERYTHING));
    new ResizeObserver(() => this.draw()).observe(element);
    onTheme(() => this.draw());
  }

  /**
   * `series`: `name`, `tone`, `points` (`x`, `y`, `label`, and whatever the caller wants back),
   * `path` (the line's points), `dash`, `strong`, `mark` (`dot`, `ring`, `diamond`);
   * `rules`: `axis`, `value`, `label`, `tone`;
   * `home`: the part worth looking at, `[[x1, x2], [y1, y2]]`, where outliers would fill the chart.
   */
  update({ series, rules, home = null }) {
    Object.assign(this, { series, rules, home, zoom: null });
    this.draw();
  }

  /** Shows a range of both on the axes' own scales, `EVERYTHING`, or what is worth looking at. */
  focus(zoom) {
    this.zoom = zoom;
    this.draw();
  }

  /** Makes one series stand out; null none. */
  mark(name) {
    if (this.marked === name) return;
    this.marked = name;
    this.draw();
  }

  set nines(on) {
    this.axes.y.nines = on;
    this.focus(null);
  }

  saved(title) {
    const named = this.series.filter((one) => one.points.length || one.path?.length > 1);
    const keys = [...new Map(named.map((one) => [one.name, { label: one.name, tone: one.tone, dash: one.dash }])).values()];
    return { title, keys: keys.length > 8 ? [] : keys, width: this.layers.width, height: this.layers.height, paint: (context) => this.paint(context) };
  }

  draw() {
    const context = this.layers.fit();
    if (!context) return;
    this.fitScales();
    this.paint(context);
    this.layers.over();
  }

  paint(context) {
    this.drawAxes(context);
    context.save();
    context.beginPath();
    context.rect(MARGIN.left - 5, MARGIN.top - 5, this.layers.width - MARGIN.left - MARGIN.right + 10, this.layers.height - MARGIN.top - MARGIN.bottom + 10);
    context.clip();
    for (const one of this.series) this.curve(context, one);
    for (const one of this.rules) this.limit(context, one);
    context.restore();
    this.names(context);
  }

  fitScales() {
    const { width, height } = this.layers;
    const all = this.series.flatMap((one) => one.points);
    const xs = [...all.map((at) => at.x), ...this.rules.filter((one) => one.axis === "x").map((one) => one.value)];
    const ys = [...all.map((at) => at.y), ...this.rules.filter((one) => one.axis === "y").map((one) => one.value)].map((y) => this.up(y));
    const home = this.home && [this.home[0], padded(this.home[1].map((y) => this.up(y)))];
    const [across, upward] = (this.zoom === EVERYTHING ? null : this.zoom ?? home) ?? [padded(xs), padded(ys)];
    this.x = linear({ low: across[0], high: across[1], from: MARGIN.left, to: width - MARGIN.right });
    this.level = linear({ low: upward[0], high: upward[1], from: height - MARGIN.bottom, to: MARGIN.top });
    this.y = (value) => this.level(this.up(value));
  }

  /** A value as the axis has it: plain, or counted in nines. */
  up(value) {
    return this.axes.y.nines ? -Math.log10(Math.max(1 - value, MISSES_LEAST)) : value;
  }

  drawAxes(context) {
    const { x: across, y: upward } = this.axes;
    const foot = this.layers.height - MARGIN.bottom;
    for (const value of niceTicks(this.x.low, this.x.high, (this.x.to - this.x.from) / 90)) {
      rule(context, { x1: this.x(value), x2: this.x(value), y1: MARGIN.top, y2: foot });
      text(context, across.format(value), { x: this.x(value), y: foot + 13, align: "center" });
    }
    let last = Infinity;
    for (const value of this.levels()) {
      const y = this.y(value);
      if (last - y < 22) continue;
      last = y;
      rule(context, { x1: this.x.from, x2: this.x.to, y1: y, y2: y });
      text(context, upward.format(value), { x: MARGIN.left - 8, y, align: "right" });
    }
    text(context, across.label, { x: (this.x.from + this.x.to) / 2, y: foot + 33, align: "center", size: 12, colour: "--ink" });
    context.save();
    context.translate(12, (MARGIN.top + foot) / 2);
    context.rotate(-Math.PI / 2);
    text(context, upward.label, { x: 0, y: 0, align: "center", size: 12, colour: "--ink" });
    context.restore();
  }

  levels() {
    const { low, high } = this.level;
    if (!this.axes.y.nines) return niceTicks(low, high, (this.level.from - this.level.to) / 45);
    return NINES.filter((value) => this.up(value) >= low - 1e-9 && this.up(value) <= high + 1e-9);
  }

  curve(context, one) {
    const faint = this.marked !== null && this.marked !== one.name;
    context.save();
    context.globalAlpha = faint ? 0.18 : 1;
    if (one.path?.length > 1) {
      context.strokeStyle = tone(one.tone);
      context.lineWidth = one.strong || this.marked === one.name ? 2.6 : 1.3;
      context.lineJoin = "round";
      context.setLineDash(one.dash ?? []);
      context.beginPath();
      for (const { x, y } of one.path) context.lineTo(this.x(x), this.y(y));
      context.stroke();
      context.setLineDash([]);
    }
    const radius = one.strong || this.marked === one.name ? 4.5 : one.small ? 2.2 : 3.4;
    for (const { x, y } of one.points) marker(context, one, { x: this.x(x), y: this.y(y), radius });
    context.restore();
  }

  limit(context, { axis, value, label, tone: colour, align = "right", dash = [6, 4] }) {
    const foot = this.layers.height - MARGIN.bottom;
    if (axis === "y") {
      const y = this.y(value);
      rule(context, { x1: this.x.from, x2: this.x.to, y1: y, y2: y, colour, dash, width: 1.3 });
      const x = align === "left" ? this.x.from + 6 : this.x.to - 4;
      text(context, label, { x, y: y - 8, align, colour, weight: 600, halo: 4 });
      return;
    }
    const x = this.x(value);
    rule(context, { x1: x, x2: x, y1: MARGIN.top, y2: foot, colour, dash, width: 1.3 });
    context.save();
    context.translate(x + 8, foot - 6);
    context.rotate(-Math.PI / 2);
    text(context, label, { x: 0, y: 0, colour, weight: 600, halo: 4 });
    context.restore();
  }

  /** Names beside the curves, where no other name is. */
  names(context) {
    const taken = [];
    const order = [...this.series].sort((a, b) => (b.strong ? 1 : 0) - (a.strong ? 1 : 0));
    for (const one of order) {
      if (!one.named || (this.marked !== null && this.marked !== one.name)) continue;
      const width = one.name.length * 6.4 + 6;
      const seen = (one.path ?? one.points).map((at) => [this.x(at.x), this.y(at.y)]).filter(([x, y]) => this.inside(x, y));
      const spots = seen.reverse().flatMap(([x, y]) => [[x + 8, y + 9], [x - width - 4, y - 8], [x + 8, y - 9]]);
      const free = spots.find(([x, y]) => x + width < this.layers.width && x > MARGIN.left && !taken.some(
        (box) => x < box.x + box.width && x + width > box.x && Math.abs(y - box.y) < 14));
      if (!free) continue;
      taken.push({ x: free[0], y: free[1], width });
      text(context, one.name, { x: free[0], y: free[1], colour: one.tone, weight: one.strong ? 700 : 500, halo: 3 });
    }
  }

  inside(x, y) {
    return x >= this.x.from - 4 && x <= this.x.to + 4 && y >= MARGIN.top - 4 && y <= this.layers.height - MARGIN.bottom + 4;
  }

  // The mouse.

  place(event) {
    const box = this.layers.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  nearest([x, y]) {
    let best = null;
    let reach = REACH_PX;
    for (const one of this.series) {
      for (const at of one.points) {
        const away = Math.hypot(this.x(at.x) - x, this.y(at.y) - y);
        if (away < reach && this.inside(this.x(at.x), this.y(at.y))) [best, reach] = [{ one, at }, away];
      }
    }
    return best;
  }

  press(event) {
    if (event.button === 0) this.drag = this.place(event);
  }

  point(event) {
    if (!this.x) return;
    const here = this.place(event);
    if (this.drag && event.buttons && this.far(here)) {
      const context = this.layers.over();
      const [[x1, y1], [x2, y2]] = [this.drag, here];
      context.fillStyle = tone("--focus");
      context.globalAlpha = 0.14;
      context.fillRect(Math.min(x1, x2), Math.min(y1, y2), Math.abs(x2 - x1), Math.abs(y2 - y1));
      context.globalAlpha = 1;
      return;
    }
    this.tell(this.nearest(here));
  }

  far([x, y]) {
    return Math.abs(x - this.drag[0]) > 6 && Math.abs(y - this.drag[1]) > 6;
  }

  release(event) {
    const here = this.place(event);
    const { drag } = this;
    const box = drag && this.far(here);
    this.drag = null;
    if (box) {
      const sorted = (a, b) => [a, b].sort((one, other) => one - other);
      this.focus([
        sorted(this.x.invert(drag[0]), this.x.invert(here[0])), sorted(this.level.invert(drag[1]), this.level.invert(here[1])),
      ]);
    } else if (drag) {
      const found = this.nearest(here);
      if (found) this.chosen(found.at, found.one);
    }
  }

  tell(found) {
    const context = this.layers.over();
    this.tip.hidden = !found;
    if (!found) return;
    const { one, at } = found;
    const [x, y] = [this.x(at.x), this.y(at.y)];
    dot(context, { x, y, colour: one.tone, radius: 5.5 });
    const lines = [`${this.axes.x.format(at.x)} ${this.axes.x.unit ?? ""}`, `${this.axes.y.format(at.y)} ${this.axes.y.unit ?? ""}`];
    this.tip.replaceChildren(make("b", { text: one.name }), ...[at.label ?? "", ...lines].filter((line) => line.trim())
      .flatMap((line) => [make("br"), line]));
    const left = x + 14 + this.tip.offsetWidth > this.layers.width ? x - 14 - this.tip.offsetWidth : x + 14;
    this.tip.style.left = `${Math.max(left, 0)}px`;
    this.tip.style.top = `${Math.max(y - this.tip.offsetHeight - 8, 0)}px`;
  }
}

function padded(values) {
  const known = values.filter(Number.isFinite);
  if (!known.length) return [0, 1];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.05 || 0.5;
  return [low - room, high + room];
}

function marker(context, { tone: colour, mark = "dot" }, { x, y, radius }) {
  context.beginPath();
  if (mark === "diamond") {
    const reach = radius * 1.5;
    context.moveTo(x, y - reach);
    context.lineTo(x + reach, y);
    context.lineTo(x, y + reach);
    context.lineTo(x - reach, y);
    context.closePath();
  } else context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = tone(mark === "ring" ? "--ground" : colour);
  context.fill();
  context.lineWidth = mark === "ring" ? 1.8 : 1;
  context.strokeStyle = tone(mark === "ring" ? colour : "--ground");
  context.stroke();
}

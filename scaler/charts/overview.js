// The whole time in one small picture, with the window that is shown: drag it, its edges, or
// anywhere beside it.

import { Layers, rule, series, text } from "./canvas.js";
import { make } from "./dom.js";
import { linear, niceTop, timeTicks } from "./scales.js";
import { highest } from "./series.js";
import { tone } from "./theme.js";

const SIDE = { left: 46, right: 14 };
const GRIP_PX = 6;
const FOOT = 14; // the row of times

export class Overview {
  /** `lines` as those of a panel; `chosen` is called with a window, or null for everything. */
  constructor(lines, chosen) {
    this.lines = lines;
    this.chosen = chosen;
    this.layers = new Layers("overview");
    this.element = make("div", {
      cls: "whole", attrs: { title: "The whole time: drag the window, or draw a new one", "aria-hidden": "true" },
      kids: [this.layers.element],
    });
    this.element.addEventListener("pointerdown", (event) => this.press(event));
    this.element.addEventListener("pointermove", (event) => this.pull(event));
    this.element.addEventListener("pointerup", () => (this.drag = null));
    this.element.addEventListener("pointercancel", () => (this.drag = null));
    this.element.addEventListener("dblclick", () => this.chosen(null));
  }

  draw({ at_s, columns, reach_s, whole_s: [low, high], window, time }) {
    const context = this.layers.fit();
    if (!context) return;
    const { width, height } = this.layers;
    const floor = height - FOOT;
    this.window = window;
    this.scale = linear({ low, high, from: SIDE.left, to: width - SIDE.right });
    const range = [0, at_s.length];
    const top = niceTop(highest(this.lines.map((line) => columns[line.column]), range, 1), true);
    const y = linear({ low: 0, high: top, from: floor, to: 2 });
    for (const line of this.lines) {
      series(context, line, { at_s, values: columns[line.column], range, reach_s, x: this.scale, y, floor });
    }
    rule(context, { x1: this.scale.from, x2: this.scale.to, y1: floor, y2: floor });
    this.times(context, time, floor);
    if (window) this.frame(context, window.map(this.scale), floor);
  }

  times(context, time, floor) {
    const { at, step_s } = timeTicks(this.scale, { zero_s: time.zero(this.scale.high) });
    for (const at_s of at) {
      const x = Math.min(Math.max(this.scale(at_s), 24), this.scale.to - 18);
      text(context, time.tick(at_s, step_s), { x, y: floor + 8, align: "center", size: 10 });
    }
  }

  frame(context, [from, to], floor) {
    context.globalAlpha = 0.72;
    context.fillStyle = tone("--ground");
    context.fillRect(this.scale.from, 0, from - this.scale.from, floor);
    context.fillRect(to, 0, this.scale.to - to + 1, floor);
    context.globalAlpha = 1;
    context.strokeStyle = tone("--focus");
    context.lineWidth = 1.5;
    context.strokeRect(from, 1, Math.max(to - from, 2), floor - 2);
  }

  press(event) {
    if (!this.scale || event.button !== 0) return;
    const x = event.clientX - this.element.getBoundingClientRect().left;
    const [from, to] = (this.window ?? [this.scale.low, this.scale.high]).map(this.scale);
    const near = (edge) => Math.abs(x - edge) <= GRIP_PX;
    this.drag = { x, window: this.window, kind: "new" };
    if (this.window && near(from)) this.drag.kind = "first";
    else if (this.window && near(to)) this.drag.kind = "last";
    else if (this.window && x > from && x < to) this.drag.kind = "move";
    this.element.setPointerCapture(event.pointerId);
  }

  pull(event) {
    if (!this.drag) return;
    const x = event.clientX - this.element.getBoundingClientRect().left;
    const { kind, window, x: began } = this.drag;
    const by = this.scale.invert(x) - this.scale.invert(began);
    const at = this.scale.invert(x);
    if (kind === "move") this.chosen(window.map((edge) => edge + by));
    else if (kind === "first") this.chosen([Math.min(at, window[1]), window[1]]);
    else if (kind === "last") this.chosen([window[0], Math.max(at, window[0])]);
    else if (Math.abs(x - began) > GRIP_PX) this.chosen([this.scale.invert(began), at].sort((a, b) => a - b));
  }
}

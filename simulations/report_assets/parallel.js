// Trials as lines over one axis for each setting.

import { make, number } from "./dom.js";
import { Layers, rule, text } from "./canvas.js";
import { saveButtons } from "./export.js";
import { linear } from "./scales.js";
import { onTheme, tone } from "./theme.js";

const INSET = { left: 60, right: 60, top: 54, bottom: 26 };

/** `axes`: `name`, `low`, `high`, `default`; `lines`: `values` by name, `tone`, `strong`, `alpha`. */
export class Parallel {
  constructor({ axes, lines, label }) {
    Object.assign(this, { axes, lines });
    this.layers = new Layers("parallel");
    this.layers.element.style.minWidth = `${axes.length * 84}px`;
    this.element = make("div", { cls: "tabled", attrs: { role: "img", "aria-label": label }, kids: [this.layers.element] });
    this.saves = saveButtons(label, () => [{ title: label, width: this.layers.width, height: this.layers.height, paint: (context) => this.paint(context) }]);
    new ResizeObserver(() => this.draw()).observe(this.layers.element);
    onTheme(() => this.draw());
  }

  draw() {
    const context = this.layers.fit();
    if (context) this.paint(context);
  }

  paint(context) {
    const { width, height } = this.layers;
    const gap = (width - INSET.left - INSET.right) / Math.max(this.axes.length - 1, 1);
    const x = (place) => INSET.left + place * gap;
    const ys = this.axes.map(({ low, high }) => linear({ low, high, from: height - INSET.bottom, to: INSET.top }));
    for (const line of this.lines) {
      context.globalAlpha = line.alpha ?? 1;
      context.strokeStyle = tone(line.tone);
      context.lineWidth = line.strong ? 3 : 1;
      context.beginPath();
      this.axes.forEach(({ name }, place) => context.lineTo(x(place), ys[place](line.values[name])));
      context.stroke();
    }
    context.globalAlpha = 1;
    this.axes.forEach((axis, place) => this.axis(context, axis, { x: x(place), y: ys[place], place }));
  }

  axis(context, { name, low, high, default: shipped }, { x, y, place }) {
    rule(context, { x1: x, x2: x, y1: y.to, y2: y.from, colour: "--quiet" });
    const [group, setting = ""] = name.split(/\.(.*)/);
    const top = 12 + (place % 2) * 0;
    text(context, setting ? group : "", { x, y: top, align: "center", size: 10 });
    text(context, brief(setting || group), { x, y: top + 13, align: "center", colour: "--ink", weight: 600, size: 10.5, halo: 3 });
    text(context, number(high), { x, y: y.to - 10, align: "center", size: 10 });
    text(context, number(low), { x, y: y.from + 12, align: "center", size: 10 });
    rule(context, { x1: x - 7, x2: x + 7, y1: y(shipped), y2: y(shipped), colour: "--ink", width: 2 });
  }
}

function brief(name) {
  return name.length > 17 ? `${name.slice(0, 16)}…` : name;
}

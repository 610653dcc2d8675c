// One plot on a canvas at the screen's own resolution, and a second one over it for the cursor.

import { make } from "./dom.js";
import { parts, outline } from "./series.js";
import { tone } from "./theme.js";

export const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif";

/** Two canvases of one size: what is drawn when data or the window change, and when a mouse moves. */
export class Layers {
  constructor(cls) {
    this.below = make("canvas", { attrs: { "aria-hidden": "true" } });
    this.above = make("canvas", { attrs: { "aria-hidden": "true" } });
    this.element = make("div", { cls: `plot ${cls}`, kids: [this.below, this.above] });
  }

  /** Fits both to the element; the drawing context of the lower one, or null while it is hidden. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !height) return null;
    Object.assign(this, { width, height });
    for (const canvas of [this.below, this.above]) {
      const [across, down] = [width, height].map((side) => Math.round(side * devicePixelRatio));
      if (canvas.width !== across) canvas.width = across;
      if (canvas.height !== down) canvas.height = down;
    }
    return this.cleared(this.below);
  }

  /** The upper one, empty. */
  over() {
    return this.cleared(this.above);
  }

  cleared(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.width ?? 0, this.height ?? 0);
    return context;
  }
}

export function text(context, words, { x, y, colour = "--quiet", align = "left", weight = 400, size = 11, halo = 0 }) {
  context.font = `${weight} ${size}px ${FONT}`;
  context.textAlign = align;
  context.textBaseline = "middle";
  if (halo) {
    context.lineJoin = "round";
    context.lineWidth = halo;
    context.strokeStyle = tone("--ground");
    context.strokeText(words, x, y);
  }
  context.fillStyle = colour.startsWith("--") ? tone(colour) : colour;
  context.fillText(words, x, y);
}

/** A straight line on whole pixels. */
export function rule(context, { x1, y1, x2, y2, colour = "--line", dash = [], width = 1, alpha = 1 }) {
  const half = (value) => Math.round(value) + 0.5;
  const [upright, level] = [x1 === x2, y1 === y2];
  context.save();
  context.globalAlpha = alpha;
  context.strokeStyle = tone(colour);
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  context.moveTo(upright ? half(x1) : x1, level ? half(y1) : y1);
  context.lineTo(upright ? half(x2) : x2, level ? half(y2) : y2);
  context.stroke();
  context.restore();
}

/** A line over time, broken where nothing was seen; its area where the line has one. */
export function series(context, line, { at_s: at, values, range, reach_s: reach, x, y, floor }) {
  context.save();
  context.strokeStyle = context.fillStyle = tone(line.tone);
  context.lineWidth = line.width ?? 1.6;
  context.lineJoin = "round";
  context.setLineDash(line.dash ?? []);
  for (const part of parts(at, values, reach, range)) {
    const points = outline(at, values, part, { x, y, step: line.step });
    if (line.area) shade(context, [...points, points.at(-2), floor, points[0], floor], 0.16);
    context.beginPath();
    context.moveTo(points[0], points[1]);
    for (let place = 2; place < points.length; place += 2) context.lineTo(points[place], points[place + 1]);
    if (points.length === 2) context.lineTo(points[0] + 0.5, points[1]);
    context.stroke();
  }
  context.restore();
}

/** The area between two columns. */
export function band(context, { tone: colour }, { at_s: at, low, high, range, reach_s: reach, x, y }) {
  context.save();
  context.fillStyle = tone(colour);
  for (const part of parts(at, high, reach, range)) {
    const top = outline(at, high, part, { x, y, step: false });
    const bottom = outline(at, low, part, { x, y, step: false });
    const back = [];
    for (let place = bottom.length - 2; place >= 0; place -= 2) back.push(bottom[place], bottom[place + 1]);
    shade(context, [...top, ...back], 0.26);
  }
  context.restore();
}

function shade(context, points, alpha) {
  context.save();
  context.globalAlpha = alpha;
  context.beginPath();
  for (let place = 0; place < points.length; place += 2) context.lineTo(points[place], points[place + 1]);
  context.closePath();
  context.fill();
  context.restore();
}

export function dot(context, { x, y, colour, radius = 3.5 }) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = tone(colour);
  context.fill();
  context.lineWidth = 1.5;
  context.strokeStyle = tone("--ground");
  context.stroke();
}

/** A small triangle that points up or down. */
export function arrow(context, { x, y, up, colour }) {
  const [tip, foot] = up ? [-4, 4] : [4, -4];
  context.beginPath();
  context.moveTo(x, y + tip);
  context.lineTo(x + 4, y + foot);
  context.lineTo(x - 4, y + foot);
  context.closePath();
  context.fillStyle = tone(colour);
  context.fill();
}

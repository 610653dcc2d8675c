// A chart as a file: SVG from what is drawn, PNG at twice the screen's size.  Nothing leaves the page.

import { FONT } from "./canvas.js";
import { make, setAttr } from "./dom.js";
import { tone } from "./theme.js";

const PAD = 12;
const HEAD = 40; // title and key
const PNG_SCALE = 2;

/**
 * A drawing context that writes SVG down: as much of CanvasRenderingContext2D as charts use.
 * Without rotation and scaling a path is what it is on a canvas.
 */
export class SvgContext {
  constructor() {
    this.out = [];
    this.clips = 0;
    this.path = [];
    this.kept = [];
    this.state = {
      fillStyle: "#000", strokeStyle: "#000", lineWidth: 1, globalAlpha: 1, font: `10px ${FONT}`, textAlign: "start",
      textBaseline: "alphabetic", lineJoin: "miter", dash: [], clip: null, turn: "",
    };
    for (const name of Object.keys(this.state)) {
      if (["dash", "clip", "turn"].includes(name)) continue;
      Object.defineProperty(this, name, { get: () => this.state[name], set: (value) => (this.state[name] = value) });
    }
  }

  save() {
    this.kept.push({ ...this.state });
  }

  restore() {
    this.state = this.kept.pop() ?? this.state;
  }

  setLineDash(dash) {
    this.state.dash = dash;
  }

  translate(x, y) {
    this.state.turn += ` translate(${hundredth(x)} ${hundredth(y)})`;
  }

  rotate(angle) {
    this.state.turn += ` rotate(${hundredth((angle * 180) / Math.PI)})`;
  }

  beginPath() {
    this.path = [];
  }

  moveTo(x, y) {
    this.path.push(`M${hundredth(x)} ${hundredth(y)}`);
  }

  lineTo(x, y) {
    this.path.push(`${this.path.length ? "L" : "M"}${hundredth(x)} ${hundredth(y)}`);
  }

  closePath() {
    this.path.push("Z");
  }

  rect(x, y, width, height) {
    this.path.push(`M${hundredth(x)} ${hundredth(y)}h${hundredth(width)}v${hundredth(height)}h${hundredth(-width)}Z`);
  }

  arc(x, y, radius) { // whole circles are all that is drawn
    const r = hundredth(radius);
    this.path.push(`M${hundredth(x - radius)} ${hundredth(y)}a${r} ${r} 0 1 0 ${hundredth(2 * radius)} 0a${r} ${r} 0 1 0 ${hundredth(-2 * radius)} 0Z`);
  }

  clip() {
    this.clips += 1;
    const { clip, turn } = this.state;
    const within = clip ? ` clip-path="url(#${clip})"` : "";
    this.out.push(`<clipPath id="c${this.clips}"${within}><path d="${this.path.join("")}"${turned(turn)}/></clipPath>`);
    this.state.clip = `c${this.clips}`;
  }

  stroke() {
    const { strokeStyle, lineWidth, lineJoin, dash } = this.state;
    const dashes = dash.length ? ` stroke-dasharray="${dash.map(hundredth).join(" ")}"` : "";
    this.add(`<path d="${this.path.join("")}" fill="none" stroke="${escaped(strokeStyle)}" stroke-width="${hundredth(lineWidth)}" stroke-linejoin="${lineJoin}"${dashes}`, "/>");
  }

  fill() {
    this.add(`<path d="${this.path.join("")}" fill="${escaped(this.state.fillStyle)}"`, "/>");
  }

  fillRect(x, y, width, height) {
    this.add(`<rect x="${hundredth(x)}" y="${hundredth(y)}" width="${hundredth(Math.max(width, 0))}" height="${hundredth(Math.max(height, 0))}" fill="${escaped(this.state.fillStyle)}"`, "/>");
  }

  strokeText(words, x, y) {
    this.text(words, { x, y, paint: `fill="none" stroke="${escaped(this.state.strokeStyle)}" stroke-width="${hundredth(this.state.lineWidth)}" stroke-linejoin="round"` });
  }

  fillText(words, x, y) {
    this.text(words, { x, y, paint: `fill="${escaped(this.state.fillStyle)}"` });
  }

  text(words, { x, y, paint }) {
    const [, weight = "400", size, family] = this.state.font.match(/^(?:(\w+) )?([\d.]+)px (.*)$/);
    const anchor = { right: "end", center: "middle", end: "end" }[this.state.textAlign] ?? "start";
    const middle = this.state.textBaseline === "middle" ? hundredth(y + size * 0.35) : hundredth(y); // not every reader knows dominant-baseline
    this.add(`<text x="${hundredth(x)}" y="${middle}" font-family="${escaped(family)}" font-size="${size}" font-weight="${weight}" text-anchor="${anchor}" ${paint}`, `>${escaped(words)}</text>`);
  }

  measureText(words) {
    const size = Number(this.state.font.match(/([\d.]+)px/)[1]);
    return { width: words.length * size * 0.55 };
  }

  clearRect() {}

  setTransform() {}

  add(open, close) {
    const { globalAlpha: alpha, clip, turn } = this.state;
    const shape = open + (alpha < 1 ? ` opacity="${hundredth(alpha)}"` : "") + turned(turn) + close;
    this.out.push(clip ? `<g clip-path="url(#${clip})">${shape}</g>` : shape); // a clip does not turn with what it clips
  }

  /** The picture, `width` by `height`, on a ground of its own. */
  picture(width, height) {
    return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">\n${this.out.join("\n")}\n</svg>\n`;
  }
}

/**
 * Two small buttons that save a chart; `draw` gives one picture or several, one below the other, in
 * the colours that are shown: `title`, `note` (the time that is shown), `keys` (`label`, `tone`,
 * `dash`; `block`, and `solid` ones, as areas), `width`, `height`, and `paint`, which draws into a
 * context whose origin is the plot's.
 */
export function saveButtons(name, draw) {
  const one = (kind, act) => {
    const button = make("button", { cls: "save", text: kind, attrs: { type: "button", title: `Save “${name}” as ${kind}`, "aria-label": `Save ${name} as ${kind}` } });
    button.addEventListener("click", () => act().catch((error) => setAttr(button, "title", error.message)));
    return button;
  };
  return make("span", {
    cls: "saves", kids: [
      one("SVG", async () => download(name, "svg", new Blob([svgOf(draw())], { type: "image/svg+xml" }))),
      one("PNG", async () => download(name, "png", await pngOf(draw()))),
    ],
  });
}

/** A button that opens a list of charts, each by itself and all together; `charts` have `title` and `saved()`. */
export function saveMenu(charts) {
  const row = (name, draw) => make("li", { kids: [make("span", { text: name }), saveButtons(name, draw)] });
  const there = () => charts.filter((one) => one.view && !one.element.hidden);
  const list = make("ul", {
    kids: [row("All charts", () => there().map((one) => one.saved())), ...charts.map((one) => row(one.title, () => [one.saved()]))],
  });
  const menu = make("details", { cls: "menu", kids: [make("summary", { cls: "tool", text: "Save", attrs: { title: "Save a chart as a picture" } }), list] });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.firstElementChild.focus();
  });
  menu.addEventListener("focusout", ({ relatedTarget: to }) => to && !menu.contains(to) && (menu.open = false));
  addEventListener("pointerdown", ({ target }) => menu.open && !menu.contains(target) && (menu.open = false));
  return menu;
}

/** Pictures as SVG, one below the other. */
export function svgOf(pictures) {
  const context = new SvgContext();
  const [width, height] = compose(context, pictures);
  return context.picture(width, height);
}

async function pngOf(pictures) {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const [width, height] = sizeOf(pictures);
  canvas.width = Math.round(width * PNG_SCALE);
  canvas.height = Math.round(height * PNG_SCALE);
  context.scale(PNG_SCALE, PNG_SCALE);
  compose(context, pictures);
  return new Promise((done, fail) => canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("the picture is too large"))), "image/png"));
}

function sizeOf(pictures) {
  return [
    Math.max(...pictures.map(({ width }) => width)) + 2 * PAD,
    pictures.reduce((sum, { height }) => sum + height + HEAD + PAD, 0),
  ];
}

function compose(context, pictures) {
  const whole = sizeOf(pictures);
  context.fillStyle = tone("--ground");
  context.fillRect(0, 0, ...whole);
  let top = 0;
  for (const one of pictures) {
    context.save();
    context.translate(0, top);
    framed(context, one);
    context.restore();
    top += one.height + HEAD + PAD;
  }
  return whole;
}

function framed(context, { title, note = "", keys = [], width, paint }) {
  context.textBaseline = "middle";
  caption(context, title, { x: PAD, y: 14, weight: 600, size: 14 });
  caption(context, note, { x: width + PAD, y: 14, align: "right", colour: "--quiet" });
  keyRow(context, keys);
  context.save();
  context.translate(PAD, HEAD);
  paint(context);
  context.restore();
}

function caption(context, words, { x, y, weight = 400, size = 11, align = "left", colour = "--ink" }) {
  context.font = `${weight} ${size}px ${FONT}`;
  context.textAlign = align;
  context.fillStyle = tone(colour);
  context.fillText(words, x, y);
}

function keyRow(context, keys) {
  let x = PAD;
  for (const { label, tone: colour, dash = [], block = false, solid = false } of keys) {
    context.save();
    context.strokeStyle = context.fillStyle = tone(colour);
    context.lineWidth = 2;
    context.setLineDash(dash);
    context.beginPath();
    context.moveTo(x, 30);
    context.lineTo(x + 16, 30);
    context.globalAlpha = block && !solid ? 0.34 : 1;
    if (block) context.fillRect(x, 25, 16, 10);
    else context.stroke();
    context.restore();
    caption(context, label, { x: x + 21, y: 30, colour: "--quiet" });
    x += 21 + context.measureText(label).width + 16;
  }
}

function download(name, kind, blob) {
  const url = URL.createObjectURL(blob);
  const link = make("a", { attrs: { href: url, download: `${fileName(`${document.title} ${name}`)}.${kind}` } });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function fileName(words) {
  return words.replace(/[^\w.-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 120).toLowerCase();
}

function turned(turn) {
  return turn ? ` transform="${turn.trim()}"` : "";
}

function hundredth(value) {
  return String(Math.round(value * 100) / 100);
}

function escaped(text) {
  return String(text).replace(/[&<>"]/g, (letter) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[letter]);
}

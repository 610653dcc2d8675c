// What every report has: its data, a heading with the verdict, tiles, bars.

import { make, number } from "./dom.js";
import { themeButton } from "./theme.js";

/** The data of this page. */
export async function payload() {
  const packed = atob(document.getElementById("data").textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(plain).json();
}

/** A column of JSON as numbers; NaN where it has null. */
export function numbers(column) {
  return Float64Array.from(column, (value) => (value === null ? NaN : value));
}

/** The page around `parts`; `badge` is `[kind, words]` or null. */
export function frame({ kind, title, badge = null, lead = "", sentences = [], parts }) {
  const heading = make("h1", { text: title });
  const about = make("p", { cls: "about", kids: [make("b", { text: "vllm-scaler" }), ` ${kind}`] });
  const top = make("header", { cls: "top", kids: [about, themeButton()] });
  const words = [heading];
  if (badge) words.unshift(make("span", { cls: "badge", text: badge[1], attrs: { "data-kind": badge[0] } }));
  const verdict = make("section", {
    cls: "verdict",
    kids: [
      make("div", { cls: "heading", kids: words }),
      ...(lead ? [make("p", { cls: "lead", text: lead })] : []),
      ...(sentences.length ? [make("p", { cls: "sentences", text: sentences.join(" ") })] : []),
    ],
  });
  const main = document.getElementById("main");
  document.body.prepend(top);
  main.replaceChildren(verdict, ...parts);
}

/** Numbers in boxes: label, value, a line below. */
export function tiles(items) {
  return make("dl", {
    cls: "tiles",
    kids: items.filter(Boolean).map(([label, value, below = ""]) => make("div", {
      kids: [make("dt", { text: label }), make("dd", { text: value }), make("dd", { cls: "below", text: below })],
    })),
  });
}

/** Values side by side as bars of one scale: name, value. */
export function bars(items, unit) {
  const most = Math.max(...items.map(([, value]) => value), 1e-9);
  return make("ul", {
    cls: "bars",
    kids: items.map(([name, value], place) => {
      const bar = make("i");
      bar.style.width = `${(100 * value) / most}%`;
      const row = [make("span", { text: name }), make("span", { cls: "track", kids: [bar] }), make("b", { text: `${grouped(value)} ${unit}` })];
      return make("li", { cls: place ? "" : "own", kids: row });
    }),
  });
}

/** A heading and what belongs below it. */
export function section(title, kids, note = "") {
  const words = make("div", { cls: "over", kids: [make("h2", { text: title }), make("span", { cls: "quiet", text: note })] });
  return make("section", { cls: "part", kids: [words, ...kids] });
}

/** 12,345.6 */
export function grouped(value) {
  return Math.abs(value) < 1000 ? number(value) : value.toLocaleString("en-US", { maximumFractionDigits: 0 });
}

// Light, dark, or as the system has it; and the colours of the style sheet for a canvas.

import { make, setAttr, setText } from "./dom.js";

const KEY = "vllm-scaler-theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const SYMBOLS = { auto: "◐", light: "☀", dark: "☾" };

const found = new Map();
const probe = make("i", { attrs: { hidden: "" } });

/** The colour of a custom property as a canvas takes it. */
export function tone(name) {
  let colour = found.get(name);
  if (colour === undefined) {
    if (!probe.isConnected) document.body.append(probe);
    probe.style.color = `var(${name}, currentcolor)`;
    colour = getComputedStyle(probe).color;
    found.set(name, colour);
  }
  return colour;
}

/** Black or white, whichever is read better on a colour of `tone`. */
export function inkOn(colour) {
  const light = colour.match(/[\d.]+/g).slice(0, 3).map((part) => (part / 255) ** 2.2);
  return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2] > 0.18 ? "#101418" : "#ffffff";
}

/** Calls back whenever colours have changed. */
export function onTheme(changed) {
  addEventListener("themechange", changed);
}

/** A button that goes through the three choices; the choice is kept where the browser allows it. */
export function themeButton() {
  const button = make("button", { cls: "tool theme", attrs: { type: "button" } });
  const show = (choice) => {
    setAttr(document.documentElement, "data-theme", choice);
    setText(button, SYMBOLS[choice]);
    setAttr(button, "aria-label", `Colours: ${choice === "auto" ? "as the system" : choice}`);
    setAttr(button, "title", button.getAttribute("aria-label"));
    announce();
  };
  button.addEventListener("click", () => {
    const choice = NEXT[document.documentElement.dataset.theme] ?? "light";
    keep(choice);
    show(choice);
  });
  show(kept());
  return button;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", announce);

function announce() {
  found.clear();
  dispatchEvent(new Event("themechange"));
}

/** A page opened from a file may have no storage. */
function kept() {
  try {
    const choice = localStorage.getItem(KEY);
    return choice in NEXT ? choice : "auto";
  } catch {
    return "auto";
  }
}

function keep(choice) {
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // without storage the choice lasts as long as the page
  }
}

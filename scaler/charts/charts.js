// Charts over one time axis: panels of lines and bands, a strip of stages, a lane of events, one
// cursor and one window of time for all.
//
// Drag to zoom, shift and drag to move, double click for everything; ctrl and wheel zoom as well.
// A click pins the cursor.  By keyboard: arrows, + and -, 0, Enter, Escape.

import { ABSENT, duration, make, setAttr, setText, words } from "./dom.js";
import { saveMenu } from "./export.js";
import { Overview } from "./overview.js";
import { Lane, Panel, Strip, GUTTER } from "./panels.js";
import { firstFrom, linear, nearest } from "./scales.js";
import { onTheme } from "./theme.js";

const GAP_TICKS = 4; // a longer silence breaks a line
const SPAN_TICKS_MIN = 20; // a daemon that has just started is not drawn as two wide steps
const WINDOW_TICKS_MIN = 8;
const CLICK_PX = 4;
const ZOOM = 1.6;
const SPANS_S = [3600, 6 * 3600, 24 * 3600];

/**
 * A stack of panels (see `Panel`).  `overview` names the columns of the small picture of the whole;
 * `pinned` is called with a place, or null, when the reader pins the cursor.
 */
export class Charts {
  constructor(panels, { overview, time, pinned = () => {} }) {
    this.panels = panels.map((panel) => new Panel(panel));
    this.strip = new Strip();
    this.lane = new Lane();
    this.parts = [...this.panels, this.lane, this.strip];
    this.time = time;
    this.told = pinned;
    this.window = null; // null: everything
    this.cursor_at_s = null;
    this.pin_at_s = null;
    this.data = null;
    this.frame = 0;
    this.overview = new Overview(overview, (window) => this.show(window));
    this.when = make("output", { cls: "when", text: ABSENT });
    this.tools = this.buildTools();
    this.stack = this.buildStack();
    this.element = make("div", { cls: "charts", kids: [this.overview.element, this.stack] });
    new ResizeObserver(() => this.request()).observe(this.stack);
    onTheme(() => this.request());
  }

  buildTools() {
    this.spans = SPANS_S.map((span_s) =>
      tool(duration(span_s), `The last ${duration(span_s)} of what is shown`, () => this.span(span_s)));
    this.whole = tool("All", "Everything (double click, or 0)", () => this.show(null));
    return make("div", {
      cls: "tools", attrs: { role: "group", "aria-label": "Window of time" },
      kids: [
        tool("−", "Zoom out (-)", () => this.zoom(ZOOM)), tool("+", "Zoom in (+)", () => this.zoom(1 / ZOOM)),
        ...this.spans, this.whole, saveMenu([...this.panels, this.strip]),
      ],
    });
  }

  buildStack() {
    const stack = make("div", {
      cls: "stack",
      attrs: {
        tabindex: "0", role: "slider", "aria-orientation": "horizontal", "aria-valuemin": "0",
        "aria-valuemax": "0", "aria-valuenow": "0",
        "aria-label": "Time in the charts: arrow keys move the cursor, plus and minus zoom, Enter pins",
      },
      kids: this.parts.map((part) => part.element),
    });
    stack.addEventListener("pointerdown", (event) => this.press(event));
    stack.addEventListener("pointermove", (event) => this.point(event));
    stack.addEventListener("pointerup", (event) => this.release(event));
    stack.addEventListener("pointercancel", () => this.forget());
    stack.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.moveTo(null));
    stack.addEventListener("dblclick", () => this.show(null));
    stack.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    stack.addEventListener("keydown", (event) => this.key(event));
    stack.addEventListener("blur", () => this.moveTo(null));
    return stack;
  }

  /**
   * New data: `at_s` and `columns` (name to Float64Array, NaN where nothing was seen), `stage` (a
   * place in `stages` per row), `tick_s`, `step_s` (how long each row lasts, where that is not a
   * tick), `limits` (panel title to `[value, label]`), `events` (`at_s`, `label`, `kind`, and
   * `until_s` where one lasts).
   */
  update(data) {
    const step_s = data.step_s ?? new Float64Array(data.at_s.length).fill(data.tick_s);
    const reach_s = data.at_s.map((at, place) => at + GAP_TICKS * step_s[place]);
    this.data = { ...data, step_s, reach_s };
    const last_s = data.at_s.at(-1) ?? 0;
    const least_s = data.sparse ? SPAN_TICKS_MIN * data.tick_s : data.tick_s;
    const before = this.whole_s;
    this.whole_s = [Math.min(data.at_s[0] ?? 0, last_s - least_s), last_s];
    if (this.window && before && this.window[1] >= before[1]) { // the reader follows the present
      const moved_s = last_s - before[1];
      this.window = this.window.map((at) => at + moved_s);
    }
    this.request();
  }

  // The window of time.

  get shown_s() {
    return this.window ?? this.whole_s;
  }

  /** Shows `[first_s, last_s]`, or everything. */
  show(window) {
    if (!this.data) return;
    this.window = window && this.within(window);
    this.request();
  }

  within([first, last]) {
    const [begin, end] = this.whole_s;
    const length = Math.max(last - first, WINDOW_TICKS_MIN * this.data.tick_s);
    if (length >= end - begin) return null;
    const from = Math.min(Math.max(first, begin), end - length);
    return [from, from + length];
  }

  /** Makes the window `factor` times as long, around `at_s`. */
  zoom(factor, at_s = this.pin_at_s ?? (this.shown_s[0] + this.shown_s[1]) / 2) {
    const [first, last] = this.shown_s;
    const around = Math.min(Math.max(at_s, first), last);
    this.show([around - (around - first) * factor, around + (last - around) * factor]);
  }

  move(share) {
    const [first, last] = this.shown_s;
    const by = (last - first) * share;
    if (this.window) this.show([first + by, last + by]);
  }

  span(span_s) {
    const end = this.pin_at_s === null ? this.shown_s[1] : this.pin_at_s + span_s / 2;
    this.show([end - span_s, end]);
  }

  // Drawing: at most once a frame.

  request() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const width = this.stack.clientWidth;
    if (!width || !this.data?.at_s.length) return;
    const [low, high] = this.shown_s;
    const { at_s: at } = this.data;
    this.scale = linear({ low, high, from: GUTTER.left, to: width - GUTTER.right });
    const range = [Math.max(firstFrom(at, low) - 1, 0), Math.min(firstFrom(at, high) + 1, at.length)];
    const view = { ...this.data, scale: this.scale, range, time: this.time };
    for (const part of this.parts) part.draw(view);
    this.overview.draw({ ...this.data, whole_s: this.whole_s, window: this.window, time: this.time });
    setAttr(this.element, "data-window", `${Math.round(low)} ${Math.round(high)}`);
    setAttr(this.whole, "aria-pressed", String(!this.window));
    this.spans.forEach((button, place) => {
      button.hidden = SPANS_S[place] >= this.whole_s[1] - this.whole_s[0];
    });
    this.showCursor();
  }

  // The cursor.

  timeAt(event) {
    return this.scale.invert(event.clientX - this.stack.getBoundingClientRect().left);
  }

  press(event) {
    if (!this.scale || event.button !== 0) return;
    this.drag = { x: event.clientX, at_s: this.timeAt(event), window: this.shown_s, moves: event.shiftKey };
    this.moveTo(nearest(this.data.at_s, this.drag.at_s));
  }

  point(event) {
    if (!this.scale) return;
    const { drag } = this;
    const mouse = event.pointerType !== "touch";
    if (drag && mouse && event.buttons && Math.abs(event.clientX - drag.x) > CLICK_PX) {
      if (!drag.far) this.stack.setPointerCapture(event.pointerId);
      drag.far = true;
      if (drag.moves) return this.pull(event);
      this.selected = [drag.at_s, this.timeAt(event)].sort((a, b) => a - b);
    }
    this.moveTo(nearest(this.data.at_s, this.timeAt(event)));
  }

  pull(event) {
    const [first, last] = this.drag.window;
    const per = (last - first) / (this.scale.to - this.scale.from);
    const by = (this.drag.x - event.clientX) * per;
    this.show([first + by, last + by]);
  }

  release(event) {
    const { drag, selected } = this;
    this.forget();
    if (!drag) return;
    if (selected) this.show(selected);
    else if (!drag.far) this.pin(nearest(this.data.at_s, this.timeAt(event)));
  }

  forget() {
    this.drag = this.selected = null;
    this.showCursor();
  }

  wheel(event) {
    if (!this.scale) return;
    const aside = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!aside && !event.ctrlKey && !event.metaKey && !event.shiftKey) return; // the page scrolls
    if (aside && !this.window) return;
    event.preventDefault();
    if (aside) this.move(event.deltaX / (this.scale.to - this.scale.from));
    else this.zoom(Math.exp(event.deltaY * 0.002), this.timeAt(event));
  }

  key(event) {
    if (!this.data?.at_s.length) return;
    const last = this.data.at_s.length - 1;
    const here = this.cursor_at_s === null ? this.place(this.pin_at_s ?? this.data.at_s[last]) : this.place(this.cursor_at_s);
    const seen = (this.shown_s[1] - this.shown_s[0]) / this.data.tick_s;
    const jump = Math.max(1, Math.round(seen / 10));
    const next = {
      ArrowLeft: here - 1, ArrowRight: here + 1, PageUp: here - jump, PageDown: here + jump, Home: 0, End: last,
    }[event.key];
    const act = {
      "+": () => this.zoom(1 / ZOOM, this.data.at_s[here]), "=": () => this.zoom(1 / ZOOM, this.data.at_s[here]),
      "-": () => this.zoom(ZOOM, this.data.at_s[here]), 0: () => this.show(null),
      Enter: () => this.pin(here), Escape: () => this.pin(null),
    }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || (next === undefined && !act)) return;
    event.preventDefault();
    if (act) return act();
    this.moveTo(Math.min(Math.max(next, 0), last));
    this.follow();
  }

  /** The window goes along with a cursor that leaves it. */
  follow() {
    const [first, last] = this.shown_s;
    if (this.cursor_at_s < first) this.show([this.cursor_at_s, this.cursor_at_s + last - first]);
    if (this.cursor_at_s > last) this.show([this.cursor_at_s - last + first, this.cursor_at_s]);
  }

  place(at_s) {
    return nearest(this.data.at_s, at_s);
  }

  /** The cursor stays at its time, not at its place: rows move on under it. */
  moveTo(place) {
    this.cursor_at_s = place === null ? null : this.data.at_s[place];
    this.showCursor();
  }

  /** Pins the cursor to a place, and tells whoever asked; null lets it go. */
  pin(place) {
    this.pin_at_s = place === null ? null : this.data.at_s[place];
    if (place === null) this.cursor_at_s = null;
    this.showCursor();
    this.told(place);
  }

  /** Pins a time and brings it into view, with `around_s` on either side. */
  goTo(at_s, around_s = null) {
    if (around_s !== null) this.show([at_s - around_s, at_s + around_s]);
    this.pin(this.place(at_s));
    this.cursor_at_s = this.pin_at_s;
    this.follow();
    this.cursor_at_s = null;
  }

  /** Values at the cursor; without one at the pin; without that the latest. */
  showCursor() {
    if (!this.data?.at_s.length || !this.scale) return;
    const { at_s: at, stage, stages } = this.data;
    const last = at.length - 1;
    const at_s = this.cursor_at_s ?? this.pin_at_s;
    const place = at_s === null ? last : this.place(at_s);
    const cursor = {
      place, x: at_s === null ? null : this.scale(at[place]), time: this.time.full(at[place]), at_s: at[place],
      pin: this.pin_at_s === null ? null : this.scale(this.pin_at_s),
      selected: this.selected ? this.selected.map(this.scale) : null,
    };
    for (const part of this.parts) part.showAt(cursor);
    setText(this.when, at_s === null ? `Latest, ${cursor.time}` : `${this.cursor_at_s === null ? "Pinned at" : "At"} ${cursor.time}`);
    this.speak(place, last, `${cursor.time}, decided by ${words(stages[stage[place]])}`);
  }

  speak(place, last, when) {
    setAttr(this.stack, "aria-valuemax", String(last));
    setAttr(this.stack, "aria-valuenow", String(place));
    const values = this.panels.flatMap((panel) => panel.spoken());
    setAttr(this.stack, "aria-valuetext", [when, ...values].join(", "));
  }
}

function tool(label, hint, act) {
  const button = make("button", { cls: "tool", text: label, attrs: { type: "button", title: hint, "aria-label": hint } });
  button.addEventListener("click", act);
  return button;
}

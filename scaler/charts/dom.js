// Elements and text.  Whatever comes from the API becomes a text node, never markup.

/** An element with a class, text and attributes; children are appended as they are. */
export function make(tag, { cls = "", text = null, attrs = {}, kids = [] } = {}) {
  const element = document.createElement(tag);
  if (cls) element.setAttribute("class", cls);
  if (text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attrs)) element.setAttribute(name, value);
  element.append(...kids);
  return element;
}

/** Sets text only where it changed, so that a selection in it survives an update. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute only where it changed; null removes it. */
export function setAttr(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Makes the children of `parent` one per item, kept by place: what is there is updated. */
export function reconcile(parent, items, create, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, place) => {
    let child = parent.children[place];
    if (!child) {
      child = create();
      parent.append(child);
    }
    update(child, item);
  });
}

/** A status as a coloured badge; the word is always there. */
export function setBadge(badge, status) {
  setAttr(badge, "class", "badge");
  setAttr(badge, "data-status", status);
  setText(badge, words(status));
}

/** `load_only` as people write it. */
export function words(name) {
  return String(name).replaceAll("_", " ");
}

export const ABSENT = "–";

/** A count, or a dash where it is not known. */
export function count(value) {
  return value === null || value === undefined ? ABSENT : String(Math.round(value));
}

/** Up to three digits that matter: 0.042, 1.25, 17.3, 240. */
export function number(value) {
  if (value === null || value === undefined) return ABSENT;
  const size = Math.abs(value);
  if (size !== 0 && size < 0.001) return value.toExponential(1);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return String(Number(value.toFixed(digits)));
}

/** A share of one in percent. */
export function percent(value) {
  return value === null || value === undefined ? ABSENT : `${number(value * 100)} %`;
}

/** A share that counts in nines: 98.87 %, 99.996 %, never rounded up to all. */
export function nines(value) {
  if (value === null || value === undefined) return ABSENT;
  const digits = [2, 3].find((some) => value >= 1 || Number((value * 100).toFixed(some)) < 100);
  return digits === undefined ? "over 99.999 %" : `${Number((value * 100).toFixed(digits))} %`;
}

/** A duration in at most two units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return ABSENT;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 600 && whole % 60) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 3600) return `${Math.round(whole / 60)} min`;
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  if (hours >= 48) return `${Math.floor(hours / 24)} d`;
  return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium", hourCycle: "h23" });
const CLOCK_SHORT = new Intl.DateTimeFormat("en-GB", { timeStyle: "short", hourCycle: "h23" });

/** Time of day where the reader is; without seconds on request. */
export function clock(at_s, { short = false } = {}) {
  return (short ? CLOCK_SHORT : CLOCK).format(new Date(at_s * 1000));
}

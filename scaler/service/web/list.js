// All targets in one table.  Only the rows in view are in the document, so that a thousand targets
// cost what thirty do; rows are kept by target, so that focus and selection survive an update.

import { ABSENT, count, duration, make, setAttr, setBadge, setText, words } from "./dom.js";

const OVERSCAN = 12; // rows kept ready above and below the window
/** From what needs a person to what needs nobody. */
const STATUSES = ["faulty", "unknown", "floored", "load_only", "held", "pending", "fresh"];

/** name, heading, explanation, class, text of a cell, sort key (the text where it is left out). */
const COLUMNS = [
  ["target", "Target", "Namespace and name", "c-target", null, (t) => `${t.namespace}/${t.name}`],
  ["status", "Status", "What the latest answer rests on", "c-status", null, severity],
  ["desired", "Desired", "Replicas that an active target would publish", "num", (t) => count(t.desired)],
  ["published", "Published", "Replicas that KEDA is told", "num c-mid", told],
  ["ready", "Ready", "Replicas that serve", "num", (t) => count(t.ready)],
  ["starting", "Starting", "Replicas scheduled and not ready yet", "num c-mid", (t) => count(t.starting)],
  ["unschedulable", "No room", "Replicas that cannot be scheduled", "num c-wide", (t) => count(t.unschedulable)],
  ["bound_by", "Signal", "The signal that asked for most, before holds and limits", "c-signal", (t) => (t.bound_by ? words(t.bound_by) : ABSENT)],
  ["decided_by", "Decided by", "The stage that fixed the number", "c-by", (t) => (t.decided_by ? words(t.decided_by) : ABSENT)],
  ["data_age_s", "Data age", "Age of the oldest signal in use", "num c-mid", (t) => duration(t.data_age_s)],
  ["mode", "Mode", "Active, advisory or frozen", "c-wide", (t) => t.mode],
  ["blind", "Blind or faulty", "Signals that could not be used, and faults of the trigger", "c-blind", blindness, troubles],
].map(([name, label, hint, cls, text, key]) => ({ name, label, hint, cls, text, key: key ?? sortable(name) }));

function sortable(name) {
  return (target) => target[name] ?? null;
}

/** An unknown count is not told: KEDA's call fails, so that it keeps what it has. */
function told({ status, published }) {
  return status === "unknown" ? ABSENT : count(published);
}

function severity(target) {
  return STATUSES.indexOf(target.status);
}

function troubles(target) {
  return target.faults.length * 100 + (target.blind?.length ?? 0);
}

/** Faults, then signals by the cause of their blindness: `stale: work, queue; absent: gpu`. */
function blindness({ faults, blind = [] }) {
  const causes = new Map();
  for (const item of blind) {
    const [signal, cause] = item.split(": ", 2).map(words);
    causes.set(cause, [...(causes.get(cause) ?? []), signal]);
  }
  return [...faults, ...[...causes].map(([cause, signals]) => `${cause}: ${signals.join(", ")}`)].join("; ");
}

export class ListView {
  title = "Targets · vllm-scaler";
  url = "api/targets";

  constructor(query) {
    this.targets = [];
    this.shown = [];
    this.rows = new Map(); // target id -> row in the document
    this.scroll_y = 0;
    this.counts = new Map();
    this.element = this.build();
    this.scrolled = () => this.render();
    this.changed(query);
  }

  // Building, once.

  build() {
    this.filter = make("input", {
      cls: "filter",
      attrs: {
        type: "search", placeholder: "Filter: name, status, stage, cause…", "aria-label": "Filter targets",
        autocomplete: "off", spellcheck: "false",
      },
    });
    this.filter.addEventListener("input", () => this.choose({ q: this.filter.value }));
    this.chips = make("div", {
      cls: "chips", attrs: { role: "group", "aria-label": "Show only a status" },
      kids: STATUSES.map((status) => this.chip(status)),
    });
    this.tally = make("p", { cls: "tally", attrs: { "aria-live": "polite" } });
    this.heads = COLUMNS.map((column) => this.head(column));
    this.above = spacer();
    this.below = spacer();
    this.body = make("tbody", { kids: [this.above, this.below] });
    this.empty = make("p", { cls: "empty", attrs: { hidden: "" } });
    this.table = make("table", {
      cls: "targets", attrs: { "aria-label": "Targets" },
      kids: [make("thead", { kids: [make("tr", { kids: this.heads })] }), this.body],
    });
    this.table.addEventListener("keydown", (event) => this.key(event));
    this.table.addEventListener("click", (event) => open(event));
    const bar = make("div", { cls: "bar", kids: [this.filter, this.chips, this.tally] });
    const heading = make("h1", { cls: "unseen", text: "Targets" });
    return make("section", { cls: "list", kids: [heading, bar, this.table, this.empty] });
  }

  chip(status) {
    const total = make("b", { text: "0" });
    const button = make("button", {
      cls: "chip", attrs: { type: "button", "data-status": status, "aria-pressed": "false" },
      kids: [total, ` ${words(status)}`],
    });
    button.addEventListener("click", () => {
      this.choose({ status: this.choice.status === status ? "" : status });
    });
    this.counts.set(status, { button, total });
    return button;
  }

  head({ name, label, hint, cls }) {
    const button = make("button", { cls: "sort", text: label, attrs: { type: "button", title: hint } });
    button.addEventListener("click", () => {
      const { sort } = this.choice;
      this.choose({ sort: sort === name ? `-${name}` : name });
    });
    return make("th", { cls, attrs: { scope: "col", "data-name": name }, kids: [button] });
  }

  // The page's calls.

  enter() {
    addEventListener("scroll", this.scrolled, { passive: true });
    addEventListener("resize", this.scrolled);
    this.render();
    scrollTo(0, this.scroll_y);
    this.render();
  }

  leave() {
    this.scroll_y = scrollY;
    removeEventListener("scroll", this.scrolled);
    removeEventListener("resize", this.scrolled);
  }

  /** The address has other choices than before. */
  changed(query) {
    const given = Object.fromEntries(["q", "status", "sort"].map((name) => [name, query.get(name) ?? ""]));
    const again = this.choice && Object.keys(given).every((name) => given[name] === this.choice[name]);
    this.choice = given;
    if (this.filter.value !== given.q) this.filter.value = given.q;
    if (!again) this.arrange();
  }

  /** A choice of the reader: kept in the address, so that it can be shared and survives reloading. */
  choose(part) {
    this.choice = { ...this.choice, ...part };
    history.replaceState(null, "", this.address);
    this.arrange();
  }

  get address() {
    const query = new URLSearchParams(Object.entries(this.choice).filter(([, value]) => value));
    return query.size ? `#/?${query}` : "#/";
  }

  update({ body }) {
    this.targets = identified(body.targets);
    this.arrange();
  }

  // Filter, order, rows.

  arrange() {
    const { q, status } = this.choice;
    const wanted = q.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.targets.filter((target) => wanted.every((word) => target.text.includes(word)));
    this.shown = found.filter((target) => !status || target.status === status);
    this.order();
    this.tell(found);
    this.render();
  }

  order() {
    const { sort } = this.choice;
    const column = COLUMNS.find(({ name }) => name === sort.replace("-", ""));
    const sign = sort.startsWith("-") ? -1 : 1;
    const by = column ? (a, b) => sign * compare(column.key(a), column.key(b), sign) : () => 0;
    this.shown.sort((a, b) => by(a, b) || (column ? 0 : severity(a) - severity(b)) || compare(a.label, b.label, 1));
    for (const head of this.heads) {
      const mine = head.dataset.name === column?.name;
      setAttr(head, "aria-sort", mine ? (sign < 0 ? "descending" : "ascending") : null);
    }
  }

  tell(found) {
    for (const [status, { button, total }] of this.counts) {
      const size = found.filter((target) => target.status === status).length;
      const pressed = this.choice.status === status;
      setText(total, String(size));
      setAttr(button, "aria-pressed", String(pressed));
      button.classList.toggle("none", size === 0 && !pressed);
    }
    const all = this.targets.length;
    const part = this.shown.length === all ? `${all}` : `${this.shown.length} of ${all}`;
    setText(this.tally, `${part} ${all === 1 ? "target" : "targets"}`);
    this.empty.hidden = this.shown.length > 0;
    this.table.hidden = !all;
    setText(this.empty, all ? NOTHING_MATCHES : NO_TARGETS);
  }

  render() {
    const height = rowHeight();
    const top = this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / height) - OVERSCAN);
    const end = Math.min(this.shown.length, Math.ceil((innerHeight - top) / height) + OVERSCAN);
    const start = Math.min(first, Math.max(end, 0));
    this.pad(this.above, start * height);
    this.pad(this.below, (this.shown.length - Math.max(end, start)) * height);
    this.place(this.shown.slice(start, end), start);
    setAttr(this.table, "aria-rowcount", String(this.shown.length + 1));
  }

  pad(row, pixels) {
    row.hidden = pixels <= 0;
    row.firstElementChild.style.height = `${pixels}px`;
  }

  /** Puts the rows of these targets between the spacers; nothing is moved that stays in place. */
  place(targets, start) {
    const keep = new Set(targets.map((target) => target.id));
    for (const [id, row] of this.rows) {
      if (!keep.has(id)) {
        row.remove();
        this.rows.delete(id);
      }
    }
    let before = this.above;
    targets.forEach((target, offset) => {
      const row = this.rows.get(target.id) ?? makeRow(target);
      this.rows.set(target.id, row);
      if (before.nextElementSibling !== row) move(row, before);
      fillRow(row, target);
      setAttr(row, "aria-rowindex", String(start + offset + 2));
      before = row;
    });
  }

  /** Up and down go from target to target, also to those not in the document yet. */
  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const row = document.activeElement?.closest?.("tr[data-id]");
    if (!step || !row) return;
    event.preventDefault();
    const next = this.shown[this.shown.findIndex(({ id }) => id === row.dataset.id) + step];
    if (!next) return;
    const link = this.rows.get(next.id)?.querySelector("a");
    link?.focus({ preventScroll: true });
    link?.scrollIntoView({ block: "nearest" });
    this.render();
  }
}

const NOTHING_MATCHES = "No target matches the filter.";
const NO_TARGETS =
  "No targets yet. One appears for every ScaledObject with a trigger of this scaler, " +
  "every target of the configuration, and every object that KEDA asks about.";

/** Targets with what the table needs again and again: an id, an address, a text to search in. */
function identified(targets) {
  const names = new Map();
  for (const { namespace, name } of targets) {
    const both = JSON.stringify([namespace, name]);
    names.set(both, (names.get(both) ?? 0) + 1);
  }
  return targets.map((target) => {
    const { namespace, name, trigger } = target;
    const alone = names.get(JSON.stringify([namespace, name])) === 1;
    const parts = alone ? [namespace, name] : [namespace, name, trigger];
    const label = parts.join("/");
    const seen = [label, target.target, target.status, target.mode, target.decided_by ?? "", target.bound_by ?? "", blindness(target)];
    return {
      ...target, label,
      id: JSON.stringify([namespace, name, trigger]),
      href: `#/${parts.map(encodeURIComponent).join("/")}`,
      text: seen.flatMap((text) => [text, words(text)]).join(" ").toLowerCase(),
    };
  });
}

const COLLATOR = new Intl.Collator("en", { numeric: true }); // chat-9 before chat-10

/** Smaller first; what is not known last in either direction. */
function compare(a, b, sign) {
  if (a === null || b === null) return sign * ((a === null) - (b === null));
  return typeof a === "string" ? COLLATOR.compare(a, b) : a - b;
}

function rowHeight() {
  return parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || 36;
}

function spacer() {
  // One cell: a span over columns that a narrow window hides would still be given their width.
  return make("tr", { cls: "spacer", attrs: { "aria-hidden": "true", hidden: "" }, kids: [make("td")] });
}

function makeRow(target) {
  const cells = COLUMNS.map(({ cls }) => make("td", { cls }));
  const link = make("a", { kids: [make("span", { cls: "ns" }), make("span", { cls: "name" })] });
  cells[0].append(link, make("span", { cls: "under", kids: [make("b"), make("span", { cls: "quiet" })] }));
  cells[1].append(make("span"));
  return make("tr", { attrs: { "data-id": target.id }, kids: cells });
}

function fillRow(row, target) {
  const [first, status] = row.children;
  const [link, under] = first.children;
  setAttr(link, "href", target.href);
  setAttr(first, "title", target.label);
  setText(link.firstElementChild, `${target.namespace}/`);
  setText(link.lastElementChild, target.label.slice(target.namespace.length + 1));
  setAttr(under, "data-status", target.status);
  setText(under.firstElementChild, words(target.status) + (target.mode === "active" ? "" : ` ${target.mode}`));
  setText(under.lastElementChild, ` · ${target.namespace}`);
  setBadge(status.firstElementChild, target.status);
  setAttr(row, "data-mode", target.mode);
  COLUMNS.forEach(({ name, text }, place) => {
    if (!text) return;
    const cell = row.children[place];
    setText(cell, text(target));
    if (name === "blind") setAttr(cell, "title", blindness(target) || null);
    if (name === "decided_by") setAttr(cell, "title", target.headline ?? null);
    cell.classList.toggle("off", differs(name, target));
  });
}

/** Cells that an eye should stop at: replicas that are not as wanted. */
function differs(name, target) {
  if (name === "ready") return target.ready !== null && target.ready < target.desired;
  if (name === "blind") return target.status !== "fresh";
  return name === "unschedulable" && target.unschedulable > 0;
}

/** Moves a row and gives it back the focus that moving takes. */
function move(row, before) {
  const focused = row.contains(document.activeElement) ? document.activeElement : null;
  before.after(row);
  focused?.focus({ preventScroll: true });
}

/** A click anywhere on a row follows its link, unless text is being selected. */
function open(event) {
  const row = event.target.closest("tr[data-id]");
  if (!row || event.target.closest("a, button") || String(getSelection())) return;
  location.hash = row.querySelector("a").hash;
}

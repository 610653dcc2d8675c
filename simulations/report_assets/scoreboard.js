// The scoreboard: standings, one chart and one table for the trace that is looked at.

import { make, nines, number, setAttr, setText } from "./dom.js";
import { EVERYTHING } from "./scatter.js";
import { frame, grouped, payload, section, tiles } from "./frame.js";
import { Table } from "./table.js";
import { behaviour, chart, content, groupTone } from "./scoreboard_chart.js";
import { ranking } from "./scoreboard_ranking.js";

const ALL = "All traces";

class Board {
  constructor(data) {
    this.data = data;
    this.choice = { trace: data.traces[0], groups: new Set(), variants: new Set(), words: "" };
    this.chart = chart((point) => this.find(point.entry.policy));
    this.table = new Table({ label: "Policies", rows: [], columns: columns(), sort: "hours", chosen: (row) => this.chart.mark(this.chart.marked === row.policy ? null : row.policy) });
    this.table.body.addEventListener("pointerover", (event) => this.chart.mark(event.target.closest("tr")?.dataset.policy ?? null));
    this.table.body.addEventListener("pointerleave", () => this.chart.mark(null));
    this.note = make("span", { cls: "quiet" });
    this.ranking = make("div", { cls: "part" });
    this.empty = make("p", { cls: "empty", text: "No policy matches the filter.", attrs: { hidden: "" } });
    this.build();
    this.arrange();
  }

  build() {
    const { data } = this;
    const names = data.traces.length > 1 ? [...data.traces, ALL] : data.traces;
    this.tabs = names.map((name) => ({ name, button: this.tab(name) }));
    const tabs = make("div", { cls: "tools", attrs: { role: "tablist", "aria-label": "Trace" }, kids: this.tabs.map((tab) => tab.button) });
    this.scale = make("button", { cls: "tool", text: "Count nines", attrs: { type: "button", "aria-pressed": "true", title: "On the vertical axis each further nine takes the same room" } });
    this.scale.addEventListener("click", () => {
      const on = this.scale.getAttribute("aria-pressed") !== "true";
      setAttr(this.scale, "aria-pressed", String(on));
      this.chart.nines = on;
    });
    const all = make("button", { cls: "tool", text: "Everything", attrs: { type: "button", title: "Also what is far from the target (double click)" } });
    all.addEventListener("click", () => this.chart.focus(this.chart.zoom === EVERYTHING ? null : EVERYTHING));
    const groups = this.filters("groups", [...new Set(data.entries.map((entry) => entry.group))], (name) => data.groups[name] ?? name);
    const variants = this.filters("variants", [...new Set(data.entries.map((entry) => entry.variant))], (name) => name);
    const search = make("input", { cls: "filter", attrs: { type: "search", placeholder: "Policy…", "aria-label": "Filter policies by name" } });
    search.addEventListener("input", () => this.choose({ words: search.value.toLowerCase() }));
    this.rankTitle = make("h2", { text: "Who needs least" });
    const lead = make("div", { cls: "over", kids: [this.rankTitle, tabs, this.note] });
    const bar = make("div", { cls: "over part", kids: [make("h2", { text: "Attainment against GPU-hours" }), this.scale, all] });
    const filters = make("div", { cls: "over", kids: [search, groups, variants] });
    const hint = make("p", { cls: "hint quiet", text: "Diamonds: as shipped; rings: other variants; curves: the best that turning the policy's main knob in hindsight gives; dotted: the front of all. Drag a box to zoom, double click for everything; a row of the table shows its policy alone." });
    this.element = make("section", { cls: "part", kids: [lead, this.ranking, bar, filters, this.chart.element, hint, this.table.element, this.empty] });
  }

  tab(name) {
    const button = make("button", { cls: "tool", text: short(name), attrs: { type: "button", role: "tab", title: name } });
    button.addEventListener("click", () => this.choose({ trace: name }));
    return button;
  }

  filters(kind, names, words) {
    return make("div", {
      cls: "tools", attrs: { role: "group", "aria-label": `Filter by ${kind}` },
      kids: names.map((name) => {
        const swatch = kind === "groups" ? [make("i", { cls: "swatch inline" })] : [];
        if (swatch.length) swatch[0].style.setProperty("--tone", `var(${groupTone(name)})`);
        const button = make("button", { cls: "tool", attrs: { type: "button", "aria-pressed": "false", "data-filter": name }, kids: [...swatch, words(name)] });
        button.addEventListener("click", () => {
          const chosen = this.choice[kind];
          if (!chosen.delete(name)) chosen.add(name);
          setAttr(button, "aria-pressed", String(chosen.has(name)));
          this.arrange();
        });
        return button;
      }),
    });
  }

  choose(part) {
    this.choice = { ...this.choice, ...part };
    this.arrange();
  }

  find(policy) {
    this.chart.mark(policy);
    const row = this.table.body.querySelector(`tr[data-policy="${CSS.escape(policy)}"]`);
    row?.scrollIntoView({ block: "center" });
  }

  arrange() {
    const { trace, groups, variants, words } = this.choice;
    for (const { name, button } of this.tabs) setAttr(button, "aria-selected", String(name === trace));
    const wanted = ({ group, variant, policy }) =>
      (!groups.size || groups.has(group)) && (!variants.size || variants.has(variant)) && policy.toLowerCase().includes(words);
    const here = this.data.entries.filter((entry) => trace === ALL || entry.trace === trace);
    const entries = here.filter(wanted);
    this.ranking.hidden = trace === ALL;
    const contenders = here.filter((entry) => entry.group !== "bound");
    const reached = contenders.some((entry) => entry.hours !== null);
    setText(this.rankTitle, trace === ALL ? "All traces" : reached ? "Who needs least" : "Who came nearest to the target");
    if (trace !== ALL) this.ranking.replaceChildren(...ranking(contenders, this.data.groups));
    const curved = new Set(entries.filter((entry) => entry.points?.length).map((entry) => entry.policy));
    const drawn = entries.map((entry) => ({ ...entry, curved: curved.has(entry.policy) }));
    this.chart.element.hidden = trace === ALL || !entries.length;
    this.empty.hidden = entries.length > 0;
    if (entries.length && trace !== ALL) this.chart.update(content(drawn));
    const [first] = entries;
    setText(this.note, trace === ALL || !first?.requests ? "" : `${first.requests.toLocaleString("en-US")} requests`);
    this.table.element.classList.toggle("one-trace", trace !== ALL);
    this.table.show(entries.map((entry) => ({
      ...entry, form: entry.variant + behaviour(entry), p95_s: entry.ttft_s?.p95, p99_s: entry.ttft_s?.p99,
      mean: entry.replicas?.mean, most: entry.replicas?.max,
      over: entry.hours !== null && entry.oracle_gpu_hours ? entry.hours / entry.oracle_gpu_hours : null,
      cls: entry.group === "ours" ? "ours" : "", data: { policy: entry.policy },
    })));
  }
}

function columns() {
  const plain = (value) => grouped(value);
  return [
    { name: "policy", label: "Policy" },
    { name: "form", label: "Variant", hint: "shipped: its defaults; frontier: its main knob chosen in hindsight on this trace" },
    { name: "group", label: "Group" },
    { name: "trace", label: "Trace", format: short },
    { name: "hours", label: "At target", hint: "GPU-hours for the target, which is reached from 0.3 points below it; a dash where it is not", num: true, format: plain },
    { name: "over", label: "/ oracle", hint: "GPU-hours at the target over the oracle's", num: true, format: (value) => value.toFixed(3) },
    { name: "slo_attainment_ratio", label: "Attained", num: true, format: nines },
    { name: "gpu_hours", label: "GPU-hours", num: true, format: plain },
    { name: "p95_s", label: "TTFT p95", num: true, format: (value) => `${number(value)} s` },
    { name: "p99_s", label: "p99", num: true, format: (value) => `${number(value)} s` },
    { name: "mean", label: "Replicas", hint: "mean", num: true, format: number },
    { name: "most", label: "Most", num: true },
    { name: "replica_changes", label: "Changes", num: true },
    { name: "reversals", label: "Reversals", num: true },
    { name: "knob_value", label: "Knob", hint: "Of its main knob, the value; its name is shown on hovering", num: true, format: knob },
  ];
}

function knob(value, { knob: name }) {
  return make("span", { text: number(value), attrs: name ? { title: name } : {} });
}

/** Ours against the best, trace by trace, and the mean. */
function standings({ standings: rows, means }) {
  const ratio = (value) => make("span", { cls: value > 1 ? "worse" : "better", text: value.toFixed(3) });
  const hours = (name) => (value, row) => `${grouped(value)} ${row[name]}`;
  const mean = Object.entries(means).map(([variant, found]) => ({
    trace: "geometric mean", variant, metric_ratio: found.metric, profile_ratio: found.profile, oracle_ratio: found.oracle, cls: "ours",
  }));
  const table = new Table({
    label: "Standings", rows: [...rows, ...(rows.length > mean.length ? mean : [])],
    columns: [
      { name: "trace", label: "Trace", format: short },
      { name: "variant", label: "predictive" },
      { name: "attained_ratio", label: "Attained", num: true, format: nines },
      { name: "target_ratio", label: "Target", num: true, format: nines },
      { name: "ours", label: "GPU-hours", hint: "for the target, which is reached from 0.3 points below it; a dash where it is not", num: true, format: grouped },
      { name: "metric", label: "Best metric-driven", format: hours("metric_by") },
      { name: "metric_ratio", label: "Ratio", hint: "ours over theirs: below 1 is better", num: true, format: ratio },
      { name: "profile", label: "Best given the capacity", format: hours("profile_by") },
      { name: "profile_ratio", label: "Ratio", num: true, format: ratio },
      { name: "oracle", label: "Oracle", num: true, format: grouped },
      { name: "oracle_ratio", label: "Ratio", num: true, format: (value) => value.toFixed(3) },
      { name: "bound", label: "Bound", hint: "no schedule can need less", num: true, format: grouped },
    ],
  });
  return section("Ours against the best", [table.element], "GPU-hours for the target; ratios are ours over theirs, below 1 is better");
}

/** `servegen-tenants-48h.csv.gz` without what every trace has. */
function short(name) {
  return name.replace(/\.(csv|parquet)(\.gz)?$/, "");
}

function boxes({ entries, traces, means }) {
  const shipped = means.shipped ?? {};
  const ratios = [["Over best metric-driven", shipped.metric], ["Over best given capacity", shipped.profile], ["Over the oracle", shipped.oracle]];
  return [
    ["Traces", String(traces.length), ""],
    ["Policies", String(new Set(entries.map((entry) => entry.policy)).size), `${entries.length} entries`],
    ...ratios.filter(([, ratio]) => ratio).map(([name, ratio]) => [name, ratio.toFixed(3), "our defaults, geometric mean"]),
  ];
}

function show(data) {
  const board = data.entries.length ? new Board(data).element : make("p", { cls: "empty", text: "No run." });
  const [lead = "", ...sentences] = data.sentences;
  frame({
    kind: "comparison", title: "Policies compared", lead, sentences,
    badge: data.badge, parts: [tiles(boxes(data)), board, ...(data.standings.length ? [standings(data)] : [])],
  });
}

show(await payload());

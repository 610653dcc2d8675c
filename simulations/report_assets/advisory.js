// The advisory report: all targets, and for one of them what would have been beside what was.

import { Charts } from "./charts.js";
import { ABSENT, count, duration, make, nines, number, setText } from "./dom.js";
import { DAYS } from "./scales.js";
import { forTime } from "./series.js";
import { frame, grouped, numbers, payload, section, tiles } from "./frame.js";
import { Table } from "./table.js";

const AROUND_S = 3600;
const BADGES = { go: ["good", "go"], "no-go": ["bad", "no-go"], undecided: ["plain", "undecided"] };
const seconds = (value) => (Number.isNaN(value) ? ABSENT : `${number(value)} s`);

const ATTAINED = {
  title: "Within the objective", unit: "of the live fleet's requests, as they were measured", max: 1, misses_max: 10, format: nines,
  lines: [{ column: "attained_ratio", label: "live", tone: "--good" }],
};
const PANELS = [
  {
    title: "Replicas", unit: "would be against live", whole: true, tall: true, format: number,
    lines: [
      { column: "live", label: "live", tone: "--ready", step: true, area: true, format: count },
      { column: "ready", label: "ready", tone: "--wanted", step: true, dash: [5, 3], format: count },
      { column: "load", label: "load", tone: "--load" },
      { column: "would_be", label: "would be", tone: "--desired", step: true, width: 2.2, format: count },
    ],
  },
  ATTAINED,
  {
    title: "TTFT p95", unit: "seconds", least: 0.05, limits_max: 5, format: number,
    lines: [{ column: "ttft_p95_s", label: "p95", tone: "--ttft", format: seconds }],
  },
  {
    title: "Queue", unit: "requests waiting", whole: true, format: number,
    lines: [{ column: "waiting", label: "waiting", tone: "--waiting", area: true, format: count }],
  },
  {
    title: "Forecast", unit: "for each time, against the load that came", format: number,
    bands: [{ low: "expected", high: "upper", label: "mean to upper", tone: "--forecast" }],
    lines: [{ column: "upper", label: "upper", tone: "--forecast", dash: [1.5, 3] }, { column: "load", label: "load", tone: "--load" }],
  },
];
const OVERVIEW = [
  { column: "live", tone: "--ready", step: true, area: true, width: 1 },
  { column: "would_be", tone: "--desired", step: true, width: 1 },
];

class One {
  constructor(tick_s, judged) {
    this.tick_s = tick_s;
    this.charts = new Charts(PANELS.filter((panel) => judged || panel !== ATTAINED), { overview: OVERVIEW, time: DAYS });
    this.title = make("h2");
    this.reasons = make("ul", { cls: "asks" });
    const over = make("div", { cls: "over", kids: [this.title, this.charts.tools, this.charts.when] });
    this.table = new Table({
      label: "Disagreements", rows: [], sort: "-lasted_s", chosen: (row) => this.charts.goTo(row.at_s, AROUND_S),
      columns: [
        { name: "at_s", label: "From", format: DAYS.full }, { name: "lasted_s", label: "For", num: true, format: duration },
        { name: "would_be", label: "Would be", num: true }, { name: "live", label: "Live", num: true },
        { name: "by", label: "Difference", num: true, format: (value) => (value > 0 ? `+${value}` : `−${-value}`) },
        { name: "why", label: "Why", wrap: true },
      ],
    });
    this.none = make("p", { cls: "quiet", text: "The two never disagreed." });
    const list = section("Disagreements", [this.table.element, this.none], "a click shows the moment");
    this.element = make("div", { cls: "one", kids: [make("section", { cls: "part", kids: [over, this.reasons, this.charts.element] }), list] });
  }

  show(target) {
    const columns = Object.fromEntries(Object.entries(target.columns).map(([name, values]) => [name, numbers(values)]));
    const at_s = numbers(target.at_s);
    columns.expected = forTime(at_s, columns.forecast_lead_s, columns.forecast_mean);
    columns.upper = forTime(at_s, columns.forecast_lead_s, columns.forecast_upper);
    const events = target.disagreements.map(({ at_s: from, until_s, would_be: would, live }) => ({
      at_s: from, until_s, label: `${would} against ${live}`, kind: would > live ? "more" : "fewer",
    }));
    this.charts.show(null);
    this.charts.update({
      at_s, columns, stages: target.stages, stage: Uint16Array.from(target.stage), tick_s: this.tick_s * target.every,
      limits: {
        "TTFT p95": [[target.ttft_slo_s, `SLO ${number(target.ttft_slo_s)} s`]],
        [ATTAINED.title]: [[target.attainment_target_ratio, `asked for ${nines(target.attainment_target_ratio)}`]],
      }, events,
    });
    setText(this.title, `${target.namespace}/${target.name}`);
    this.reasons.replaceChildren(...target.reasons.map((text) => make("li", { text })));
    const rows = target.disagreements.map((one) => ({ ...one, lasted_s: one.until_s - one.at_s, by: one.would_be - one.live }));
    this.table.show(rows);
    this.table.element.hidden = !rows.length;
    this.none.hidden = rows.length > 0;
  }
}

function targets(data, chosen) {
  const rows = data.targets.map((target) => ({
    ...target, label: `${target.namespace}/${target.name}`, over: target.gpu_hours_live ? target.gpu_hours_would / target.gpu_hours_live : null,
    stretches: target.disagreements.length, target,
  }));
  return new Table({
    label: "Targets", rows, sort: "label", chosen: (row) => chosen(row.target),
    columns: [
      { name: "label", label: "Target" },
      { name: "verdict", label: "Verdict", format: (value) => make("span", { cls: "badge", text: BADGES[value][1], attrs: { "data-kind": BADGES[value][0] } }) },
      { name: "gpu_hours_would", label: "GPU-hours, would be", num: true, format: grouped },
      { name: "gpu_hours_live", label: "Live", num: true, format: grouped },
      { name: "over", label: "Ratio", num: true, format: (value) => value.toFixed(2) },
      { name: "missed_minutes_would", label: "Minutes it would miss", num: true, format: number },
      { name: "missed_minutes_live", label: "Live missed", num: true, format: number },
      { name: "blind_minutes", label: "Blind", hint: "Minutes in which it saw too little", num: true, format: number },
      { name: "stretches", label: "Disagreements", num: true },
    ],
  });
}

function show(data) {
  const judged = data.targets.some(({ columns }) => columns.attained_ratio?.some((value) => value !== null));
  const one = new One(data.tick_s, judged);
  const table = targets(data, (target) => {
    one.show(target);
    one.element.scrollIntoView({ block: "start" });
  });
  const sum = (name) => data.targets.reduce((total, target) => total + target[name], 0);
  const boxes = [
    ["Targets", String(data.targets.length), `${data.targets.filter((target) => target.verdict === "go").length} ready to go`],
    ["GPU-hours, would be", grouped(sum("gpu_hours_would")), `${grouped(sum("gpu_hours_live"))} live`],
    ["Minutes it would miss", grouped(sum("missed_minutes_would")), `${grouped(sum("missed_minutes_live"))} live`],
    ["Time", `${number((data.to_at_s - data.from_at_s) / 86400)} days`, `from ${DAYS.full(data.from_at_s)}`],
  ];
  const badge = BADGES[data.verdict];
  frame({
    kind: "advisory report", title: "What would have been", badge, lead: data.lead, sentences: data.sentences,
    parts: [tiles(boxes), section("Targets", [table.element], "a click shows the target"), ...(data.targets.length ? [one.element] : [])],
  });
  if (data.targets.length) one.show(data.targets.find((target) => target.verdict !== "go") ?? data.targets[0]);
}

show(await payload());

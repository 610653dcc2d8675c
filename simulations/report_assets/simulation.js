// The report of one simulated run.

import { Charts } from "./charts.js";
import { ABSENT, count, make, nines, number, percent, words } from "./dom.js";
import { ELAPSED, nearest } from "./scales.js";
import { forTime } from "./series.js";
import { bars, frame, grouped, numbers, payload, section, tiles } from "./frame.js";
import { changesTable, summaryTable, worstMoments } from "./simulation_tables.js";
import { Why } from "./why.js";

const DASHED = [5, 3];
const DOTTED = [1.5, 3];

const REPLICAS = {
  title: "Replicas", unit: "and load in their worth", whole: true, tall: true, format: number,
  lines: [
    { column: "replicas_ready", label: "ready", tone: "--ready", step: true, area: true, format: count },
    { column: "replicas_starting", label: "starting", tone: "--starting", step: true, dash: DOTTED, format: count },
    { column: "replicas_wanted", label: "wanted", tone: "--wanted", step: true, dash: DASHED, format: count },
    { column: "load", label: "load", tone: "--load" },
    { column: "replicas_desired", label: "desired", tone: "--desired", step: true, width: 2.2, format: count },
  ],
};
const FORECAST = {
  title: "Forecast", unit: "for each time, against the load that came", format: number,
  bands: [{ low: "expected", high: "upper", label: "mean to upper", tone: "--forecast" }],
  lines: [
    { column: "upper", label: "upper", tone: "--forecast", dash: DOTTED },
    { column: "load", label: "load", tone: "--load" },
  ],
};
const TTFT = {
  title: "TTFT p95", unit: "seconds", least: 0.05, limits_max: 5, format: number,
  lines: [{ column: "ttft_p95_s", label: "p95", tone: "--ttft", format: seconds }],
};
const ATTAINED = {
  title: "Within the objective", unit: "of the requests of the last five minutes, by arrival", max: 1, misses_max: 10, format: nines,
  lines: [{ column: "attained_ratio", label: "within", tone: "--good" }],
};
const QUEUE = {
  title: "Queue", unit: "requests waiting", whole: true, format: number,
  lines: [{ column: "waiting", label: "waiting", tone: "--waiting", area: true, format: count }],
};
const RUNNING = {
  title: "Requests", unit: "running", whole: true, format: number,
  lines: [{ column: "running", label: "running", tone: "--running", format: count }],
};
const ARRIVALS = {
  title: "Arrivals", unit: "requests per second", format: number,
  lines: [{ column: "arrivals_per_s", label: "arriving", tone: "--wanted" }],
};
/** Tone and dash of each signal's line. */
const SIGNALS = {
  work: ["--desired", []], forecast: ["--forecast", []], queue: ["--waiting", []], kv_cache: ["--kv", []],
  ttft: ["--ttft", []], itl: ["--starting", DASHED], gpu: ["--gpu", DASHED],
};
const PROPOSALS = {
  title: "Proposals", unit: "of each signal alone", whole: true, tall: true, format: count,
  lines: Object.entries(SIGNALS).map(([signal, [colour, dash]]) => (
    { column: `asks_${signal}`, label: words(signal), tone: colour, dash, step: true })),
};
const USE = {
  title: "Use", unit: "mean over replicas", max: 1, format: percent,
  lines: [
    { column: "kv_cache_ratio", label: "KV cache", tone: "--kv" },
    { column: "gpu_util_ratio", label: "GPU", tone: "--gpu", dash: DASHED },
  ],
};
/** What the account of one time shows beside the arithmetic. */
const SEEN = [REPLICAS, QUEUE, RUNNING, ARRIVALS, TTFT, ATTAINED, USE].flatMap((panel) => panel.lines.map((line) => ({ format: panel.format, ...line })));
const OVERVIEW = [
  { column: "replicas_ready", tone: "--ready", step: true, area: true, width: 1 },
  { column: "load", tone: "--load", width: 1 },
];

function prepared(told) {
  const { timeline } = told;
  const columns = Object.fromEntries(Object.entries(timeline.columns).map(([name, column]) => [name, numbers(column)]));
  const at_s = numbers(timeline.at_s);
  const lead_s = columns.forecast_lead_s;
  columns.expected = forTime(at_s, lead_s, columns.forecast_load_mean);
  columns.upper = forTime(at_s, lead_s, columns.forecast_load_upper);
  if (told.records) Object.assign(columns, proposals(told.records, at_s, told.tick_s * Math.max(timeline.every, told.records.every)));
  return {
    ...told, at_s, columns, stages: timeline.stages, stage: Uint16Array.from(timeline.stage),
    tick_s: told.tick_s * timeline.every,
  };
}

/** What each signal asked for, by row: as in the nearest decision that was kept. */
function proposals({ at_s: told_s, proposals: asked }, at_s, step_s) {
  const places = at_s.map((at) => {
    const place = told_s.length ? nearest(told_s, at) : -1;
    return place >= 0 && Math.abs(told_s[place] - at) <= step_s ? place : -1;
  });
  return Object.fromEntries(Object.keys(SIGNALS).map((signal) =>
    [`asks_${signal}`, places.map((place) => (place < 0 ? NaN : asked[signal][place] ?? NaN))]));
}

function show(data) {
  const { verdict, summary } = data;
  const ours = known(data.columns.load);
  const explained = data.records?.at_s.length ? [{ ...PROPOSALS, lines: PROPOSALS.lines.filter(({ column }) => known(data.columns[column])) }] : [];
  const judged = data.columns.attained_ratio && known(data.columns.attained_ratio);
  const panels = [REPLICAS, ...(judged ? [ATTAINED] : []), TTFT, QUEUE, ...(ours ? [FORECAST] : []), USE, RUNNING, ARRIVALS, ...explained];
  const why = new Why(data, SEEN);
  const charts = new Charts(panels, { overview: OVERVIEW, time: ELAPSED, pinned: (place) => why.show(place) });
  charts.update({
    ...data, limits: limits(data), events: events(data),
  });
  const badge = verdict.kept === null ? null : verdict.kept ? ["good", "objective kept"] : ["bad", "objective missed"];
  const times = make("div", { cls: "over", kids: [make("h2", { text: "What happened" }), charts.tools, charts.when] });
  const hint = make("p", {
    cls: "hint quiet",
    text: "Drag to zoom, shift and drag to move, double click for everything, ctrl and wheel to zoom. Click a time for the decision made then.",
  });
  const left = make("div", { cls: "history", kids: [times, charts.element, hint] });
  frame({
    kind: "simulation", title: `${summary.policy} on ${summary.trace}`, badge, lead: verdict.lead, sentences: verdict.sentences,
    parts: [
      tiles(boxes(data)),
      section("GPU-hours", [bars(verdict.bars, "GPU-hours")]),
      make("section", { cls: "split part", kids: [left, why.element] }),
      ...[worstMoments(data, charts), changesTable(data, charts)].filter(Boolean),
      summaryTable(data),
    ],
  });
  charts.pin(why.worst);
}

function known(column) {
  return column.some((value) => !Number.isNaN(value));
}

function boxes({ summary, objectives }) {
  const { ttft_s: ttft, tpot_s: tpot, replicas } = summary;
  return [
    ["Within the objective", nines(summary.slo_attainment_ratio), `${nines(objectives.attainment_ratio)} asked for`],
    ["GPU-hours", grouped(summary.gpu_hours), `${grouped(summary.replica_hours)} replica-hours`],
    ["Replicas, mean", number(replicas.mean), `${replicas.min} to ${replicas.max}`],
    ["TTFT p95", seconds(ttft.p95), `p50 ${seconds(ttft.p50)}, p99 ${seconds(ttft.p99)}`],
    ["Time per token p95", seconds(tpot.p95), `p50 ${seconds(tpot.p50)}, p99 ${seconds(tpot.p99)}`],
    ["Replica changes", grouped(summary.replica_changes), `${summary.reversals} reversals`],
    ["Requests", summary.requests.toLocaleString("en-US"), lost(summary)],
  ];
}

function lost({ rejected, cut_by_scale_down: cut }) {
  return rejected + cut ? `${rejected} rejected, ${cut} cut off` : "none rejected or cut off";
}

function seconds(value) {
  return value === null ? ABSENT : `${number(value)} s`;
}

function limits({ objectives: { ttft_s: slo_s, attainment_ratio: asked }, replicas_max: most, summary }) {
  const near = summary.replicas.max >= most;
  return {
    "TTFT p95": [[slo_s, `SLO ${number(slo_s)} s`]], Replicas: near ? [[most, `maximum ${most}`]] : [],
    [ATTAINED.title]: [[asked, `asked for ${nines(asked)}`]],
  };
}

/** Changes of the count, and spans in which something was wrong. */
function events({ changes, faults }) {
  const moved = changes.map(([at_s, before, after]) => ({
    at_s, kind: after > before ? "up" : "down", label: `replicas ${before} to ${after}`,
  }));
  return [...faults, ...moved];
}

show(prepared(await payload()));

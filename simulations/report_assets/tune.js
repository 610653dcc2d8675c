// The report of a search: the front where it was searched and where it was not, and what to apply.

import { ABSENT, make, nines, number, percent } from "./dom.js";
import { Scatter } from "./scatter.js";
import { bars, frame, grouped, payload, section, tiles } from "./frame.js";
import { Parallel } from "./parallel.js";
import { Table } from "./table.js";

/** Mean GPUs, so that parts of different length lie on one axis. */
function points(data, part, hours) {
  return (trial) => ({
    x: trial[part].gpu_hours / hours, y: trial[part].slo_attainment_ratio, label: `trial ${trial.number}`, trial,
  });
}

function pareto(data, chosen) {
  const trained = points(data, "train", data.train_hours);
  const unseen = points(data, "held_out", data.held_out_hours);
  const tried = data.trials.filter((trial) => trial.held_out);
  const front = data.trials.filter((trial) => trial.on_front).map(trained).sort((a, b) => a.x - b.x);
  const pair = (trial) => [trained(trial), unseen(trial)];
  const best = data.recommended && data.trials.find((trial) => trial.number === data.recommended.trial);
  const pairs = tried.filter((trial) => trial.on_front).map((trial) => ({
    name: `trial ${trial.number}`, tone: "--quiet", dash: [1.5, 3], points: [], path: pair(trial),
  }));
  const series = [
    ...pairs,
    { name: "searched", tone: "--wanted", small: true, points: data.trials.map(trained) },
    { name: "front, as searched", tone: "--desired", named: true, points: front, path: front },
    { name: "held out", tone: "--load", mark: "ring", points: tried.map(unseen) },
    ...(data.defaults.held_out ? [{ name: "shipped settings, held out", tone: "--ready", mark: "diamond", named: true, strong: true, points: [unseen(data.defaults)] }] : []),
    ...(best?.held_out ? [{ name: "recommended, held out", tone: "--ttft", mark: "diamond", named: true, strong: true, points: [unseen(best)] }] : []),
  ];
  const chart = new Scatter({
    x: { label: "GPUs in the mean", unit: "GPUs", format: number },
    y: { label: "requests within the objective", unit: "within the objective", format: nines, nines: true },
    label: "Attainment against GPUs, searched and held out", chosen: (point) => chosen(point.trial),
  });
  const rules = [{ axis: "y", value: data.attainment_target_ratio, label: `asked for ${nines(data.attainment_target_ratio)}`, tone: "--limit" }];
  chart.update({ series, rules });
  return chart;
}

function trials(data) {
  const rows = data.trials.map((trial) => ({
    number: trial.number, front: trial.on_front ? "front" : "", trained: trial.train.slo_attainment_ratio,
    gpus: trial.train.gpu_hours / data.train_hours, unseen: trial.held_out?.slo_attainment_ratio ?? null,
    gpus_unseen: trial.held_out ? trial.held_out.gpu_hours / data.held_out_hours : null,
    loss: trial.held_out ? 100 * (trial.held_out.slo_attainment_ratio - trial.train.slo_attainment_ratio) : null,
    ...trial.settings, cls: trial.number === data.recommended?.trial ? "ours" : "", data: { trial: trial.number },
  }));
  const one = (name, label, hint, format) => ({ name, label, hint, num: true, format });
  return new Table({
    label: "Trials", rows, sort: "gpus", limit: 40,
    columns: [
      { name: "number", label: "Trial", num: true }, { name: "front", label: "" },
      one("trained", "Searched", "Attainment on the part that was searched", nines), one("gpus", "GPUs", "in the mean", number),
      one("unseen", "Held out", "Attainment on the part that was not", nines), one("gpus_unseen", "GPUs", "in the mean", number),
      one("loss", "Difference", "Points of attainment, held out less searched", (value) => `${value > 0 ? "+" : "−"}${number(Math.abs(value))}`),
      ...data.settings.map(({ name, why }) => one(name, name, why, number)),
    ],
  });
}

function settings(data) {
  const best = data.recommended && data.trials.find((trial) => trial.number === data.recommended.trial);
  const rows = data.settings.map((setting) => ({ ...setting, chosen: best ? best.settings[setting.name] : null }));
  return new Table({
    label: "Settings", rows, sort: "-importance_ratio", limit: 12,
    columns: [
      { name: "name", label: "Setting" },
      { name: "importance_ratio", label: "Importance", hint: "Share of what moved the result", num: true, format: percent },
      { name: "default", label: "Shipped", num: true, format: number }, { name: "chosen", label: "Recommended", num: true, format: number },
      { name: "low", label: "From", num: true, format: number }, { name: "high", label: "To", num: true, format: number },
      { name: "why", label: "Why it is there", wrap: true },
    ],
  });
}

/** Trials as lines: those that reach the attainment in blue, the recommended one strong. */
function parallel(data) {
  const lines = data.trials.map((trial) => {
    const reached = trial.train.slo_attainment_ratio >= data.attainment_target_ratio;
    const best = trial.number === data.recommended?.trial;
    return { values: trial.settings, tone: best ? "--ttft" : reached ? "--desired" : "--load", strong: best, alpha: best ? 1 : trial.on_front ? 0.7 : 0.13 };
  });
  lines.sort((a, b) => a.strong - b.strong || a.alpha - b.alpha);
  return new Parallel({ axes: telling(data), lines, label: "Settings of the trials" });
}

const AXES_MAX = 12; // more do not fit beside each other

/** The settings worth an axis: those that moved the result or were recommended anew, as searched. */
function telling({ settings: all, trials: tried, recommended }) {
  const best = recommended && tried.find((trial) => trial.number === recommended.trial);
  const weight = ({ name, default: shipped, importance_ratio: share }) => (share ?? 0) + (best && best.settings[name] !== shipped ? 0.001 : 0);
  const kept = new Set([...all].sort((a, b) => weight(b) - weight(a)).slice(0, AXES_MAX));
  return all.filter((setting) => kept.has(setting));
}

function patches(data) {
  return Object.entries(data.patches).map(([name, content]) => make("details", {
    attrs: { open: "" }, kids: [make("summary", { text: name }), make("pre", { text: content, attrs: { tabindex: "0" } })],
  }));
}

function boxes(data) {
  const best = data.recommended && data.trials.find((trial) => trial.number === data.recommended.trial);
  const unseen = best?.held_out;
  if (!best) return unchanged(data);
  const span = ({ low, high }, format) => `${format(low)} to ${format(high)}`;
  return [
    ["Recommended", best ? `trial ${best.number}` : ABSENT, `${nines(data.attainment_target_ratio)} asked for`],
    ["Held out", unseen ? nines(unseen.slo_attainment_ratio) : ABSENT, best ? span(data.recommended.slo_attainment_ratio, nines) : ""],
    ["GPU-hours, held out", unseen ? grouped(unseen.gpu_hours) : ABSENT, best ? span(data.recommended.gpu_hours, grouped) : ""],
    ["Searched", best ? nines(best.train.slo_attainment_ratio) : ABSENT, `${number(data.train_hours)} h of traffic, ${number(data.held_out_hours)} h held out`],
    ["Trials", String(data.trials.length), `${data.settings.length} settings, seed ${data.seed}`],
  ];
}

/** Nothing better was confirmed: what the shipped settings come to. */
function unchanged({ defaults: { train, held_out: unseen }, trials: tried, settings: searched, ...data }) {
  return [
    ["Recommended", "shipped settings", `${nines(data.attainment_target_ratio)} asked for`],
    ["Shipped, held out", unseen ? nines(unseen.slo_attainment_ratio) : ABSENT, `${number(data.held_out_hours)} h of traffic`],
    ["Shipped GPU-hours, held out", unseen ? grouped(unseen.gpu_hours) : ABSENT, `${unseen ? number(unseen.gpu_hours / data.held_out_hours) : ABSENT} GPUs in the mean`],
    ["Shipped, searched", nines(train.slo_attainment_ratio), `${number(data.train_hours)} h of traffic`],
    ["Trials", String(tried.length), `${searched.length} settings, seed ${data.seed}`],
  ];
}

function show(data) {
  const table = trials(data);
  const find = (trial) => {
    table.all();
    table.body.querySelector(`tr[data-trial="${trial.number}"]`).scrollIntoView({ block: "center" });
  };
  const lines = parallel(data);
  const more = data.settings.length > AXES_MAX ? ` The ${AXES_MAX} of ${data.settings.length} that moved the result most.` : "";
  const badge = data.kept === null ? null : data.kept ? ["good", "holds on unseen days"] : ["bad", "does not hold on unseen days"];
  const known = data.settings.filter((setting) => setting.importance_ratio !== null);
  known.sort((a, b) => b.importance_ratio - a.importance_ratio);
  const weights = known.filter(({ importance_ratio: share }) => share >= 0.0005).map(({ name, importance_ratio: share }) => [name, Math.round(share * 1000) / 10]);
  frame({
    kind: "tuning", title: `Tuned on ${data.traces.join(", ")}`, badge, lead: data.lead, sentences: data.sentences,
    parts: [
      tiles(boxes(data)),
      section("Attainment against GPUs", [pareto(data, find).element], "Grey: every trial where it was searched. Rings: the same settings on days held out; a dotted line joins the two. Drag a box to zoom."),
      ...(data.recommended && Object.keys(data.patches).length ? [section("To apply", patches(data))] : []),
      ...(weights.length ? [section("What mattered", [bars(weights.slice(0, 12), "%")], "share of what moved the result")] : []),
      section("Settings of the trials", [lines.element, lines.saves], `Blue: trials that reached the attainment; orange: that did not; purple: recommended. A bar marks the shipped value.${more}`),
      section("Settings", [settings(data).element]),
      section("Trials", [table.element]),
    ],
  });
}

show(await payload());

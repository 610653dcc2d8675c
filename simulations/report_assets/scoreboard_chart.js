// Attainment against GPU-hours on one trace: a curve for each policy, the front, what bounds it.

import { nines, number } from "./dom.js";
import { Scatter } from "./scatter.js";

const GROUP_TONES = { ours: "--desired", metric: "--load", profile: "--kv", bound: "--wanted" };
const FRONT = "Pareto front";

export function groupTone(group) {
  return GROUP_TONES[group] ?? "--wanted";
}

export function chart(chosen) {
  return new Scatter({
    x: { label: "GPU-hours", unit: "GPU-hours", format: (value) => number(value) },
    y: { label: "requests within the objective", unit: "within the objective", format: nines, nines: true },
    label: "Attainment against GPU-hours, a curve for each policy",
    chosen,
  });
}

/** The chart's content for the entries of one trace. */
export function content(entries) {
  const curves = entries.filter((entry) => entry.points?.length).map(curve);
  const runs = entries.filter((entry) => !entry.points?.length).map(run);
  const all = [...curves, ...runs];
  const causal = all.filter((one) => one.name !== "oracle").flatMap((one) => one.points);
  const front = { name: FRONT, tone: "--ink", dash: [2, 3], points: [], path: best(causal) };
  return { series: [front, ...all], rules: rules(entries), home: home(entries, causal) };
}

function curve(entry) {
  const points = entry.points.map(([knob, y, x]) => ({ x, y, label: `${entry.knob ?? "knob"} ${number(knob)}`, entry }));
  return {
    name: entry.policy, tone: groupTone(entry.group), path: best(points), strong: entry.policy === "predictive",
    named: true, small: true, points,
  };
}

function run(entry) {
  const shipped = entry.variant === "shipped";
  const point = { x: entry.gpu_hours, y: entry.slo_attainment_ratio, label: `${entry.variant}${behaviour(entry)}`, entry };
  const ours = entry.group === "ours";
  const mark = entry.group === "bound" || !shipped ? "ring" : "diamond";
  return {
    name: entry.policy, tone: groupTone(entry.group), points: [point], mark,
    strong: ours && shipped, named: entry.group === "bound" || !entry.curved,
  };
}

/** The HPA's behaviour where it is not the policy's own. */
export function behaviour({ behaviour: whose }) {
  return whose && whose !== "own" ? ", our behaviour" : "";
}

/** The points that no other beats, cheapest first. */
export function best(points) {
  const order = [...points].sort((a, b) => a.x - b.x || b.y - a.y);
  let top = -Infinity;
  return order.filter((point) => {
    const better = point.y > top;
    if (better) top = point.y;
    return better;
  });
}

const WORTH_TIMES = 2.2; // as dear as the cheapest that reaches the target, and a little cheaper
const WORTH_FROM = 0.9; // of the requests: below, a policy is out of the question

/** The part around the target: a policy that takes ten times as much would flatten all others. */
function home([first], points) {
  const able = points.filter((point) => point.y >= (first.attainment_target ?? 0.99) - 0.003);
  if (!able.length) return null;
  const cheapest = Math.min(...able.map((point) => point.x), first.oracle_gpu_hours ?? Infinity);
  const least = Math.min(cheapest, first.oracle_bound_gpu_hours ?? Infinity);
  const highest = Math.max(...points.map((point) => point.y), first.slo_attainable_ratio ?? 0);
  return [[0.85 * least, WORTH_TIMES * cheapest], [WORTH_FROM, highest]];
}

function rules(entries) {
  const [first] = entries;
  const known = [
    ["y", first.attainment_target, `target ${nines(first.attainment_target ?? 0)}`, "--limit"],
    ["y", first.slo_attainable_ratio, "attainable with unlimited warm replicas", "--ready", "left"],
    ["x", first.oracle_gpu_hours, `oracle ${number(first.oracle_gpu_hours)}`, "--ttft"],
    ["x", first.oracle_bound_gpu_hours, `lower bound ${number(first.oracle_bound_gpu_hours)}`, "--wanted"],
  ];
  return known.filter(([, value]) => Number.isFinite(value))
    .map(([axis, value, label, tone, align = "right"]) => ({ axis, value, label, tone, align }));
}

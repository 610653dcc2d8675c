// The tables of a simulation's report: its worst moments, every change of the count, its scenario.

import { count, duration, make, number, percent, words } from "./dom.js";
import { nearest, ELAPSED } from "./scales.js";
import { Table } from "./table.js";
import { section } from "./frame.js";

const AROUND_S = 1800; // shown on either side of a moment that is looked at

/** Stretches in which the percentile was above the objective. */
export function worstMoments(data, charts) {
  const rows = [...stretches(data)].map((one) => ({ ...one, lasted_s: one.until_s - one.at_s }));
  if (!rows.length) return null;
  const table = new Table({
    label: "Worst moments", rows, sort: "-ttft_s", limit: 12, chosen: (row) => charts.goTo(row.peak_at_s, AROUND_S),
    columns: [
      { name: "at_s", label: "From", format: ELAPSED.full },
      { name: "lasted_s", label: "For", num: true, format: duration },
      { name: "ttft_s", label: "TTFT p95, highest", num: true, format: (value) => `${number(value)} s` },
      { name: "waiting", label: "Waiting, most", num: true, format: count },
      { name: "ready", label: "Ready", num: true, format: count },
      { name: "desired", label: "Desired", num: true, format: count },
      { name: "stage", label: "Decided by", format: words },
    ],
  });
  const share = rows.reduce((sum, row) => sum + row.ticks, 0) / data.at_s.length;
  const note = `TTFT p95 above ${number(data.objectives.ttft_s)} s in ${percent(share)} of the time; a click shows the moment`;
  return section("Worst moments", [table.element], note);
}

function* stretches({ at_s: at, columns, objectives, stages, stage, tick_s: tick }) {
  const { ttft_p95_s: ttft, waiting, replicas_ready: ready, replicas_desired: desired } = columns;
  let open = null;
  for (let place = 0; place <= at.length; place += 1) {
    if (place < at.length && ttft[place] > objectives.ttft_s) {
      open ??= { at_s: at[place], until_s: at[place], ticks: 0, ttft_s: 0, waiting: 0 };
      open.ticks += 1;
      open.until_s = at[place] + tick;
      open.waiting = Math.max(open.waiting, waiting[place] || 0);
      if (ttft[place] > open.ttft_s) {
        Object.assign(open, {
          ttft_s: ttft[place], peak_at_s: at[place], ready: ready[place], desired: desired[place], stage: stages[stage[place]],
        });
      }
    } else if (open) {
      yield open;
      open = null;
    }
  }
}

/** Every change of spec.replicas, with the stage that had decided. */
export function changesTable(data, charts) {
  if (!data.changes.length) return null;
  const rows = data.changes.map(([at_s, before, after], place) => {
    const tick = nearest(data.at_s, at_s);
    return {
      at_s, before, after, by: after - before, stage: data.stages[data.stage[tick]],
      since_s: place ? at_s - data.changes[place - 1][0] : at_s,
      load: orNull(data.columns.load[tick]), ttft_s: orNull(data.columns.ttft_p95_s[tick]),
    };
  });
  const table = new Table({
    label: "Replica changes", rows, sort: "at_s", limit: 12, chosen: (row) => charts.goTo(row.at_s, AROUND_S),
    columns: [
      { name: "at_s", label: "At", format: ELAPSED.full },
      { name: "before", label: "From", num: true },
      { name: "after", label: "To", num: true },
      { name: "by", label: "Change", num: true, format: (value) => (value > 0 ? `+${value}` : `−${-value}`) },
      { name: "since_s", label: "After", hint: "Time since the change before", num: true, format: duration },
      { name: "stage", label: "Decided by", format: (value) => staged(value) },
      { name: "load", label: "Load", hint: "In replicas' worth", num: true, format: number },
      { name: "ttft_s", label: "TTFT p95", num: true, format: (value) => `${number(value)} s` },
    ],
  });
  return section("Replica changes", [table.element], `${rows.length} changes of spec.replicas; a click shows the moment`);
}

/** A stage with its colour. */
export function staged(name) {
  return make("span", { cls: "key", kids: [make("i", { cls: "swatch", attrs: { "data-stage": name } }), words(name)] });
}

/** Everything in summary.json, flat. */
export function summaryTable(data) {
  const rows = [...flat({ ...data.summary, objectives: data.objectives })].map(([name, value]) => ({ name, value }));
  const table = new Table({
    label: "Summary", rows,
    columns: [
      { name: "name", label: "Name" },
      { name: "value", label: "Value", num: true, format: (value) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value)) },
    ],
  });
  return make("details", { cls: "part", kids: [make("summary", { text: "All numbers of this run (summary.json)" }), table.element] });
}

function* flat(value, before = "") {
  for (const [name, item] of Object.entries(value)) {
    if (item !== null && typeof item === "object") yield* flat(item, `${before}${name}.`);
    else yield [before + name, item];
  }
}

function orNull(value) {
  return Number.isNaN(value) ? null : value;
}

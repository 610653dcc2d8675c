// Who needs least on one trace, for those who read no table: a bar for each policy's best variant.

import { make, nines, number } from "./dom.js";
import { grouped } from "./frame.js";
import { behaviour, groupTone } from "./scoreboard_chart.js";

const SHOWN = 10;

/** Policies that reach the target by GPU-hours, then the others by how near they came. */
export function ranking(entries, groups) {
  const best = new Map();
  for (const entry of entries) {
    const known = best.get(entry.policy);
    if (!known || better(entry, known)) best.set(entry.policy, entry);
  }
  const rows = [...best.values()].sort((a, b) => (better(a, b) ? -1 : 1));
  const cost = (entry) => entry.hours ?? entry.gpu_hours;
  const most = Math.max(...rows.slice(0, SHOWN).map(cost), 1e-9);
  const line = (entry) => {
    const bar = make("i");
    bar.style.width = `${Math.min((100 * cost(entry)) / most, 100)}%`;
    bar.style.setProperty("--tone", `var(${groupTone(entry.group)})`);
    const name = make("span", { attrs: { title: groups[entry.group] ?? entry.group }, kids: [make("b", { text: entry.policy }), ` ${entry.variant}${behaviour(entry)}`] });
    const reached = entry.hours !== null;
    return make("li", {
      cls: reached ? "" : "short",
      kids: [name, make("span", { cls: "track", kids: [bar] }), make("b", { text: `${grouped(cost(entry))} GPU-hours` }), make("span", { cls: "told", text: note(entry, rows[0], reached) })],
    });
  };
  const list = make("ol", { cls: "bars ranked", kids: rows.slice(0, SHOWN).map(line) });
  const more = rows.length > SHOWN ? [make("p", { cls: "quiet", text: `${rows.length - SHOWN} more in the table below` })] : [];
  return [list, ...more];
}

function note(entry, first, reached) {
  if (!reached) return `${nines(entry.slo_attainment_ratio)}: missed the target`;
  if (entry === first) return "the least";
  return `${number(entry.hours / first.hours)} times the least`;
}

/** Whether the first belongs above the second: the target first, then what it costs, or how near it is. */
function better(one, other) {
  if ((one.hours === null) !== (other.hours === null)) return one.hours !== null;
  if (one.hours !== null) return one.hours < other.hours;
  return one.slo_attainment_ratio > other.slo_attainment_ratio;
}

// Columns over time: where they break, what they come to per pixel, what a forecast was made for.

import { firstFrom } from "./scales.js";

const JOINED_MAX = 4; // ticks between two forecasts that are still one line

/**
 * Runs of places without a hole: values there, and no row later than the one before it reaches
 * (`reach_s`, the time up to which the next row still belongs to it).
 */
export function parts(at_s, values, reach_s, [from, to] = [0, at_s.length]) {
  const found = [];
  let begin = -1;
  for (let place = from; place < to; place += 1) {
    const there = !Number.isNaN(values[place]);
    const far = place > from && at_s[place] > reach_s[place - 1];
    if (begin >= 0 && (!there || far)) {
      found.push([begin, place]);
      begin = -1;
    }
    if (there && begin < 0) begin = place;
  }
  if (begin >= 0) found.push([begin, to]);
  return found;
}

/**
 * Points of a line in pixels: as they are, or first, lowest, highest and last of each pixel column
 * where there are more than a screen can show, so that no spike is lost and a day costs what an
 * hour costs.
 */
export function outline(at_s, values, [from, to], { x, y, step }) {
  const points = [];
  const dense = to - from > 3 * Math.max(x(at_s[to - 1]) - x(at_s[from]), 1);
  if (dense) return columnwise(at_s, values, [from, to], { x, y });
  for (let place = from; place < to; place += 1) {
    const across = x(at_s[place]);
    if (step && place > from) points.push(across, points.at(-1));
    points.push(across, y(values[place]));
  }
  return points;
}

function columnwise(at_s, values, [from, to], { x, y }) {
  const points = [];
  let place = from;
  while (place < to) {
    const column = Math.round(x(at_s[place]));
    const first = values[place];
    let low = first;
    let high = first;
    let last = first;
    for (; place < to && Math.round(x(at_s[place])) === column; place += 1) {
      last = values[place];
      if (last < low) low = last;
      if (last > high) high = last;
    }
    points.push(column, y(first));
    if (high > low) points.push(column, y(low), column, y(high), column, y(last));
  }
  return points;
}

/**
 * What was forecast for each time: a value made at `at_s` speaks of `at_s + lead_s`.  Leads change
 * as starts are measured, so that two values may speak of one time: the later made one counts.
 */
export function forTime(at_s, lead_s, values) {
  const found = new Float64Array(at_s.length).fill(NaN);
  let next = -1; // the place after the one spoken of last
  for (let made = 0; made < at_s.length; made += 1) {
    if (Number.isNaN(values[made]) || Number.isNaN(lead_s[made])) continue;
    const place = firstFrom(at_s, at_s[made] + lead_s[made]);
    if (place >= at_s.length) break;
    const joined = next >= 0 && place >= next && place - next <= JOINED_MAX;
    found.fill(values[made], joined ? next : place, place + 1);
    next = place + 1;
  }
  return found;
}

/** Runs of equal places in a row, as `{ value, begin_s, end_s }`; a row lasts `step_s`. */
export function runs(at_s, values, { reach_s: reach, step_s: step, range: [from, to] }) {
  const found = [];
  let open = null;
  for (let place = from; place < to; place += 1) {
    const broken = place > from && at_s[place] > reach[place - 1];
    if (open && !broken) open.end_s = at_s[place];
    if (!open || broken || open.value !== values[place]) {
      open = { value: values[place], begin_s: at_s[place], end_s: at_s[place] };
      found.push(open);
    }
    open.end_s = at_s[place] + step[place];
  }
  return found;
}

/** The greatest of some columns between two places; `least` where they have nothing above it. */
export function highest(columns, [from, to], least) {
  let top = least;
  for (const values of columns) {
    for (let place = from; place < to; place += 1) if (values[place] > top) top = values[place];
  }
  return top;
}

/** Changes of a count: time, before, after. */
export function changes(at_s, counts) {
  const found = [];
  let before = NaN;
  for (let place = 0; place < at_s.length; place += 1) {
    const now = counts[place];
    if (Number.isNaN(now)) continue;
    if (!Number.isNaN(before) && now !== before) found.push([at_s[place], before, now]);
    before = now;
  }
  return found;
}

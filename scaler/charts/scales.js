// Axes: round ticks, the nearest place, and how times are written.

import { clock } from "./dom.js";

const TIME_STEPS_S = [
  1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800,
];

/** A linear scale from values to pixels. */
export function linear({ low, high, from, to }) {
  const per = (to - from) / (high - low || 1);
  return Object.assign((value) => from + (value - low) * per, {
    low, high, from, to, invert: (pixel) => low + (pixel - from) / per,
  });
}

/** Round times within a scale, some `apart` pixels apart, counted from `zero_s`. */
export function timeTicks(scale, { zero_s: zero = 0, apart = 90 } = {}) {
  const wanted_s = ((scale.high - scale.low) * apart) / Math.max(scale.to - scale.from, 1);
  const step_s = TIME_STEPS_S.find((step) => step >= wanted_s) ?? TIME_STEPS_S.at(-1);
  const at = [];
  for (let time = Math.ceil((scale.low - zero) / step_s) * step_s + zero; time <= scale.high; time += step_s) {
    at.push(time);
  }
  return { at, step_s };
}

/** Times of day where the reader is. */
export const WALL = {
  zero: (near_s) => new Date(near_s * 1000).getTimezoneOffset() * 60,
  tick: (at_s, step_s) => clock(at_s, { short: step_s >= 60 }),
  full: (at_s) => clock(at_s),
};

const DAY = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short" });

/** Days and times of day where the reader is. */
export const DAYS = {
  ...WALL,
  tick: (at_s, step_s) => {
    const time = clock(at_s, { short: step_s >= 60 });
    return step_s >= 86400 || time === "00:00" ? DAY.format(new Date(at_s * 1000)) : time;
  },
  full: (at_s) => `${DAY.format(new Date(at_s * 1000))}, ${clock(at_s)}`,
};

/** Times since the beginning of a trace: `day 2, 03:12:15`. */
export const ELAPSED = {
  zero: () => 0,
  tick: (at_s, step_s) => {
    const { day, time } = elapsed(at_s);
    if (step_s >= 86400) return `day ${day}`;
    const short = step_s >= 60 ? time.slice(0, 5) : time;
    return short === "00:00" ? `day ${day}` : short;
  },
  full: (at_s) => {
    const { day, time } = elapsed(at_s);
    return `day ${day}, ${time}`;
  },
};

function elapsed(at_s) {
  const whole = Math.max(0, Math.round(at_s));
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  const time = `${two((whole % 86400) / 3600)}:${two((whole % 3600) / 60)}:${two(whole % 60)}`;
  return { day: Math.floor(whole / 86400) + 1, time };
}

/** The next round number; on whole axes one whose middle is whole too. */
export function niceTop(value, whole) {
  const power = 10 ** Math.floor(Math.log10(value));
  const tops = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((step) => step * power);
  const fits = (top) => top >= value * (1 - 1e-9) && (!whole || top === 1 || top % 2 === 0);
  return tops.find(fits) ?? value;
}

/** Round values between two limits. */
export function niceTicks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((part) => part * power).find((part) => part >= raw * 0.999);
  const ticks = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) {
    ticks.push(Number((place * step).toPrecision(12)));
  }
  return ticks;
}

/** The first place whose time is not before `time_s`; times ascend. */
export function firstFrom(at_s, time_s) {
  let low = 0;
  let high = at_s.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (at_s[middle] < time_s) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The place of the time nearest to `time_s`; times ascend and there is one. */
export function nearest(at_s, time_s) {
  const after = Math.min(firstFrom(at_s, time_s), at_s.length - 1);
  return after > 0 && time_s - at_s[after - 1] < at_s[after] - time_s ? after - 1 : after;
}

// The horizontal axis of a curve: steps, epochs, time since the start of the run, or the time of day. No axis ever goes back.

import { clock, date, duration, number } from "../base/format.js";

/** Every axis, in the order in which a person chooses. */
export const AXES = { step: "Step", epoch: "Epoch", relative: "Relative time", wall: "Wall time" };

/** More values of one metric an epoch than this: epochs are too coarse an axis. */
const MANY_PER_EPOCH = 1.5;
const HOUR = 3600;
const DAY = 24 * HOUR;

/**
 * A count that goes on where it begins anew: cascade phases and resumed runs. Rows without a count stay where the curve was.
 * `seed` is where the curve was in front of it: `{x, raw, offset}`.
 */
export function continued(raw, seed = null) {
  const first = raw.find((value) => value !== null && value !== undefined) ?? 0;
  let [front, last, offset] = seed ? [seed.x, seed.raw, seed.offset] : [null, null, 0];
  const x = new Array(raw.length);
  const offsets = new Array(raw.length);
  const lasts = new Array(raw.length);
  for (let at = 0; at < raw.length; at += 1) {
    const value = raw[at] ?? null;
    if (value !== null) {
      if (last !== null && value < last) offset = Math.floor(front) + 1 - value;
      last = value;
    }
    const place = value === null ? front ?? first : value + offset;
    front = front === null ? place : Math.max(front, place);
    x[at] = front;
    offsets[at] = offset;
    lasts[at] = last;
  }
  return { x, offsets, lasts };
}

/** Where stretches of one value begin. */
function stretches(x) {
  const starts = [];
  for (let at = 0; at < x.length; at += 1) if (at === 0 || x[at] !== x[at - 1]) starts.push(at);
  return starts;
}

/**
 * Places within each epoch for the rows that share it. `progress` never goes back: steps, or numbers of rows. `repeats(from, to)`
 * says whether rows of one epoch tell of one metric more than once; rows that tell of different metrics stay at the epoch.
 */
export function spread(epochs, progress, repeats) {
  const x = epochs.slice();
  const starts = stretches(epochs);
  let width = 0;
  starts.forEach((from, n) => {
    const next = starts[n + 1];
    const to = next ?? epochs.length;
    const known = next === undefined ? null : progress[next] - progress[from];
    // How long the newest epoch will be, nobody knows: as long as the one before, or longer when it is that already.
    const gap = to - from > 1 ? (progress[to - 1] - progress[from]) / (to - from - 1) : 1;
    width = known ?? Math.max(width, progress[to - 1] - progress[from] + gap);
    if (to - from < 2 || !(width > 0) || !repeats(from, to)) return;
    // An epoch may be the next count but one: its rows lie within one epoch nevertheless.
    for (let at = from; at < to; at += 1) x[at] = epochs[from] + Math.min((progress[at] - progress[from]) / width, 0.999999);
  });
  return x;
}

/** What one column says where the other has a value; beyond its ends, what it says there. */
export function between(from, to, value) {
  const last = from.length - 1;
  if (last < 0) return value;
  if (value <= from[0]) return to[0];
  if (value >= from[last]) return to[last];
  const low = pair(from, value);
  const part = (value - from[low]) / (from[low + 1] - from[low] || 1);
  return to[low] + part * (to[low + 1] - to[low]);
}

/** The place in a sorted column behind which a value is, so that there is one more. */
export function pair(column, value) {
  let [low, high] = [0, column.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (column[middle] <= value) low = middle;
    else high = middle;
  }
  return low;
}

/**
 * The axes that a curve has, and the one to show unless somebody chooses. `facts`: `{rows, withEpoch, withStep, values, epochs}`:
 * numbers of points, and of those with an epoch and with a step; the values of the metric that has most; how many epochs they span.
 */
export function choose({ rows, withEpoch, withStep, values, epochs }) {
  const kinds = Object.keys(AXES).filter((kind) => (kind === "step" ? withStep > 0 : kind === "epoch" ? withEpoch > 0 : true));
  const most = (count) => count > 0 && 2 * count >= rows;
  if (most(withEpoch) && !(withStep > 0 && values > MANY_PER_EPOCH * epochs)) return { kinds, best: "epoch" };
  if (most(withStep)) return { kinds, best: "step" };
  if (rows === 0 || !(withEpoch || withStep)) return { kinds, best: "relative" };
  return { kinds, best: withStep >= withEpoch ? "step" : "epoch" };
}

/** A place on the axis, for the legend. `isSpread`: where a row is within its epoch is no number of the trainer's. */
export function place(kind, value, isSpread = false) {
  if (value === null || value === undefined) return "–";
  if (isSpread && kind === "epoch") return place(kind, Math.floor(value));
  if (kind === "wall") return `${date(value * 1000)}, ${clock(value * 1000)}`.replace(/, (\d\d:\d\d), /, ", ");
  if (kind === "relative") return duration(value);
  return kind === "epoch" && !Number.isInteger(value) ? value.toFixed(3) : Number(value.toPrecision(9)).toLocaleString("en");
}

/** Distances of the marks of a length of time, in seconds. */
const TIME_MARKS = [0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 30 * DAY, 365 * DAY];

/** How uPlot marks the axis; `isSpread` as for [place]. */
export function marks(kind, isSpread = false) {
  if (kind === "wall") return {};
  if (kind === "relative") return { incrs: TIME_MARKS, values: (u, values) => values.map(shortDuration) };
  return { values: (u, values) => values.map((value) => (isSpread && !Number.isInteger(value) ? "" : count(value))) };
}

const count = (value) => (Math.abs(value) >= 1e6 ? `${number(value / 1e6, 6)}M` : Math.abs(value) >= 1e4 ? `${number(value / 1e3, 6)}k` : String(Number(value.toFixed(6))));

function shortDuration(seconds) {
  if (seconds === 0) return "0";
  if (seconds < 60) return `${Number(seconds.toFixed(3))} s`;
  if (seconds < HOUR) return seconds % 60 ? `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, "0")}` : `${seconds / 60} min`;
  if (seconds < DAY) return seconds % HOUR ? `${Math.floor(seconds / HOUR)}:${String(Math.floor(seconds / 60) % 60).padStart(2, "0")} h` : `${seconds / HOUR} h`;
  return `${Number((seconds / DAY).toFixed(2))} d`;
}

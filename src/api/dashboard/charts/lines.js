// What of a metric is drawn: the curve or its smoothed form, the raw curve behind it, the extremes of reduced points.

import { smooth } from "./smoothing.js";

/** A logarithm has no place for zero and below. */
const positive = (values) => values.map((value) => (value > 0 ? value : null));

/**
 * The columns of one metric: `{main, raw, low, high, below, few}`. `raw` is null without smoothing; `low` and `high` are null unless
 * the points are reduced. `below` counts the values that a logarithmic scale leaves out; `few`: so few values that no line shows them.
 */
export function columnsOf({ x, values, low, high }, { weight = 0, log = false } = {}) {
  // The average is of all values; only what is drawn leaves some out.
  const main = weight > 0 ? smooth(x, values, weight) : values;
  const cut = log ? positive : (column) => column;
  const below = log ? values.filter((value) => value !== null && value <= 0).length : 0;
  return {
    main: cut(main),
    raw: weight > 0 ? cut(values) : null,
    low: low && cut(low),
    high: high && cut(high),
    below,
    few: values.filter((value) => value !== null).length < 3,
  };
}

const BY_SPLIT = { train: "--train", "": "--c3", val: "--val", eval: "--c6", test: "--c5" };
const REST = ["--train", "--val", "--c3", "--c5", "--c6", "--c4", "--c7", "--c8"];

/** A colour for each line of a chart: that of its part of the data, unless it is taken; a metric alone has the first. */
export function coloursOf(splits) {
  if (splits.length === 1) return [splits[0] === "val" ? "--val" : "--train"];
  const taken = new Set();
  return splits.map((split) => {
    const mine = BY_SPLIT[split];
    const colour = mine && !taken.has(mine) ? mine : REST.find((one) => !taken.has(one)) ?? REST[0];
    taken.add(colour);
    return colour;
  });
}

/** Decades of a logarithmic axis beyond which not each of them is marked. */
const DECADES = 6;

/** The marks of a logarithmic axis between two positive numbers: decades, and within few decades also numbers between. */
export function logMarks(low, high) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const decades = Math.log10(high / low);
  const digits = decades > 3 ? [1] : decades > 1.2 ? [1, 3] : [1, 2, 3, 5, 7];
  const step = Math.ceil((last - first) / DECADES);
  const marks = [];
  for (let power = first; power <= last; power += step) {
    for (const digit of digits) marks.push(Number(`${digit}e${power}`));
  }
  const shown = marks.filter((value) => value >= low && value <= high);
  return shown.length > 1 ? shown : evenMarks(low, high);
}

/** Round numbers at even distances, for a part of a decade. */
function evenMarks(low, high) {
  const unit = 10 ** Math.floor(Math.log10(high - low));
  const step = [0.2, 0.5, 1, 2].map((of) => of * unit).find((size) => (high - low) / size <= 6) ?? 5 * unit;
  const marks = [];
  for (let n = Math.ceil(low / step); n * step <= high; n += 1) marks.push(Number((n * step).toPrecision(12)));
  return marks;
}

/** The bounds of a logarithmic axis for values between these: a little wider; without a positive value any. */
export function logRange(low, high) {
  if (!(low > 0)) return [0.1, 1];
  const margin = Math.max((high / low) ** 0.05, 1.02);
  return [low / margin, high * margin];
}

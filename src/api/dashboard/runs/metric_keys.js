// Columns of the metrics that runs log: how an address names them, and how their values are written.

import { count, number, percent } from "../base/format.js";

/** What of a metric a column shows, by the first word of its key. */
const WHAT = { metric: "last", min: "min", max: "max" };
const PREFIX = { last: "metric", min: "min", max: "max" };
const TITLES = { last: "Last value", min: "Lowest value", max: "Highest value" };

/** `metric.reward/mean` is the last value of `reward/mean`; `min.` and `max.` are its lowest and highest. `{what, label}`, or null. */
export function metricOf(key) {
  const found = /^(metric|min|max)\.(.+)$/s.exec(key);
  return found ? { what: WHAT[found[1]], label: found[2] } : null;
}

/** The key of a column that shows `what` of the metric with this label. */
export const metricKey = (what, label) => `${PREFIX[what]}.${label}`;

/** The name of the column. */
export const headOf = ({ what, label }) => (what === "last" ? label : `${label} ${what}`);

/** What the column shows, in words. */
export const titleOf = ({ what, label }) => `${TITLES[what]} of ${label}`;

const writeOf = (label) => (/^(train|val)_accuracy$/.test(label) ? percent : label === "hidden_units" ? count : number);

/** A value as text; null is none, and one that is not finite is its name. */
export function written(label, value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : writeOf(label)(value);
}

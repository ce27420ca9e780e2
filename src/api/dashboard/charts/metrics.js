// From the names of a run's metrics to its charts: what is drawn together, in which group, in which order.

/** Columns of metrics rows that have a chart. Every other metric is a number in `extra`. */
export const COLUMNS = ["train_loss", "val_loss", "train_accuracy", "val_accuracy", "learning_rate", "hidden_units"];
const OTHER_COLUMNS = ["epoch", "step", "phase", "seq", "run_id", "timestamp", "event_id", "extra", "rest_json", "non_finite"];
const PREFIX = "extra.";
/** Members that every point of a curve has beside its columns. A metric with such a name has the prefix there. */
const POINT_MEMBERS = ["from", "rows", "spread"];

/** What counts along an axis, by every name that it goes by: it has no chart. */
const AXES = ["epoch", "current_epoch", "step", "global_step", "iteration", "seq", "sequence", "seq_no", "_step", "_runtime", "_timestamp"];

const SPLITS = { train: "train", training: "train", val: "val", valid: "val", validation: "val", eval: "eval", test: "test" };
const WORDS = Object.keys(SPLITS).sort((a, b) => b.length - a.length).join("|");
const BEFORE = new RegExp(`^(${WORDS})[_/.](.+)$`, "i");
const AFTER = new RegExp(`^(.+)[_/.](${WORDS})$`, "i");
const ORDER = ["train", "", "val", "eval", "test"];

/** Ends of the words in the name of a metric of which more, or less, is better; as the daemon has them. */
const MORE_IS_BETTER = ["acc", "accuracy", "auc", "auroc", "f1", "precision", "r2", "recall", "score"];
const LESS_IS_BETTER = ["err", "error", "loss", "mae", "mse", "perplexity", "ppl"];

function isTaken(name) {
  let rest = name;
  while (rest.startsWith(PREFIX)) rest = rest.slice(PREFIX.length);
  return COLUMNS.includes(rest) || OTHER_COLUMNS.includes(rest);
}

/** How requests and answers name the number `name` of `extra`: not like a column. */
export const labelOf = (name) => (isTaken(name) ? PREFIX + name : name);

/** The name in `extra` of the metric with this label; null: it is a column. */
export function extraName(label) {
  if (COLUMNS.includes(label) || OTHER_COLUMNS.includes(label)) return null;
  const name = label.startsWith(PREFIX) ? label.slice(PREFIX.length) : null;
  return name !== null && isTaken(name) ? name : label;
}

/** The member of a point of a curve that has this metric. */
export const memberOf = (label) => (POINT_MEMBERS.includes(label) ? PREFIX + label : label);

/** Which part of the data a metric is of, and its name without that: `val_loss` is the loss of `val`. */
export function splitOf(label) {
  const before = BEFORE.exec(label);
  if (before) return { base: before[2], split: SPLITS[before[1].toLowerCase()] };
  const after = AFTER.exec(label);
  return after ? { base: after[1], split: SPLITS[after[2].toLowerCase()] } : { base: label, split: "" };
}

/** Whether it counts along an axis, and has no chart. */
export function isAxis(label) {
  const name = (extraName(label) ?? label).toLowerCase();
  return AXES.includes(name) || AXES.includes(name.split("/").pop()) || AXES.includes(splitOf(name).base);
}

/** "min" or "max", which of the values is the best, when the name says it; else null. */
export function better(label) {
  for (const word of label.toLowerCase().split(/[^\p{L}\p{N}]+/u)) {
    const stem = word.replace(/\d+$/, "");
    const is = (ends) => ends.some((end) => word.endsWith(end) || stem.endsWith(end));
    if (is(MORE_IS_BETTER)) return "max";
    if (is(LESS_IS_BETTER)) return "min";
  }
  return null;
}

/** The group of a chart: what is before the first `/`, else before the first point of several names. */
function groupOf(base, dotted) {
  if (base.includes("/")) return base.slice(0, base.indexOf("/"));
  const prefix = base.includes(".") ? base.slice(0, base.indexOf(".")) : "";
  return prefix && dotted.get(prefix) > 1 ? prefix : "";
}

const natural = new Intl.Collator("en", { numeric: true, sensitivity: "base" }).compare;

/** Losses first, then accuracies, then the rest; what no name says last. */
function rank(base) {
  const word = base.toLowerCase();
  if (word === "loss") return 0;
  if (word === "accuracy") return 1;
  if (word.endsWith("loss")) return 2;
  return better(base) === "max" && /acc/.test(word) ? 3 : 4;
}

/**
 * The charts of these metrics, in order: `{id, title, group, fields}`. The training, validation and test values of one metric are
 * on one chart; `fields` are its labels, and `splits` which part of the data each is of.
 */
export function chartsOf(labels) {
  const byBase = new Map();
  for (const label of new Set(labels)) {
    if (isAxis(label)) continue;
    const { base, split } = splitOf(label);
    if (!byBase.has(base)) byBase.set(base, []);
    byBase.get(base).push({ label, split });
  }
  const dotted = new Map();
  for (const base of byBase.keys()) {
    if (base.includes("/") || !base.includes(".")) continue;
    const prefix = base.slice(0, base.indexOf("."));
    dotted.set(prefix, (dotted.get(prefix) || 0) + 1);
  }
  const charts = [...byBase].map(([base, fields]) => {
    fields.sort((a, b) => ORDER.indexOf(a.split) - ORDER.indexOf(b.split) || natural(a.label, b.label));
    const title = fields.length > 1 ? base : fields[0].label;
    return { id: base, title, group: groupOf(base, dotted), fields: fields.map(({ label }) => label), splits: fields.map(({ split }) => split) };
  });
  return charts.sort((a, b) => natural(a.group, b.group) || rank(a.id) - rank(b.id) || natural(a.id, b.id));
}

/** Whether each of the words is in the name of the chart or of one of its metrics. */
export function matches(chart, find) {
  const text = [chart.title, chart.group, ...chart.fields].join(" ").toLowerCase();
  return find.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

/** The charts to show, as sections `{name, charts}`: the pinned ones, in the order of the pins, then those without a group, then each group. */
export function sectionsOf(charts, { pins = [], find = "" } = {}) {
  const shown = charts.filter((chart) => matches(chart, find));
  const pinned = pins.map((id) => shown.find((chart) => chart.id === id)).filter(Boolean);
  const sections = pinned.length ? [{ name: "Pinned", pinned: true, charts: pinned }] : [];
  for (const chart of shown) {
    if (pinned.includes(chart)) continue;
    const last = sections[sections.length - 1];
    if (last && !last.pinned && last.name === chart.group) last.charts.push(chart);
    else sections.push({ name: chart.group, pinned: false, charts: [chart] });
  }
  return sections;
}

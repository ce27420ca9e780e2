// The columns of the table of runs: what a run shows in each, and which there are.

import { ago, count, date, duration, fieldOf, number, percent, runName, seconds, statusOf } from "../base/format.js";
import { configOf, valueText } from "./config.js";
import { metrics } from "./metric_cache.js";
import { headOf, metricOf, titleOf, written } from "./metric_keys.js";

const CONFIG = "config.";
/** Configuration keys that the table shows by itself, when they differ. */
const CONFIG_SHOWN = 3;

const finite = (key, write) => (run) => {
  const value = fieldOf(run, key) ?? "";
  return typeof value === "string" ? value : write(value);
};
const text = (key) => (run) => run[key] || "";
const DAY = 86400;
const MOMENT = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });
/** Within a day how long ago, then the date. */
const when = (key) => (run) => {
  if (!run[key]) return "";
  const past = Date.now() / 1000 - seconds(run[key]);
  if (past < DAY) return ago(run[key]);
  return past < 300 * DAY ? MOMENT.format(new Date(run[key])) : date(run[key]);
};

/** How long a run took, or has taken until now. */
export function ran(run) {
  const from = seconds(run.start_time);
  // The daemon counts whole seconds.
  if (run.duration_seconds === 0 && from !== null && run.end_time) return duration(Math.max(0, seconds(run.end_time) - from));
  if (run.duration_seconds === 0) return "< 1 s";
  if (run.duration_seconds !== null && run.duration_seconds !== undefined) return duration(run.duration_seconds);
  const to = statusOf(run) === "running" ? Date.now() / 1000 : seconds(run.last_event_time);
  return from === null || to === null ? "–" : duration(Math.max(0, to - from));
}

/**
 * A column: its `key` is the daemon's name for it, by which it is sorted, but for a `metric`; `text` is no number; `show(run)` is the text
 * of a cell.
 */
export const COLUMNS = [
  { key: "name", label: "Name", text: true, show: runName },
  { key: "status", label: "Status", text: true, show: statusOf },
  { key: "start_time", label: "Started", time: true, show: when("start_time"), title: (run) => date(run.start_time) },
  { key: "duration_seconds", label: "Duration", time: true, show: ran },
  { key: "final_epoch", label: "Epoch", show: finite("final_epoch", count) },
  { key: "final_train_loss", label: "Train loss", show: finite("final_train_loss", number) },
  { key: "final_val_loss", label: "Val loss", show: finite("final_val_loss", number) },
  { key: "final_train_accuracy", label: "Train accuracy", show: finite("final_train_accuracy", percent) },
  { key: "final_val_accuracy", label: "Val accuracy", show: finite("final_val_accuracy", percent) },
  { key: "best_val_accuracy", label: "Best val accuracy", show: finite("best_val_accuracy", percent) },
  { key: "best_epoch", label: "Best epoch", show: finite("best_epoch", count) },
  { key: "total_hidden_units", label: "Hidden units", show: finite("total_hidden_units", count) },
  { key: "total_parameters", label: "Parameters", show: finite("total_parameters", count) },
  { key: "dataset_name", label: "Dataset", text: true, show: text("dataset_name") },
  { key: "dataset_size", label: "Dataset size", show: finite("dataset_size", count) },
  { key: "tags", label: "Tags", text: true, show: (run) => (run.tags || []).join(", ") },
  { key: "notes", label: "Notes", text: true, show: (run) => (run.notes || "").split("\n")[0] },
  { key: "created_by", label: "Created by", text: true, show: text("created_by") },
  { key: "last_event_time", label: "Last event", time: true, show: when("last_event_time"), title: (run) => date(run.last_event_time) },
  { key: "end_time", label: "Ended", time: true, show: when("end_time"), title: (run) => date(run.end_time) },
  { key: "run_name", label: "Published name", text: true, show: text("run_name") },
  { key: "archived", label: "Archived", text: true, show: (run) => (run.archived ? "archived" : "") },
];

const ALWAYS = ["name", "status", "start_time", "duration_seconds"];
const WITH_DATA = ["final_epoch", "final_train_loss", "final_val_loss", "final_val_accuracy", "total_hidden_units", "dataset_name", "tags"];

const isNumber = (value) => typeof value === "number" || value === "NaN" || value === "Infinity" || value === "-Infinity";

/** The column of a configuration key. It is a column of numbers when these runs have numbers only. */
export function configColumn(key, runs = []) {
  const name = key.slice(CONFIG.length);
  const values = runs.map((run) => configOf(run).get(name)).filter((value) => value !== undefined && value !== null);
  return {
    key,
    label: name,
    config: true,
    text: !values.length || !values.every(isNumber),
    show: (run) => {
      const value = configOf(run).get(name);
      if (value === undefined) return "";
      return typeof value === "number" ? plain(value) : valueText(value);
    },
  };
}

/** A number that somebody wrote down, as it was written: no digit is cut. */
const plain = (value) => (Number.isInteger(value) && Math.abs(value) < 1e15 ? value.toLocaleString("en") : String(value));

/** The column of a metric that runs log. It shows what was read; until then, and for a run without the metric, nothing. */
function metricColumn(key) {
  const { what, label } = metricOf(key);
  const entryOf = (run) => metrics.entry(run.run_id, key) || {};
  const why = ({ failure, value }) => (failure && value === null ? `It cannot be read: ${failure}. It is tried again.` : "");
  const textOf = (entry) => (why(entry) ? "?" : written(label, entry.value));
  const exactOf = (entry) => String(entry.value ?? "");
  return {
    key,
    label: headOf({ what, label }),
    metric: true,
    hint: `${titleOf({ what, label })}. It is read for the rows in view; the table cannot be sorted by it.`,
    show: (run) => textOf(entryOf(run)),
    title: (run) => why(entryOf(run)) || (exactOf(entryOf(run)) === textOf(entryOf(run)) ? "" : exactOf(entryOf(run))),
  };
}

/** The column with this name, or null. */
export function columnOf(key, runs = []) {
  const known = COLUMNS.find((column) => column.key === key);
  if (known) return known;
  if (metricOf(key)) return metricColumn(key);
  return key.startsWith(CONFIG) && key.length > CONFIG.length ? configColumn(key, runs) : null;
}

/** Every configuration key of these runs, in the order in which they are met. */
export function configKeys(runs) {
  const keys = new Set();
  for (const run of runs) for (const key of configOf(run).keys()) keys.add(`${CONFIG}${key}`);
  return [...keys];
}

/** The columns of a table whose address names none: those that these runs have values for, and a few keys in which they differ. */
export function defaults(runs) {
  const filled = WITH_DATA.filter((key) => runs.some((run) => columnOf(key).show(run) !== ""));
  const differ = configKeys(runs).filter((key) => new Set(runs.map((run) => valueText(configOf(run).get(key.slice(CONFIG.length))))).size > 1);
  return [...ALWAYS, ...filled, ...differ.slice(0, CONFIG_SHOWN)];
}

/** The columns that an address names, each once and the name first; null when it names none. */
export function named(keys) {
  const known = [...new Set(keys || [])].filter((key) => columnOf(key));
  return known.length ? ["name", ...known.filter((key) => key !== "name")] : null;
}

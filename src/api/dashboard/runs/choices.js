// What the choice of columns offers, found by a search.

import { COLUMNS as FIELDS } from "../charts/metrics.js";
import { COLUMNS, columnOf, configKeys } from "./columns.js";
import { metricKey, metricOf } from "./metric_keys.js";

/** How many keys of a group, and how many metrics, are listed at once beside the chosen ones; the search finds the others. */
const LISTED = 200;
const METRICS_LISTED = 100;
const OF_RUN = /^(final|best|total)_/;
/** What a metric can show. */
const WHATS = ["last", "min", "max"];

const natural = new Intl.Collator("en", { numeric: true, sensitivity: "base" }).compare;

/** The column of a run that has the last value of a metric. */
const ofRun = (label) => COLUMNS.find(({ key }) => key === `final_${label}` || key === `total_${label}`);

/** Whether every word is in the text. */
const matches = (text, find) => find.toLowerCase().split(/\s+/).every((word) => text.toLowerCase().includes(word));

function cut(list, most, isChosen) {
  const listed = list.filter((one, at) => at < most || isChosen(one));
  return { listed, more: list.length - listed.length };
}

/** Metrics with a column in rows of metrics, of which the row of a run has the last value at most. */
function fields(runs) {
  const has = (column) => runs.some((run) => column.show(run) !== "");
  return FIELDS.filter((label) => (ofRun(label) ? has(ofRun(label)) : runs.length > 0));
}

/**
 * The metrics of these runs, and of the chosen columns, those that every trainer knows first: `{label, keys}`, the keys of its columns;
 * null where a column of the run is the same.
 */
function metricRows({ runs, chosen, labels }, find) {
  const asked = chosen.map(metricOf).filter(Boolean).map(({ label }) => label);
  const all = [...new Set([...fields(runs), ...[...labels, ...asked].sort(natural)])];
  const isTwice = (what, label) => what === "last" && ofRun(label) && !chosen.includes(metricKey(what, label));
  const keysOf = (label) => WHATS.map((what) => (isTwice(what, label) ? null : metricKey(what, label)));
  return all.filter((label) => matches(label, find)).map((label) => ({ label, keys: keysOf(label) }));
}

/**
 * The columns that these runs can show, and the chosen ones that no shown run has: `fixed` groups and `config`, each `{title, keys, more}`,
 * and `metrics`, `{rows, more}`. `more` counts what is found beyond the limit.
 */
export function choices({ runs, chosen, labels }, find) {
  const config = [...new Set([...configKeys(runs), ...chosen.filter((key) => key.startsWith("config."))])];
  const group = (title, keys) => {
    const { listed, more } = cut(keys.filter((key) => matches(columnOf(key).label, find)), LISTED, (key) => chosen.includes(key));
    return { title, keys: listed, more };
  };
  const keys = COLUMNS.map(({ key }) => key);
  const { listed, more } = cut(metricRows({ runs, chosen, labels }, find), METRICS_LISTED, (row) => row.keys.some((key) => chosen.includes(key)));
  return {
    fixed: [group("Run", keys.filter((key) => !OF_RUN.test(key))), group("Metrics, last and best", keys.filter((key) => OF_RUN.test(key)))],
    metrics: { rows: listed, more },
    config: group("Configuration", config),
  };
}

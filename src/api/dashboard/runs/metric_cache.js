// What is known of the metrics of runs: their names, and the values that were read. No requests are made here.

import { COLUMNS } from "../charts/metrics.js";

/** Between two readings of a run that goes on, and of a run that has ended but whose row has changed. */
const REFRESH_MS = 15000;
const SETTLE_MS = 3000;
/** A value that took long to read is read again that much later. */
const REST = 50;
/** Runs that are remembered. */
const KEPT = 1000;

/** Changes whenever rows may have come to a run. */
export const versionOf = (run) => JSON.stringify([run.status, run.last_event_time, run.end_time, run.restarted_at]);

const NOTHING = { value: null, through: null, seldom: false, version: null, at: 0, took: 0, failure: null };

const goesOn = (run) => run.status === "running" || run.status === "stale";

export class MetricCache {
  constructor() {
    /** By the id of a run: `{labels, version, failed, at}`. */
    this.names = new Map();
    /**
     * By the id of a run, then by the key of a column: its `value`; `through`, the time of the newest row that was read; and `seldom`,
     * when the newest rows are without the metric.
     */
    this.values = new Map();
  }

  #of(id) {
    if (!this.values.has(id)) {
      if (this.values.size >= KEPT) this.values.clear();
      this.values.set(id, new Map());
    }
    return this.values.get(id);
  }

  /** What was read of this column of a run, or null. */
  entry(id, key) {
    return this.values.get(id)?.get(key) ?? null;
  }

  /** Takes what was read, `[key, {value, through}]`. `version` is what the run was before that; null when events came in meanwhile. */
  take(id, found, { version, at, took }) {
    const of = this.#of(id);
    for (const [key, { value, through = null }] of found) of.set(key, { value, through, seldom: this.isSeldom(id, key), version, at, took, failure: null });
  }

  /** The newest rows are without these metrics: they are read by other means from now on. */
  takeSeldom(id, keys) {
    const of = this.#of(id);
    for (const key of keys) of.set(key, { ...NOTHING, ...of.get(key), seldom: true, version: null, at: -Infinity, took: 0 });
  }

  isSeldom(id, key) {
    return Boolean(this.entry(id, key)?.seldom);
  }

  /** These columns could not be read: what was known stays. */
  fail(id, keys, { failure, at, took }) {
    const of = this.#of(id);
    for (const key of keys) of.set(key, { ...NOTHING, ...of.get(key), version: null, at, took, failure });
  }

  /** Whether this column of the run is to be read, the first time or again. */
  isDue(run, key, now) {
    const entry = this.entry(run.run_id, key);
    if (!entry) return true;
    if (entry.version === versionOf(run)) return false;
    return now - entry.at >= Math.max(goesOn(run) || entry.failure ? REFRESH_MS : SETTLE_MS, REST * entry.took);
  }

  /** Takes the labels of the extra metrics of a run. */
  takeNames(id, labels, version) {
    if (this.names.size >= KEPT && !this.names.has(id)) this.names.clear();
    this.names.set(id, { labels: new Set(labels), version, failed: false, at: 0 });
  }

  failNames(id, at) {
    this.names.set(id, { labels: this.names.get(id)?.labels ?? new Set(), version: null, failed: true, at });
  }

  /** Whether the names of a run are known, or were not to be had a moment ago. */
  hasNames(id, now) {
    const names = this.names.get(id);
    return Boolean(names) && (!names.failed || now - names.at < REFRESH_MS);
  }

  /** Whether the names of a run are to be read before one can say that it has none of these metrics. */
  lacksNames(id, labels, version) {
    const names = this.names.get(id);
    const unknown = labels.some((label) => !this.has(id, label));
    return unknown && !(names && !names.failed && version !== null && names.version === version);
  }

  /** Whether a run has logged this metric, as far as is known. A column is there for every run. */
  has(id, label) {
    return COLUMNS.includes(label) || Boolean(this.names.get(id)?.labels.has(label));
  }

  /** The labels of the extra metrics of these runs, each once. */
  labelsOf(ids) {
    const labels = new Set();
    for (const id of ids) for (const label of this.names.get(id)?.labels ?? []) labels.add(label);
    return [...labels];
  }
}

/** The one that the page has. */
export const metrics = new MetricCache();

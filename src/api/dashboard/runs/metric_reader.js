// Reads the metrics of the runs that are shown, for the columns that are chosen: a few requests at once, and none for what is known.

import { fieldOf } from "../base/format.js";
import { labelOf } from "../charts/metrics.js";
import { versionOf } from "./metric_cache.js";
import { metricKey, metricOf } from "./metric_keys.js";

/** Requests under way at once. */
const AT_ONCE = 3;
/** Of these, how many may read every row of a run. */
const WHOLE_AT_ONCE = 1;
/** The newest rows, among which a metric has its last value unless it is logged seldom. */
const NEWEST_ROWS = 50;
/** The most fields of one request for rows, and for aggregates. */
const ROW_FIELDS = 16;
const AGGREGATE_FIELDS = 256;

/** The last value of a metric in these rows, the newest first; undefined: none has one. */
export function newest(rows, label) {
  for (const row of rows) {
    const value = fieldOf(row, label);
    if (value !== null && value !== undefined) return value;
  }
  return undefined;
}

/** The last, lowest or highest value of an aggregate: of one without a finite value, what it has instead. */
const valueOf = (of, what) => of[what] ?? (of.count ? of.last ?? of.last_non_finite : null);

const labelsOf = (keys) => [...new Set(keys.map((key) => metricOf(key).label))];

function parts(list, size) {
  const found = [];
  for (let at = 0; at < list.length; at += size) found.push(list.slice(at, at + size));
  return found;
}

export class MetricReader {
  #aborter = new AbortController();
  #runs = [];
  #keys = [];
  #named = [];
  /** By the id of a run, what of it is being read. */
  #busy = new Map();

  /** `ask(path, params, signal)` asks the daemon; `speaks(id)`: the run had an event just now; `told()` is called after each answer. */
  constructor({ ask, cache, speaks, told, now = Date.now }) {
    this.ask = (path, params) => ask(path, params, this.#aborter.signal);
    Object.assign(this, { cache, speaks, told, now });
  }

  /** From now on these columns of these runs are read, and the names of those. What has not begun of other ones is forgotten. */
  want(runs, keys, named = []) {
    [this.#runs, this.#keys, this.#named] = [runs, keys, named];
    this.#start();
  }

  /** Ends what is under way; nothing is told of it. */
  close() {
    this.#aborter.abort();
  }

  get #closed() {
    return this.#aborter.signal.aborted;
  }

  #start() {
    while (!this.#closed && this.#busy.size < AT_ONCE) {
      const job = this.#next();
      if (!job) return;
      this.#busy.set(job.run.run_id, job.what);
      this.#do(job).then(() => {
        this.#busy.delete(job.run.run_id);
        if (this.#closed) return;
        this.told();
        this.#start();
      });
    }
  }

  /** Last values first, which are quick; then names for the choice of columns; then what reads every row. */
  #next() {
    const isIdle = (run) => !this.#busy.has(run.run_id);
    const isSlow = (run, key) => metricOf(key).what !== "last" || this.cache.isSeldom(run.run_id, key);
    const first = (what) => {
      for (const run of this.#runs.filter(isIdle)) {
        const keys = this.#keys.filter((key) => isSlow(run, key) === (what === "whole") && this.cache.isDue(run, key, this.now()));
        if (keys.length) return { run, what, keys };
      }
      return null;
    };
    const unnamed = () => {
      const run = this.#named.find((one) => isIdle(one) && !this.cache.hasNames(one.run_id, this.now()));
      return run ? { run, what: "names", keys: [] } : null;
    };
    const whole = [...this.#busy.values()].filter((what) => what === "whole").length;
    return first("last") || unnamed() || (whole < WHOLE_AT_ONCE ? first("whole") : null);
  }

  async #do({ run, what, keys }) {
    const id = run.run_id;
    // Events that come in meanwhile may not be in the answer.
    const version = this.speaks(id) ? null : versionOf(run);
    let started = this.now();
    try {
      if (what === "names" || this.cache.lacksNames(id, labelsOf(keys), version)) await this.#names(id, version);
      started = this.now();
      const present = keys.filter((key) => this.cache.has(id, metricOf(key).label));
      const found = new Map(keys.map((key) => [key, { value: null }]));
      if (present.length) await (what === "whole" ? this.#whole(id, present, found) : this.#last(id, present, found));
      if (!this.#closed) this.cache.take(id, found, { version, at: this.now(), took: this.now() - started });
    } catch (error) {
      if (!this.#closed) this.#failed(id, { what, keys, error, took: this.now() - started });
    }
  }

  #failed(id, { what, keys, error, took }) {
    if (what === "names") this.cache.failNames(id, this.now());
    // Deleted and begun anew, a run may be without what it had.
    else if (error.status === 404) this.cache.names.delete(id);
    this.cache.fail(id, keys, { failure: error.message, at: this.now(), took });
  }

  async #names(id, version) {
    const { metric_names: names } = await this.ask(`api/runs/${id}`, { limit: 0, count: "none" });
    this.cache.takeNames(id, names.map(labelOf), version);
  }

  /** The last values, from the newest rows. What these do not have, and older ones may, is not found. */
  async #last(id, keys, found) {
    for (const part of parts(keys, ROW_FIELDS)) {
      const { metrics: rows, next } = await this.ask("api/metrics/range", { run_id: id, limit: NEWEST_ROWS, field: labelsOf(part) });
      for (const key of part) {
        const value = newest(rows, metricOf(key).label);
        if (value !== undefined || !next) found.set(key, { value: value ?? null, through: rows.length ? rows[0].timestamp : null });
        else found.delete(key);
      }
      if (!this.#closed) this.cache.takeSeldom(id, part.filter((key) => !found.has(key)));
    }
  }

  /** The lowest and highest values; and last ones that are seldom, of which only what is new is read again. */
  async #whole(id, keys, found) {
    const before = new Map(keys.map((key) => [key, metricOf(key).what === "last" ? this.cache.entry(id, key) : null]));
    const isKnown = (key) => Boolean(before.get(key)?.through);
    const read = async (part, since) => {
      const { fields, last_timestamp: through } = await this.ask(`api/runs/${id}/aggregates`, { field: labelsOf(part), start_time: since });
      for (const key of part) {
        const { what, label } = metricOf(key);
        const isNew = !since || fields[label].count > 0;
        found.set(key, { value: isNew ? valueOf(fields[label], what) : before.get(key).value, through: through ?? since ?? null });
      }
    };
    for (const part of parts(keys.filter((key) => !isKnown(key)), AGGREGATE_FIELDS)) await read(part);
    for (const part of parts(keys.filter(isKnown), AGGREGATE_FIELDS)) await read(part, part.map((key) => before.get(key).through).sort()[0]);
  }
}

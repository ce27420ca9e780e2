// The curve of one run as columns: read from the store, then grown by what the stream brings.

import { get, optional, ApiError } from "./api.js";
import { seconds } from "./format.js";

export const FIELDS = ["train_loss", "val_loss", "train_accuracy", "val_accuracy"];
const POINTS = 4000;
/** Beyond it the curve is asked for again, reduced by the daemon. */
const MOST = 12000;

const later = (a, b) => a.timestamp > b.timestamp || (a.timestamp === b.timestamp && a.event_id > b.event_id);

export class Series {
  constructor(runId) {
    this.runId = runId;
    this.waiting = [];
    this.loading = false;
    this.loaded = false;
    this.clear();
  }

  clear() {
    this.time = [];
    this.epochs = [];
    this.x = [];
    this.hidden = [];
    this.phase = [];
    this.values = Object.fromEntries(FIELDS.map((name) => [name, []]));
    this.low = Object.fromEntries(FIELDS.map((name) => [name, []]));
    this.high = Object.fromEntries(FIELDS.map((name) => [name, []]));
    this.odd = [];
    this.gaps = [];
    this.last = null;
    this.offset = 0;
    this.exact = true;
    this.withEpochs = 0;
    this.spread = false;
  }

  /** Reads the whole curve. Rows that arrive meanwhile are kept and appended. */
  async load() {
    if (this.loading) {
      this.again = true;
      return false;
    }
    this.loading = true;
    try {
      const [answer, gaps] = await Promise.all([
        this.#range(),
        optional(get(`api/runs/${this.runId}/gaps`), { gaps: [] }),
      ]);
      this.clear();
      this.exact = answer.exact;
      this.replaced = answer.replaced || 0;
      // What was missed of commands is no hole in a curve.
      this.gaps = gaps.gaps.filter((gap) => gap.source !== "control").map((gap) => ({ from: seconds(gap.started_at), to: seconds(gap.ended_at), lost: gap.lost, reason: gap.reason }));
      answer.metrics.forEach((row) => this.#push(row));
      this.loaded = true;
    } finally {
      this.loading = false;
      const waiting = this.waiting;
      this.waiting = [];
      if (this.loaded) this.append(waiting);
    }
    if (this.again) {
      this.again = false;
      return this.load();
    }
    return true;
  }

  async #range() {
    const range = { run_id: this.runId, order: "asc" };
    try {
      return await get("api/metrics/range", { ...range, max_points: POINTS, fields: FIELDS.join(",") });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 400) throw error;
      // A daemon without curves: the newest rows as they are.
      const answer = await get("api/metrics/range", { ...range, order: "desc", limit: POINTS });
      answer.metrics.reverse();
      return answer;
    }
  }

  /** Appends rows of the stream; whether the curve must be read again. */
  append(rows) {
    if (!this.loaded || this.loading) {
      this.waiting.push(...rows);
      // Without a limit a page in the background would hold everything.
      if (this.waiting.length > MOST) this.waiting.splice(0, this.waiting.length - MOST);
      return false;
    }
    let stale = false;
    for (const row of rows) {
      if (this.last && !later(row, this.last)) continue;
      stale = !this.#push(row, true) || stale;
    }
    return stale || this.time.length > MOST;
  }

  #push(row, fromStream = false) {
    const at = this.time.length;
    const hidden = row.hidden_units ?? (at ? this.hidden[at - 1] : null);
    const phase = row.phase ?? null;
    let epoch = row.epoch;
    if (epoch !== null && epoch !== undefined) {
      this.withEpochs += 1;
      const before = this.lastEpoch;
      if (at && before !== undefined && before !== null && epoch < before) {
        const resumed = this.phase[at - 1] === phase && this.hidden[at - 1] === hidden;
        // Resumed from a checkpoint: only the whole curve tells what is replaced.
        if (resumed && fromStream) return false;
        this.offset = this.x[at - 1] + 1 - epoch;
      }
      this.lastEpoch = epoch;
      epoch += this.offset;
    }
    this.time.push(seconds(row.timestamp));
    this.epochs.push(row.epoch ?? null);
    // An axis never goes back.
    this.x.push(Math.max(epoch ?? (at ? this.x[at - 1] : 0), at ? this.x[at - 1] : epoch ?? 0));
    this.hidden.push(hidden);
    this.phase.push(phase);
    for (const name of FIELDS) {
      const value = row[name] ?? null;
      const spread = row.spread && row.spread[name];
      this.values[name].push(value);
      this.low[name].push(spread ? spread.min : value);
      this.high[name].push(spread ? spread.max : value);
      this.spread ||= Boolean(spread);
    }
    for (const name of row.non_finite || []) if (FIELDS.includes(name)) this.odd.push({ at, name });
    this.last = { timestamp: row.timestamp, event_id: row.event_id };
    return true;
  }

  /** The numbers along the bottom. */
  axis(by) {
    return by === "time" || this.withEpochs === 0 ? this.time : this.x;
  }

  /** Where a time is on the axis. */
  place(by, time) {
    const axis = this.axis(by);
    if (axis === this.time || axis.length === 0) return time;
    let [low, high] = [0, this.time.length - 1];
    if (time <= this.time[0]) return axis[0];
    if (time >= this.time[high]) return axis[high];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.time[middle] <= time) low = middle;
      else high = middle;
    }
    const part = (time - this.time[low]) / (this.time[high] - this.time[low] || 1);
    return axis[low] + part * (axis[high] - axis[low]);
  }

  /** Stretches of one phase, as indices from and to. */
  phases() {
    const found = [];
    for (let at = 0; at < this.phase.length; at += 1) {
      const current = found[found.length - 1];
      if (current && current.name === this.phase[at]) current.to = at;
      else found.push({ name: this.phase[at], from: at, to: at });
    }
    return found;
  }

  /** Where units arrived. */
  arrivals() {
    const found = [];
    for (let at = 1; at < this.hidden.length; at += 1) {
      if (this.hidden[at] > this.hidden[at - 1] && this.hidden[at - 1] !== null) found.push({ at, units: this.hidden[at] });
    }
    return found;
  }

  newest(name) {
    const values = this.values[name];
    for (let at = values.length - 1; at >= 0; at -= 1) {
      if (this.odd.length && this.odd[this.odd.length - 1].at === at && this.odd[this.odd.length - 1].name === name) return "NaN";
      if (values[at] !== null) return values[at];
    }
    return null;
  }

  best(name, compare) {
    let best = null;
    (compare === Math.min ? this.low : this.high)[name].forEach((value) => {
      if (value !== null && value !== undefined) best = best === null ? value : compare(best, value);
    });
    return best;
  }
}

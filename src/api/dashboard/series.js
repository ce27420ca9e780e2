// The curve of one run as columns: read from the store, then grown by what the stream brings; or a part of it, more closely.

import { get, optional, ApiError } from "./api.js";
import { seconds } from "./format.js";

export const FIELDS = ["train_loss", "val_loss", "train_accuracy", "val_accuracy"];
const POINTS = 4000;
/** Beyond it the curve is asked for again, reduced by the daemon. */
const MOST = 12000;

/** Ours are cut to the millisecond. */
const ROUNDED = 0.001;

const later = (a, b) => a.timestamp > b.timestamp || (a.timestamp === b.timestamp && a.event_id > b.event_id);

/** What the daemons know they missed; and what the run's `seq` lacks, where none of them says so. */
function holes(answer) {
  // What was missed of commands is no hole in a curve.
  const told = answer.gaps.filter((gap) => gap.source !== "control").map((gap) => ({ from: seconds(gap.started_at), to: seconds(gap.ended_at), lost: gap.lost, reason: gap.reason }));
  const same = (hole) => told.some((gap) => gap.reason === "sequence" && gap.lost >= hole.lost && gap.from <= hole.to + 1 && gap.to >= hole.from - 1);
  const missing = (answer.missing || []).map((hole) => ({ from: seconds(hole.after), to: seconds(hole.before), lost: hole.count, reason: "missing_seq", seq: [hole.from, hole.to] }));
  return [...told, ...missing.filter((hole) => !same(hole))].sort((a, b) => a.from - b.from);
}

/** The place in a sorted column behind which a value is, so that there is one more. */
function pair(column, value) {
  let [low, high] = [0, column.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (column[middle] <= value) low = middle;
    else high = middle;
  }
  return low;
}

/** What one column says where the other has a value; beyond its ends, what it says there. */
function between(from, to, value) {
  const last = from.length - 1;
  if (last < 0) return value;
  if (value <= from[0]) return to[0];
  if (value >= from[last]) return to[last];
  const low = pair(from, value);
  const part = (value - from[low]) / (from[low + 1] - from[low] || 1);
  return to[low] + part * (to[low + 1] - to[low]);
}

export class Series {
  constructor(runId) {
    this.runId = runId;
    /** Only what is between; and where the curve was in front of it. */
    this.within = null;
    this.seed = null;
    /** What the stream brought last: the store has it a moment later, so a curve read again may still be without it. */
    this.recent = [];
    this.loading = false;
    this.loaded = false;
    /** Whether the store did not have yet, when it was read, what tells how the curve goes on. */
    this.stale = false;
    this.gaps = [];
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
    this.offsets = [];
    this.last = null;
    this.offset = this.seed ? this.seed.offset : 0;
    this.lastEpoch = this.seed ? this.seed.epoch : null;
    this.exact = true;
    this.withEpochs = 0;
    this.spread = false;
  }

  /** Reads the whole curve; rows of the stream that the answer does not have yet are appended again. */
  async load() {
    if (this.loading) {
      this.again = true;
      return false;
    }
    this.loading = true;
    try {
      const [answer, gaps] = await Promise.all([
        this.#range(),
        this.within ? null : optional(get(`api/runs/${this.runId}/gaps`), { gaps: [] }),
      ]);
      this.clear();
      this.exact = answer.exact;
      this.replaced = answer.replaced || 0;
      if (gaps) this.gaps = holes(gaps);
      answer.metrics.forEach((row) => this.#push(row));
      this.loaded = true;
    } finally {
      this.loading = false;
      if (this.loaded) this.stale = this.#add(this.recent);
    }
    if (this.again) {
      this.again = false;
      return this.load();
    }
    return true;
  }

  async #range() {
    const range = { run_id: this.runId, order: "asc", ...this.within };
    try {
      return await get("api/metrics/range", { ...range, max_points: POINTS, fields: FIELDS.join(",") });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 400) throw error;
      // A daemon without curves: the newest rows as they are.
      delete range.attempts;
      const answer = await get("api/metrics/range", { ...range, order: "desc", limit: POINTS });
      answer.metrics.reverse();
      return answer;
    }
  }

  /** Appends rows of the stream; whether the curve must be read again. */
  append(rows) {
    this.recent.push(...rows);
    // Without a limit a page in the background would hold everything.
    if (this.recent.length > MOST) this.recent.splice(0, this.recent.length - MOST);
    return this.loaded && !this.loading && this.#add(rows);
  }

  #add(rows) {
    let stale = false;
    for (const row of rows) {
      if (this.last && !later(row, this.last)) continue;
      stale = !this.#push(row, true) || stale;
    }
    return stale || this.time.length > MOST;
  }

  #push(row, fromStream = false) {
    const at = this.time.length;
    const front = at ? { x: this.x[at - 1], hidden: this.hidden[at - 1], phase: this.phase[at - 1] } : this.seed;
    const hidden = row.hidden_units ?? (front ? front.hidden : null);
    const phase = row.phase ?? null;
    let epoch = row.epoch;
    if (epoch !== null && epoch !== undefined) {
      this.withEpochs += 1;
      const before = this.lastEpoch;
      if (front && before !== null && epoch < before) {
        const resumed = front.phase === phase && front.hidden === hidden;
        // Resumed from a checkpoint: only the whole curve tells what is replaced.
        if (resumed && fromStream) return false;
        this.offset = front.x + 1 - epoch;
      }
      this.lastEpoch = epoch;
      epoch += this.offset;
    }
    this.time.push(seconds(row.timestamp));
    this.epochs.push(row.epoch ?? null);
    // An axis never goes back.
    this.x.push(Math.max(epoch ?? (front ? front.x : 0), front ? front.x : epoch ?? 0));
    this.offsets.push(this.offset);
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
    return axis === this.time ? time : between(this.time, axis, time);
  }

  /** The time of a place on the axis. */
  timeAt(by, place) {
    const axis = this.axis(by);
    return axis === this.time ? place : between(axis, this.time, place);
  }

  /** What is between two moments, and a point on either side, to be read as closely as the daemon gives it. */
  part(from, to) {
    const end = this.time.length - 1;
    const first = Math.max(0, pair(this.time, from) - 1);
    const last = Math.min(end, pair(this.time, to) + 2);
    const part = new Series(this.runId);
    // The first point stands for all rows before it. Without a second attempt all rows count, and no later ones are looked at.
    part.within = { start_time: first ? this.time[first] : undefined, end_time: this.time[last] + ROUNDED, attempts: this.replaced ? undefined : "raw" };
    const seed = first - 1;
    part.seed = first ? { x: this.x[seed], epoch: this.epochs[seed], offset: this.offsets[seed], hidden: this.hidden[seed], phase: this.phase[seed] } : null;
    part.gaps = this.gaps.filter((gap) => gap.to >= from && gap.from <= to);
    part.clear();
    return part;
  }

  /** Whether everything between two moments is here. */
  covers(from, to) {
    const end = this.time.length - 1;
    return end > 0 && this.time[0] <= from && this.time[end] >= to;
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

// Some metrics of one run as columns: taken from an answer of the store, then grown by what the stream brings; or a part of that,
// more closely. No requests are made here.

import { between, choose, continued, pair, spread } from "../charts/axes.js";
import { extraName, labelOf, memberOf } from "../charts/metrics.js";
import { seconds } from "../base/format.js";

/** Points beyond which the curve is asked for again, reduced by the daemon. */
export const MOST = 12000;
/** Numbers of rows of the stream that are kept until the store has them. */
const RECENT_VALUES = 400000;
/** Times of rows are cut to the millisecond here. */
const ROUNDED = 0.001;
/** The metric that has the epoch with its fraction, of trainers that log within an epoch. */
export const FRACTION = labelOf("epoch");

const later = (a, b) => a.timestamp > b.timestamp || (a.timestamp === b.timestamp && a.event_id > b.event_id);

/** The newest rows of the stream: the store has them a moment later, so a curve that is read may still be without them. */
export class Recent {
  constructor() {
    this.rows = [];
    this.values = 0;
  }

  push(rows) {
    // Without a limit a page in the background would hold everything.
    const size = (row) => 16 + Object.keys(row.extra || {}).length;
    for (const row of rows) {
      this.rows.push(row);
      this.values += size(row);
    }
    let gone = 0;
    while (this.values > RECENT_VALUES || this.rows.length - gone > MOST) {
      this.values -= size(this.rows[gone]);
      gone += 1;
    }
    if (gone) this.rows.splice(0, gone);
  }
}

/** What the daemons recorded as missed; and what the run's `seq` lacks, where none of them says so. */
export function holes(answer) {
  // What was missed of commands is no hole in a curve, nor is a pause in which nothing was lost.
  const told = answer.gaps.filter((gap) => gap.source !== "control" && gap.lost !== 0).map((gap) => ({ from: seconds(gap.started_at), to: seconds(gap.ended_at), lost: gap.lost, reason: gap.reason }));
  const same = (hole) => told.some((gap) => gap.reason === "sequence" && gap.lost >= hole.lost && gap.from <= hole.to + 1 && gap.to >= hole.from - 1);
  const missing = (answer.missing || []).map((hole) => ({ from: seconds(hole.after), to: seconds(hole.before), lost: hole.count, reason: "missing_seq", seq: [hole.from, hole.to] }));
  return [...told, ...missing.filter((hole) => !same(hole))].sort((a, b) => a.from - b.from);
}

export class Series {
  /** `run` is what all series of a run share: `{recent, origin, fraction}`; `fields` are labels of metrics. */
  constructor(run, fields) {
    this.run = run;
    this.fields = fields;
    /** Only what is between; where the curve was in front of it; and the curve that it is a part of. */
    this.within = null;
    this.seed = null;
    this.whole = null;
    this.loaded = false;
    /** Whether the store did not have yet, when it was read, what tells how the curve goes on. */
    this.stale = false;
    this.replaced = 0;
    this.clear();
  }

  clear() {
    const columns = () => Object.fromEntries(this.fields.map((name) => [name, []]));
    [this.time, this.epochs, this.steps, this.hidden, this.phase, this.rows] = [[], [], [], [], [], []];
    [this.values, this.low, this.high] = [columns(), columns(), columns()];
    /** How many values each metric has, and where it was not finite last. */
    this.counts = Object.fromEntries(this.fields.map((name) => [name, 0]));
    this.oddAt = {};
    this.odd = [];
    this.last = null;
    this.lastEpoch = this.seed ? this.seed.epoch.raw : null;
    this.exact = true;
    [this.withEpoch, this.withStep] = [0, 0];
    this.spread = false;
    this.axes = null;
  }

  /** Takes an answer of `/api/metrics/range`; rows of the stream that it does not have yet are appended again. */
  take(answer) {
    this.clear();
    this.exact = answer.exact;
    this.replaced = answer.replaced || 0;
    answer.metrics.forEach((row) => this.#push(row, false));
    this.loaded = true;
    this.stale = this.within ? false : this.#add(this.run.recent.rows);
  }

  /** Appends rows of the stream; whether the curve must be read again. */
  append(rows) {
    return this.loaded && this.#add(rows);
  }

  #add(rows) {
    let stale = false;
    for (const row of rows) {
      if (this.last && !later(row, this.last)) continue;
      stale = !this.#push(row, true) || stale;
    }
    return stale || this.time.length > MOST;
  }

  #push(row, fromStream) {
    const at = this.time.length;
    const front = at ? { hidden: this.hidden[at - 1], phase: this.phase[at - 1] } : this.seed;
    const hidden = row.hidden_units ?? (front ? front.hidden : null);
    const phase = row.phase ?? null;
    const epoch = (this.run.fraction ? valueOf(row, FRACTION, fromStream) : null) ?? row.epoch ?? null;
    if (epoch !== null) {
      // Resumed from a checkpoint: only the whole curve tells what is replaced.
      if (fromStream && front && this.lastEpoch !== null && epoch < this.lastEpoch && front.phase === phase && front.hidden === hidden) return false;
      this.lastEpoch = epoch;
      this.withEpoch += 1;
    }
    if ((row.step ?? null) !== null) this.withStep += 1;
    this.time.push(seconds(row.timestamp));
    this.epochs.push(epoch);
    this.steps.push(row.step ?? null);
    this.rows.push(row.rows ?? 1);
    this.hidden.push(hidden);
    this.phase.push(phase);
    const lost = row.non_finite || [];
    for (const name of this.fields) this.#value(row, name, { fromStream, isOdd: lost.length > 0 && lost.includes(fromStream ? extraName(name) ?? name : memberOf(name)) });
    this.last = { timestamp: row.timestamp, event_id: row.event_id };
    this.axes = null;
    return true;
  }

  #value(row, name, { fromStream, isOdd }) {
    const at = this.time.length - 1;
    const value = valueOf(row, name, fromStream);
    const spread = row.spread && row.spread[memberOf(name)];
    this.values[name].push(value);
    this.low[name].push(spread ? spread.min : value);
    this.high[name].push(spread ? spread.max : value);
    this.counts[name] += spread ? spread.count : value === null && !isOdd ? 0 : 1;
    this.spread ||= Boolean(spread);
    if (!isOdd) return;
    this.odd.push({ at, name });
    if (value === null) this.oddAt[name] = at;
  }

  /** The numbers along the bottom. */
  axis(kind) {
    this.axes ??= this.#axes();
    return this.axes[kind];
  }

  #axes() {
    const epoch = continued(this.epochs, this.seed && this.seed.epoch);
    const step = continued(this.steps, this.seed && this.seed.step);
    let rows = 0;
    const progress = this.withStep ? step.x : this.rows.map((count) => (rows += count));
    const twice = (from, to) => this.fields.some((name) => this.values[name].slice(from, to).filter((value) => value !== null).length > 1);
    const x = this.run.fraction ? epoch.x : this.whole ? this.#asWhole(epoch.x) : spread(epoch.x, progress, twice);
    const origin = this.run.origin ?? this.time[0] ?? 0;
    return { epoch: x, step: step.x, wall: this.time, relative: this.time.map((time) => Math.max(0, time - origin)), counted: { epoch, step } };
  }

  /** Places within epochs as the whole curve has them, so that nothing moves when it is seen more closely. */
  #asWhole(epochs) {
    const { time } = this.whole;
    const [whole, counted] = [this.whole.axis("epoch"), this.whole.axes.counted.epoch.x];
    if (whole.every((x, at) => x === counted[at])) return epochs;
    let front = -Infinity;
    return epochs.map((epoch, at) => {
      const within = Math.min(Math.max(between(time, whole, this.time[at]) - epoch, 0), 0.999999);
      front = Math.max(front, epoch + within);
      return front;
    });
  }

  /** Where a time is on the axis. */
  place(kind, time) {
    return between(this.time, this.axis(kind), time);
  }

  /** The time of a place on the axis. */
  timeAt(kind, place) {
    return between(this.axis(kind), this.time, place);
  }

  /** What is between two moments, and a point on either side, to be read as closely as the daemon gives it. */
  part(from, to) {
    const end = this.time.length - 1;
    const first = Math.max(0, pair(this.time, from) - 1);
    const last = Math.min(end, pair(this.time, to) + 2);
    const part = new Series(this.run, this.fields);
    // The first point stands for all rows before it. Without a second attempt all rows count, and no later ones are looked at.
    part.within = { start_time: first ? this.time[first] : undefined, end_time: this.time[last] + ROUNDED, attempts: this.replaced ? undefined : "raw" };
    part.whole = this;
    this.axis("epoch");
    const { epoch, step } = this.axes.counted;
    const seed = first - 1;
    const of = (counted) => ({ x: counted.x[seed], raw: counted.lasts[seed], offset: counted.offsets[seed] });
    part.seed = first ? { epoch: of(epoch), step: of(step), hidden: this.hidden[seed], phase: this.phase[seed] } : null;
    part.clear();
    return part;
  }

  /** Whether everything between two moments is here. */
  covers(from, to) {
    const end = this.time.length - 1;
    return end > 0 && this.time[0] <= from && this.time[end] >= to;
  }

  /** The axes that it has, and the one that suits it: `{kinds, best}`. */
  choose() {
    const epochs = this.axis("epoch") && this.axes.counted.epoch.x;
    const span = epochs.length ? Math.floor(epochs[epochs.length - 1] - epochs[0]) + 1 : 0;
    const values = Math.max(0, ...Object.values(this.counts));
    return choose({ rows: this.time.length, withEpoch: this.withEpoch, withStep: this.withStep, values, epochs: span });
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
      if (this.oddAt[name] === at) return "NaN";
      if (values[at] !== null) return values[at];
    }
    return null;
  }

  /** The smallest or the greatest value, with `Math.min` or `Math.max`. */
  best(name, compare) {
    let best = null;
    for (const value of (compare === Math.min ? this.low : this.high)[name]) {
      if (value !== null && value !== undefined) best = best === null ? value : compare(best, value);
    }
    return best;
  }
}

/** The value of a metric in a row of the stream, where numbers without a column are in `extra`, or in a point of the store. */
function valueOf(row, label, fromStream) {
  const extra = fromStream ? extraName(label) : null;
  return (extra === null ? row[fromStream ? label : memberOf(label)] : (row.extra || {})[extra]) ?? null;
}

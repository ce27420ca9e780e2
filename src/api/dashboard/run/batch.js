// Some metrics of a run that are read together: the curve, a closer look at a part of it, and when to read it again.

import { ApiError, get } from "../base/api.js";
import { Series } from "./series.js";

/** Points of a curve, and numbers of an answer: more would take longer to read than a picture may take. */
const POINTS = 4000;
const NUMBERS = 20000;
const POINTS_LEAST = 1000;
/** Between two readings of the whole curve that the stream asks for; and the longest, while the store stays behind. */
const REST_MS = 3000;
const REST_MOST_MS = 24000;

const EMPTY = { metrics: [], exact: true, replaced: 0 };

export class Batch {
  /** `run` is what the batches of a run share; `changed` is told of each new curve. */
  constructor(run, fields, changed) {
    Object.assign(this, { run, fields, changed });
    this.series = new Series(run, fields);
    this.closer = null;
    this.looked = null;
    /** Between which moments `closer` was read. */
    this.read = null;
    this.rest = REST_MS;
    this.resting = null;
    this.wanted = false;
    [this.loading, this.queued] = [null, null];
  }

  /** What is looked at: the part, when there is more to see of it. */
  view() {
    return this.closer ?? this.series;
  }

  close() {
    clearTimeout(this.resting);
    this.gone = true;
  }

  /** Reads the whole curve, and the part that is looked at. Asked again meanwhile, it reads once more after that. */
  load() {
    if (this.loading) return (this.queued ??= this.loading.catch(() => {}).then(() => this.#next()));
    this.loading = this.#load().finally(() => {
      this.loading = null;
    });
    return this.loading;
  }

  #next() {
    this.queued = null;
    return this.gone ? undefined : this.load();
  }

  async #load() {
    const answer = await this.#ask({});
    if (this.gone) return;
    this.series.take(answer);
    if (this.series.stale) this.reread();
    await this.look(this.looked, true);
  }

  /** Looks at what is between two moments, as closely as the daemon gives it; null: at everything. `again`: it may have changed. */
  async look(looked, again = false) {
    this.looked = looked;
    if (looked === null) this.closer = null;
    else if (again || !(this.closer && this.closer.exact === true && this.closer.covers(looked.from, looked.to))) {
      // Who sees every row sees everything.
      // What was read exactly is read again as it was: a part of it may have been looked at since.
      const known = this.closer && this.closer.exact === true && this.closer.covers(looked.from, looked.to);
      this.read = known && this.read ? this.read : looked;
      const part = this.series.exact === true ? null : this.series.part(this.read.from, this.read.to);
      if (part) part.take(await this.#ask(part.within));
      if (this.gone || this.looked !== looked) return;
      this.closer = part;
    }
    this.changed(this);
  }

  async #ask(within) {
    const { runId, fraction } = this.run;
    const asked = this.fields.filter((name) => name !== "hidden_units");
    const field = [...asked, ...(fraction ? [fraction] : [])];
    const range = { run_id: runId, order: "asc", ...within };
    const points = Math.max(POINTS_LEAST, Math.min(POINTS, Math.floor(NUMBERS / Math.max(1, field.length))));
    try {
      return await get("api/metrics/range", { ...range, max_points: points, field: field.length ? field : ["train_loss"] });
    } catch (error) {
      // The store follows the stream by a moment: it knows neither a new run nor a new metric yet.
      if (error instanceof ApiError && error.status === 404) return EMPTY;
      if (!(error instanceof ApiError) || error.status !== 400) throw error;
      // A daemon without curves, or with fewer points to give: the newest rows as they are.
      const answer = await get("api/metrics/range", { ...range, attempts: undefined, order: "desc", limit: points, field: [...field, "epoch", "step", "hidden_units", "phase"] });
      answer.metrics.reverse();
      return answer;
    }
  }

  /** Appends rows of the stream. */
  append(rows, skipped) {
    if (this.series.append(rows) || (this.series.loaded && skipped > 0)) this.reread();
  }

  /** Reads the curve again, but not all the time: what is asked for meanwhile is done once, after a rest. */
  async reread() {
    this.wanted = true;
    if (this.rereading || this.resting !== null || this.gone) return;
    [this.rereading, this.wanted] = [true, false];
    try {
      await this.load();
    } catch {
      // The store is away; the next row asks again.
    }
    this.rereading = false;
    if (this.gone) return;
    this.wanted ||= this.series.stale;
    this.resting = setTimeout(() => {
      this.resting = null;
      if (this.wanted) this.reread();
    }, this.series.stale ? this.rest : REST_MS);
    this.rest = this.series.stale ? Math.min(2 * this.rest, REST_MOST_MS) : REST_MS;
  }
}

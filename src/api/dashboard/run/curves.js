// The curves of a run: which charts there are, what they show, and what a person has chosen of it, which is in the address.

import * as address from "../base/address.js";
import { get, optional } from "../base/api.js";
import { h, say, show, coalesced } from "../base/dom.js";
import { elapsed } from "../base/elapsed.js";
import { count, seconds } from "../base/format.js";
import { exportButtons } from "../charts/export.js";
import { settled } from "../charts/frames.js";
import { Grid } from "../charts/grid.js";
import { coloursOf, columnsOf } from "../charts/lines.js";
import { COLUMNS, chartsOf, labelOf, sectionsOf } from "../charts/metrics.js";
import { above, behind } from "../charts/overlays.js";
import { Batch } from "./batch.js";
import { Controls } from "./controls.js";
import { FRACTION, Recent, holes } from "./series.js";

/** Metrics of one request, beside those of the first, which finds out which columns have values. */
const TOGETHER = 8;
const FIRST = 5;
/** Between two drawings of what the stream brings. */
const LIVE_MS = 100;
/** Requests whose answers are kept, of charts that are far away, too. */
const KEPT = 12;

export class Curves {
  /** `changed` is told when there are new values. */
  constructor(runId, changed) {
    /** What all batches of the run share. */
    this.run = { runId, recent: new Recent(), origin: null, fraction: false };
    this.changed = changed;
    this.gaps = [];
    /** Labels of the metrics that have values, and the charts of them. */
    this.labels = new Set();
    this.charts = [];
    this.batches = [];
    this.failure = null;
    this.drawing = null;
    this.choice = readChoice(address.current().params);
    this.written = settled(() => writeChoice(this.choice));
    this.controls = new Controls(this.choice, (change) => this.choose(change));
    this.grid = new Grid({
      options: (card) => this.#options(card),
      draw: (card) => this.#draw(card),
      moved: () => this.#need(),
      tools: (chart) => this.#tools(chart),
    });
    this.note = h("p", { class: "curve-note", role: "status" }, "Loading…");
    this.box = h("section", { class: "card curves", "aria-label": "Curves" }, this.controls.box, this.note, this.grid.box);
    this.fresh = coalesced(() => this.#fresh());
  }

  close() {
    this.gone = true;
    clearTimeout(this.drawing);
    this.written.stop();
    this.batches.forEach((batch) => batch.close());
    this.grid.close();
  }

  /** The first batch: the columns, and the first of the other metrics. */
  get first() {
    return this.batches[0] ?? null;
  }

  /** Reads everything again that is shown. */
  async load() {
    const [detail] = await Promise.all([this.#detail(), this.#gaps()]);
    if (this.gone) return;
    const names = detail ? detail.metric_names || [] : [];
    this.run.origin = detail && detail.run.start_time ? seconds(detail.run.start_time) : null;
    if (names.includes("epoch")) this.run.fraction = true;
    names.map(labelOf).forEach((label) => this.labels.add(label));
    if (!this.first) this.#begin();
    const near = new Set(this.grid.near().map((card) => this.#batchOf(card.chart)));
    const again = this.batches.filter((batch, at) => at === 0 || near.has(batch));
    // What is far away is read when it is looked at.
    this.batches.filter((batch) => !again.includes(batch)).forEach((batch) => this.#drop(batch));
    // What is shown already stays while it is read again.
    const told = this.first.series.loaded ? () => {} : elapsed(this.note, "Reading all rows of this run:");
    await Promise.all(again.map((batch) => batch.load())).finally(told);
  }

  #begin() {
    const columns = COLUMNS.slice();
    const { pins } = this.choice;
    const extra = sectionsOf(chartsOf([...columns, ...this.labels]), { pins }).flatMap(({ charts }) => charts).flatMap(({ fields }) => {
      const more = fields.filter((field) => !columns.includes(field));
      return more.length ? [more] : [];
    });
    const fields = columns;
    for (const more of extra) if (fields.length + more.length <= COLUMNS.length + FIRST) fields.push(...more);
    this.batches.push(new Batch(this.run, fields, (batch) => this.#arrived(batch)));
  }

  #detail() {
    return optional(get(`api/runs/${this.run.runId}`, { limit: 0, count: "none" }), null);
  }

  async #gaps() {
    const answer = await optional(get(`api/runs/${this.run.runId}/gaps`), { gaps: [] });
    this.gaps = holes(answer);
  }

  /** A batch has been read: its metrics may be new. */
  #arrived(batch) {
    if (this.gone) return;
    this.failure = null;
    if (batch === this.first && this.choice.range && !batch.looked) this.#look();
    this.fresh();
  }

  /** Appends rows of the stream. */
  append(rows, skipped) {
    this.run.recent.push(rows);
    for (const row of rows) {
      for (const name of Object.keys(row.extra || {})) {
        if (name === "epoch") this.run.fraction = true;
        this.labels.add(labelOf(name));
      }
    }
    this.batches.forEach((batch) => batch.append(rows, skipped));
    this.drawing ??= setTimeout(() => {
      this.drawing = null;
      this.fresh();
    }, LIVE_MS);
  }

  /** The store has changed: gaps, too. */
  async renew() {
    await this.#gaps();
    this.fresh();
  }

  /** The axis that is shown. */
  get kind() {
    const { kinds, best } = this.first ? this.first.series.choose() : { kinds: [], best: "relative" };
    return kinds.includes(this.choice.axis) ? this.choice.axis : best;
  }

  /** A person has chosen: `{axis, smooth, log, find, pins, range}`, some of them. */
  choose(change) {
    const before = this.kind;
    if (change.axis && this.choice.range && this.first) {
      // The same part of the run, on another axis.
      const { series } = this.first;
      const [from, to] = this.choice.range.map((place) => series.timeAt(before, place));
      change.range = [series.place(change.axis, from), series.place(change.axis, to)];
    }
    Object.assign(this.choice, change);
    // A range is one of an axis, so the axis is told with it.
    if (change.range) this.choice.axis ??= before;
    this.written.ask();
    this.controls.show(this.choice);
    if ("range" in change) this.#look();
    this.fresh();
  }

  /** Every batch looks at the range of the address. */
  #look() {
    const { range } = this.choice;
    const looked = range && this.first && this.first.series.loaded ? { from: this.first.series.timeAt(this.kind, range[0]), to: this.first.series.timeAt(this.kind, range[1]) } : null;
    for (const batch of this.batches) {
      if (batch.series.loaded) batch.look(looked).catch((error) => this.fail(error));
    }
  }

  fail(error) {
    this.failure = error.message;
    this.fresh();
  }

  #batchOf(chart) {
    return this.batches.find((batch) => chart.fields.every((field) => batch.fields.includes(field))) ?? null;
  }

  #drop(batch) {
    batch.close();
    this.batches = this.batches.filter((one) => one !== batch);
  }

  /** Reads what charts near the screen need and nobody has read, several in one request; and draws them. */
  #need() {
    if (this.gone || !this.first || !this.first.series.loaded) return;
    let fields = [];
    const flush = () => {
      if (fields.length) this.#read(fields);
      fields = [];
    };
    for (const { chart } of this.grid.near()) {
      if (this.#batchOf(chart)) continue;
      if (fields.length + chart.fields.length > TOGETHER) flush();
      fields.push(...chart.fields);
    }
    flush();
    this.#forget();
    this.grid.near().forEach((card) => this.#draw(card));
  }

  #read(fields) {
    const batch = new Batch(this.run, fields, (one) => this.#arrived(one));
    batch.looked = this.first.looked;
    this.batches.push(batch);
    batch.load().catch((error) => {
      this.#drop(batch);
      this.fail(error);
    });
  }

  #forget() {
    const near = new Set(this.grid.near().map((card) => this.#batchOf(card.chart)));
    const far = this.batches.filter((batch, at) => at > 0 && !near.has(batch));
    far.slice(0, Math.max(0, this.batches.length - KEPT)).forEach((batch) => this.#drop(batch));
  }

  #fresh() {
    const { first } = this;
    if (this.gone || !first) return void (this.failure && say(this.note, this.failure));
    const { counts } = first.series;
    const known = [...COLUMNS.filter((name) => counts[name] > 0), ...this.labels];
    const key = JSON.stringify([known, this.choice.pins, this.choice.find]);
    if (first.series.loaded && this.key !== key) {
      this.key = key;
      this.charts = chartsOf(known);
      const sections = sectionsOf(this.charts, this.choice);
      this.grid.set(sections);
      this.controls.found(sections.reduce((sum, { charts }) => sum + charts.length, 0), this.charts.length);
    }
    this.controls.offer(first.series.choose().kinds, this.kind, this.#has());
    this.#need();
    this.#say();
    this.changed();
  }

  /** What there is to explain beside the lines. */
  #has() {
    const { series } = this.first;
    return { phase: series.phase.some((name) => name && name !== "output"), unit: series.arrivals().length > 0, gap: this.#gapsOf(series, null).length > 0 };
  }

  /** Gaps within a curve, and within the part of it that is looked at: elsewhere it has no place for them. */
  #gapsOf(series, looked) {
    const { time } = series;
    const [from, to] = looked ? [looked.from, looked.to] : [time[0], time[time.length - 1]];
    return this.gaps.filter((gap) => gap.to >= from && gap.from <= to);
  }

  #say() {
    if (!this.first.series.loaded && !this.failure) return;
    const curve = this.first.view();
    const points = curve.exact === true ? `${curve.time.length === 1 ? "1 point" : `${count(curve.time.length)} points`}, exact` : `${count(curve.time.length)} points of ${count(curve.exact.of)}, ${curve.exact.method}`;
    const part = this.first.closer ? ", of this part" : "";
    const { replaced } = this.first.series;
    const attempts = replaced ? `; ${count(replaced)} replaced by a resumed attempt` : "";
    const odd = curve.odd.length ? `; ${curve.odd.length} not finite (▲)` : "";
    const words = this.first.series.time.length ? `${points}${part}${attempts}${odd}. Drag to zoom, double click to see all.` : "No metrics yet. They appear as they arrive.";
    say(this.note, this.failure ?? words);
  }

  #options(card) {
    const over = (draw) => (u) => {
      const batch = this.#batchOf(card.chart);
      const view = batch && batch.view();
      if (!view || !view.loaded) return;
      draw(u, view, { kind: this.kind, gaps: this.#gapsOf(view, batch.looked), fields: card.chart.fields });
    };
    return { group: "run", behind: over(behind), above: over(above), onzoom: (range) => (range || this.choice.range) && this.choose({ range }) };
  }

  #draw(card) {
    const batch = this.#batchOf(card.chart);
    if (!batch || !batch.series.loaded) return;
    const { kind, choice } = this;
    const [view, { chart }] = [batch.view(), card];
    const x = view.axis(kind);
    const colours = coloursOf(chart.splits);
    let below = 0;
    const lines = chart.fields.map((label, at) => {
      const spread = view.spread;
      const columns = columnsOf({ x, values: view.values[label], low: spread ? view.low[label] : null, high: spread ? view.high[label] : null }, { weight: choice.smooth, log: choice.log });
      below += columns.below;
      return { label, stroke: colours[at], lost: isLost(view, label), ...columns };
    });
    const percent = chart.fields.every((label) => /(^|_)accuracy$/.test(label) && (view.best(label, Math.max) ?? 2) <= 1 && (view.best(label, Math.min) ?? -1) >= 0);
    this.grid.chartOf(card).set({ kind, x, isSpread: kind === "epoch" && !this.run.fraction, lines, range: choice.range, log: choice.log, percent });
    const odd = view.odd.filter(({ name }) => chart.fields.includes(name)).length;
    const exact = view.exact === true ? "exact" : `${count(view.time.length)} points of ${count(view.exact.of)}`;
    const { replaced } = batch.series;
    say(card.note, [exact, replaced && `${count(replaced)} replaced by a resumed attempt`, odd && `${count(odd)} not finite (▲)`, below && `${count(below)} at or below zero are not on the logarithmic scale`].filter(Boolean).join(" · "));
    card.note.title = view.exact === true ? "Each point is a row." : `Reduced to ${view.exact.method}.`;
  }

  #tools(chart) {
    const pinned = this.choice.pins.includes(chart.id);
    const pins = () => (pinned ? this.choice.pins.filter((id) => id !== chart.id) : [...this.choice.pins, chart.id]);
    return [
      h("button", { type: "button", class: "ghost small", "aria-pressed": String(pinned), title: pinned ? "Unpin" : "Pin to the top", "aria-label": `${pinned ? "Unpin" : "Pin"} ${chart.title}`, onclick: () => this.choose({ pins: pins() }) }, pinned ? "★" : "☆"),
      ...exportButtons({ runId: this.run.runId, chart, plot: () => this.grid.cards.get(chart.id)?.plot, fail: (error) => this.fail(error) }),
    ];
  }
}

/** Whether the newest value of a metric is not finite: what is behind it on the chart is older. */
function isLost(view, label) {
  const odd = view.odd.findLast(({ name }) => name === label);
  return Boolean(odd) && view.values[label].findLastIndex((value) => value !== null && value !== undefined) < odd.at;
}

const finite = (text) => (text !== null && text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : null);

/** What an address says about curves. What it does not say is left to the run, and what is out of bounds is not followed. */
export function readChoice(params) {
  const text = (name) => address.one(params, name);
  const [from, to] = [finite(text("from")), finite(text("to"))];
  return {
    axis: text("axis"),
    smooth: Math.min(Math.max(finite(text("smooth")) ?? 0, 0), 0.999),
    log: text("log") === "yes",
    range: from !== null && to !== null && from < to ? [from, to] : null,
    find: text("find") ?? "",
    pins: params.pin ?? [],
  };
}

function writeChoice({ axis, smooth, log, range, find, pins }) {
  const round = (value) => Number(value.toPrecision(12));
  address.update({ axis, smooth: smooth || null, log, from: range && String(round(range[0])), to: range && String(round(range[1])), find, pin: pins });
}

// The newest and the best value of the few metrics that matter most, and how far the run is.

import { clock, count, number, percent, statusOf } from "../base/format.js";
import { h, say, show } from "../base/dom.js";
import { better } from "../charts/metrics.js";
import * as runs from "../runs/list.js";

/** In one row on a wide page. */
const MOST = 6;
const NAMES = { train_loss: "Train loss", val_loss: "Validation loss", train_accuracy: "Train accuracy", val_accuracy: "Validation accuracy" };
/** In this order; then whatever else the run has. */
const FIRST = ["train_loss", "val_loss", "val_accuracy", "train_accuracy"];
const LAST = ["learning_rate", "hidden_units"];

/** The metrics that get one of `most` tiles, of those in the charts. */
function important(charts, known, most) {
  const fields = charts.flatMap((chart) => chart.fields).filter((name) => known(name));
  const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : LAST.includes(name) ? 2 * FIRST.length : FIRST.length);
  return fields.filter((name) => !LAST.includes(name)).sort((a, b) => rank(a) - rank(b)).slice(0, most);
}

/** How its best value is told; without a better one, how far it ranges. */
function bestOf(series, name, write) {
  const [low, high] = [series.best(name, Math.min), series.best(name, Math.max)];
  const way = better(name);
  if (way === null) return low === high ? "" : `${write(low)} to ${write(high)}`;
  return `best ${write(way === "min" ? low : high)}`;
}

export class Tiles {
  constructor() {
    this.box = h("section", { class: "tiles", "aria-label": "Newest values" });
    this.tiles = new Map();
  }

  /** Shows what the first curves of the run and its row say. */
  set(series, charts, run) {
    const at = series.time.length - 1;
    const places = at >= 0 ? this.#places(series, at, run) : [];
    if (run) places.push({ label: "Duration", value: runs.ran(run), note: run.end_time ? `ended ${clock(run.end_time)}` : statusOf(run) === "stale" ? `silent since ${clock(run.last_event_time)}` : "so far" });
    const entries = [];
    for (const name of important(charts, (field) => (series.counts[field] ?? 0) > 0, MOST - places.length)) {
      const share = /^(train|val)_accuracy$/.test(name) && (series.best(name, Math.max) ?? 0) <= 1;
      const write = share ? percent : number;
      entries.push({ label: NAMES[name] ?? name, value: told(write, series.newest(name)), note: bestOf(series, name, write) });
    }
    this.#show([...entries, ...places]);
  }

  #places(series, at, run) {
    const entries = [];
    const newest = (column) => column.findLast((value) => value !== null) ?? null;
    const phase = series.phase[at] ? `${series.phase[at]} phase` : "";
    if (series.withEpoch) entries.push({ label: "Epoch", value: count(Number(newest(series.epochs).toFixed(3))), note: phase || (series.withStep ? `step ${count(newest(series.steps))}` : "") });
    else if (series.withStep) entries.push({ label: "Step", value: count(newest(series.steps)), note: phase });
    if (series.hidden[at] !== null) entries.push({ label: "Hidden units", value: count(series.hidden[at]), note: run && run.total_parameters ? `${count(run.total_parameters)} parameters` : "" });
    return entries;
  }

  /** Tiles that stay are only given other words. */
  #show(entries) {
    const labels = entries.map(({ label }) => label);
    const key = JSON.stringify(labels);
    if (this.key !== key) {
      this.key = key;
      this.tiles = new Map(labels.map((label) => {
        const [value, note] = [h("b", {}, ""), h("small", {}, "")];
        return [label, { value, note, box: h("div", { class: "tile" }, h("span", { title: label }, label), value, note) }];
      }));
      show(this.box, [...this.tiles.values()].map(({ box }) => box));
    }
    for (const { label, value, note } of entries) {
      say(this.tiles.get(label).value, value);
      say(this.tiles.get(label).note, note);
    }
  }
}

/** A value that is not finite is told as it is. */
const told = (write, value) => (typeof value === "string" ? value : write(value));

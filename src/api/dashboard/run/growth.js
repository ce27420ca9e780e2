// The network of a run and how it grew. A run without a network has neither card.

import { get, newestOnly, optional } from "../base/api.js";
import { h, say, show } from "../base/dom.js";
import { count, number } from "../base/format.js";
import { draw, parse } from "./network.js";

const HEADS = ["Units", "Epoch", "Correlation", "Loss then", "Change"];

export class Growth {
  /** `series()` is the curve of the run, for daemons that do not tell the growth. */
  constructor(runId, series) {
    this.runId = runId;
    this.series = series;
    this.snapshots = [];
    /** The snapshot that somebody looks at; null: the newest. */
    this.shown = null;
    this.asking = { network: newestOnly(), growth: newestOnly() };
    this.#build();
  }

  #build() {
    this.drawing = h("div", { class: "drawing" });
    this.slider = h("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Snapshot of the network", oninput: (event) => {
      this.shown = Number(event.target.value) === this.snapshots.length - 1 ? null : Number(event.target.value);
      this.#showNetwork();
    } });
    this.caption = h("p", { class: "caption" }, "");
    this.rows = h("tbody", {});
    const head = (text) => h("div", { class: "card-head" }, h("h2", {}, text));
    this.network = h("section", { class: "card" }, head("Network"), this.drawing, this.slider, this.caption);
    this.growth = h("section", { class: "card" }, head("Growth"),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Growth of the network" }, h("table", {}, h("thead", {}, h("tr", {}, HEADS.map((text) => h("th", { scope: "col" }, text)))), this.rows)));
    this.box = h("div", { class: "pair" });
  }

  /** Only the cards that have something to show are in the document. */
  #place() {
    const cards = [this.snapshots.length > 0 && this.network, this.rows.children.length > 0 && this.growth].filter(Boolean);
    const there = [...this.box.children];
    if (cards.length !== there.length || cards.some((card, at) => card !== there[at])) show(this.box, cards);
  }

  async load() {
    await Promise.all([this.#loadNetwork(), this.#loadGrowth()]);
  }

  async #loadNetwork() {
    const { answer, newest } = await this.asking.network(optional(get(`api/runs/${this.runId}/topology`, { limit: 100 }), { topology: [] }));
    if (!newest) return;
    const last = answer.topology[0];
    // What the stream brought may not be in the store yet.
    this.snapshots = [...answer.topology.reverse(), ...this.snapshots.filter((row) => !last || row.timestamp > last.timestamp)];
    this.#showNetwork();
  }

  async #loadGrowth() {
    const { answer, newest } = await this.asking.growth(optional(get(`api/runs/${this.runId}/growth`), null));
    if (!newest) return;
    const levels = answer ? answer.levels : this.#arrivals();
    // Without a unit nothing has grown.
    const rows = (levels.some((level) => level.hidden_units > 0) ? levels.slice() : []).reverse().map((level) => {
      const known = level.change !== null && level.change !== undefined;
      const less = known && level.change < 0;
      const change = known ? `${less ? "−" : "+"}${number(Math.abs(level.change), 3)}` : "–";
      return h("tr", {}, [count(level.hidden_units), count(level.epoch), number(level.correlation, 3), number(level.before)].map((text) => h("td", {}, text)), h("td", { class: known ? (less ? "good" : "worse") : "" }, change));
    });
    show(this.rows, rows);
    this.#place();
  }

  #arrivals() {
    const series = this.series();
    if (!series) return [];
    const losses = series.values.train_loss ?? [];
    return series.arrivals().map(({ at, units }) => ({ hidden_units: units, epoch: series.epochs[at], before: losses[at - 1], change: null }));
  }

  /** A snapshot of the stream; whether it must be read instead. */
  add(row) {
    if (row.topology_json === null) return true;
    const last = this.snapshots[this.snapshots.length - 1];
    if (!last || row.timestamp > last.timestamp) this.snapshots.push(row);
    this.#showNetwork();
    return false;
  }

  #showNetwork() {
    const last = this.snapshots.length - 1;
    this.slider.max = Math.max(0, last);
    this.slider.value = this.shown ?? Math.max(0, last);
    this.slider.hidden = last < 1;
    const row = this.snapshots[this.shown ?? last];
    if (row) {
      const network = parse(row);
      draw(this.drawing, network);
      say(this.caption, `${network.inputs} → ${network.hidden} → ${network.outputs}, epoch ${count(network.epoch)}, ${count(network.parameters)} parameters, snapshot ${(this.shown ?? last) + 1} of ${this.snapshots.length}`);
    }
    this.#place();
  }
}

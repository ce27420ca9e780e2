// One metric of several runs over each other.

import * as address from "../base/address.js";
import { get, newestOnly, optional } from "../base/api.js";
import { h, say, show } from "../base/dom.js";
import { elapsed } from "../base/elapsed.js";
import { count, runName, seconds } from "../base/format.js";
import { AXES } from "../charts/axes.js";
import { Chart } from "../charts/chart.js";
import { settled } from "../charts/frames.js";
import { columnsOf } from "../charts/lines.js";
import { COLUMNS, chartsOf, labelOf } from "../charts/metrics.js";
import { readChoice } from "../run/curves.js";
import { axisSegments, scaleSegments, smoothing } from "../run/controls.js";
import { aligned, isReduced, placed } from "./aligned.js";
import { limit } from "./limit.js";

const POINTS = 1500;
/** Extremes of more runs would hide each other. */
const BANDS_MOST = 4;
const COLOURS = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7", "--c8"];
const DASHES = [undefined, [6, 4], [2, 3]];
const FINAL = { train_loss: "final_train_loss", val_loss: "final_val_loss", train_accuracy: "final_train_accuracy", val_accuracy: "final_val_accuracy", hidden_units: "total_hidden_units" };

/** Rows an epoch beyond which steps are the better axis. */
const MANY_ROWS = 2.5;

/** How the line of the n-th run looks. */
export const strokeOf = (n) => ({ stroke: COLOURS[n % COLOURS.length], dash: DASHES[Math.floor(n / COLOURS.length) % DASHES.length] });

export class CompareCurves {
  /** `answered` is told each answer of the daemon, null without runs, and how many runs fit, null when it does not tell. */
  constructor(answered) {
    this.answered = answered;
    const { params } = address.current();
    this.choice = { ...readChoice(params), field: address.one(params, "field") };
    this.written = settled(() => this.#write());
    this.ids = [];
    this.details = new Map();
    this.asking = newestOnly();
    this.note = h("p", { class: "curve-note", role: "status" }, "Loading…");
    this.fields = h("select", { onchange: (event) => this.choose({ field: event.target.value }) });
    this.axes = axisSegments(Object.keys(AXES), (axis) => this.choose({ axis }));
    this.scale = scaleSegments((log) => this.choose({ log }));
    this.whole = h("button", { type: "button", class: "ghost small", hidden: true, onclick: () => this.choose({ range: null }) }, "Whole runs");
    this.chart = new Chart({ title: "Comparison", height: 380, onzoom: (range) => (range || this.choice.range) && this.choose({ range }) });
    this.plot = h("div", { class: "chart compared-chart" }, this.chart.box);
    this.box = h("section", { class: "card curves", "aria-label": "Curves" },
      h("div", { class: "card-head" }, h("h2", {}, "Curves"), h("div", { class: "bar" }, this.whole)),
      h("div", { class: "bar" }, h("label", { class: "choice" }, h("span", {}, "Metric"), this.fields), this.axes.box, smoothing(this.choice.smooth, (smooth) => this.choose({ smooth })).box, this.scale.box),
      this.note, this.plot);
    this.#controls();
  }

  close() {
    this.gone = true;
    this.written.stop();
    this.chart.destroy();
  }

  /** Shows these runs. */
  async set(ids) {
    this.ids = ids;
    await this.load();
  }

  /** Reads the curves again. */
  async load() {
    this.plot.hidden = this.ids.length === 0;
    try {
      const most = await limit();
      if (this.ids.length === 0) {
        this.answer = null;
        this.answered(null, most);
        return say(this.note, `Tick runs in the list to lay their curves over each other${most === null ? "" : `: at most ${most}`}.`);
      }
      const ids = this.ids.slice(0, most ?? this.ids.length);
      const told = this.answer ? () => {} : elapsed(this.note, "Reading all rows of these runs:");
      const { answer, newest } = await this.asking(this.#read(ids)).finally(told);
      if (!newest || this.gone) return undefined;
      this.answer = answer;
      this.answered(answer, most);
      this.#controls();
      this.#draw();
    } catch (error) {
      if (!this.gone) say(this.note, error.status === 404 && error.message === "Run not found" ? "One of these runs is not in the store." : error.message);
    }
    return undefined;
  }

  async #read(ids) {
    await Promise.all(ids.map(async (id) => {
      const detail = await optional(get(`api/runs/${id}`, { limit: 0, count: "none" }), null);
      if (detail) this.details.set(id, detail);
    }));
    this.#offer(ids);
    const ask = (by) => get("api/compare", { run_id: ids, field: this.field, by, max_points: POINTS });
    const chosen = this.choice.axis;
    if (chosen in AXES) return { kind: chosen, ...(await ask(chosen === "relative" || chosen === "wall" ? "time" : chosen)) };
    const byEpoch = await ask("epoch");
    const rows = byEpoch.curves.reduce((sum, curve) => sum + curve.of, 0);
    const places = byEpoch.x.length * byEpoch.width * ids.length;
    if (byEpoch.x.length > 0 && rows <= MANY_ROWS * places) return { kind: "epoch", ...byEpoch };
    const byStep = await ask("step");
    const everywhere = byStep.curves.every((curve) => curve.last.some((value) => value !== null));
    if (byStep.x.length > 0 && (everywhere || byEpoch.x.length === 0)) return { kind: "step", ...byStep };
    return byEpoch.x.length > 0 ? { kind: "epoch", ...byEpoch } : { kind: "relative", ...(await ask("time")) };
  }

  /** The metrics of all of these runs, and the one that is shown. */
  #offer(ids) {
    const details = ids.map((id) => this.details.get(id)).filter(Boolean);
    const columns = COLUMNS.filter((name) => !(name in FINAL) || details.some(({ run }) => run[FINAL[name]] !== null || (run.non_finite || []).includes(FINAL[name])));
    const names = chartsOf([...columns, ...details.flatMap(({ metric_names }) => (metric_names || []).map(labelOf))]).flatMap(({ fields }) => fields);
    const first = names.find((name) => name !== "learning_rate") ?? "train_loss";
    this.field = this.choice.field ?? first;
    if (!names.includes(this.field)) names.unshift(this.field);
    const key = names.join("\n");
    if (this.key !== key) {
      this.key = key;
      show(this.fields, names.map((name) => h("option", { value: name }, name)));
    }
    this.fields.value = this.field;
  }

  choose(change) {
    const reread = "field" in change || "axis" in change;
    if ("axis" in change) change.range = null;
    Object.assign(this.choice, change);
    const { axis, range } = this.choice;
    // A range is one of an axis, so the axis is told with it.
    this.choice.axis = axis ?? (range && this.answer ? this.answer.kind : null);
    this.written.ask();
    this.#controls();
    if (reread) this.load();
    else this.#draw();
  }

  #write() {
    const { field, axis, smooth, log, range } = this.choice;
    address.update({ field, axis, smooth: smooth || null, log, from: range && String(range[0]), to: range && String(range[1]) });
  }

  #controls() {
    const { log, range } = this.choice;
    this.axes.press(this.choice.axis ?? this.answer?.kind);
    this.scale.press(log);
    this.whole.hidden = range === null;
  }

  #draw() {
    const { answer } = this;
    if (!answer) return;
    const { smooth, log, range } = this.choice;
    const starts = answer.kind === "wall" ? new Map(this.ids.map((id) => [id, seconds(this.details.get(id)?.run.start_time) ?? 0])) : null;
    const { x, columns } = aligned(placed(answer, starts));
    const bands = answer.curves.length <= BANDS_MOST && isReduced(answer);
    let below = 0;
    const lines = answer.curves.map((curve, at) => {
      const [values, low, high] = columns[at];
      const drawn = columnsOf({ x, values, low: bands ? low : null, high: bands ? high : null }, { weight: smooth, log });
      below += drawn.below;
      return { label: runName(this.details.get(curve.run_id)?.run ?? curve), ...strokeOf(at), ...drawn };
    });
    const unique = new Map();
    for (const line of lines) {
      const seen = unique.get(line.label) ?? 0;
      unique.set(line.label, seen + 1);
      if (seen) line.label = `${line.label} (${seen + 1})`;
    }
    this.chart.title = `${answer.field} of ${lines.length} runs`;
    this.chart.set({ kind: answer.kind, x, lines, range, log, percent: false });
    this.#say(answer, below);
  }

  #say(answer, below) {
    const sum = (name) => answer.curves.reduce((total, curve) => total + curve[name], 0);
    const without = answer.curves.filter((curve) => curve.last.every((value) => value === null)).length;
    say(this.note, [
      `${count(sum("of"))} rows`,
      isReduced(answer) && `a point of several rows shows the last value${answer.curves.length <= BANDS_MOST ? " and the range" : ""}`,
      without > 0 && `${count(without)} without values of this metric on this axis`,
      sum("non_finite") > 0 && `${count(sum("non_finite"))} not finite`,
      sum("left_out") > 0 && `${count(sum("left_out"))} rows have no place on this axis`,
      below > 0 && `${count(below)} at or below zero are not on the logarithmic scale`,
    ].filter(Boolean).join("; ").concat("."));
  }
}

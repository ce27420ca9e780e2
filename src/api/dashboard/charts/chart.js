// One chart over uPlot: sized by its box, coloured by the style sheet, drawn again when either changes.

import { h, colour } from "../base/dom.js";
import { number } from "../base/format.js";
import { marks, place } from "./axes.js";
import { forget, soon } from "./frames.js";
import { logMarks, logRange } from "./lines.js";

const HEIGHT = 208;
const charts = new Set();
/** Only where somebody points is shared: what is dragged is told to the page, which tells every chart. */
const SHARED = ["mousemove", "mouseleave"];

const padded = (low, high) => (low === null || low === undefined ? [0, 1] : low === high ? [low - 0.5, high + 0.5] : [low, high]);

export class Chart {
  /**
   * Charts of one `group` share their cursor, by the place on the axis. `behind(u)` and `above(u)` draw under and over the lines;
   * `onzoom` is told the range that somebody chooses, or null for everything.
   */
  constructor({ title, height = HEIGHT, group, behind, above, onzoom = () => {} }) {
    Object.assign(this, { title, height, group, behind, above, onzoom });
    this.content = null;
    this.box = h("div", { class: "plot" });
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(this.box);
    charts.add(this);
  }

  destroy() {
    charts.delete(this);
    forget(this);
    this.observer.disconnect();
    if (this.plot) this.plot.destroy();
    this.plot = null;
    this.gone = true;
  }

  /**
   * Draws `{kind, x, lines, range, log, percent}`. A line is `{label, stroke, dash, main, raw, low, high, few, lost}`; `range` is the
   * part of the axis that is looked at, null for all of it; `lost`: its newest value is not finite, and has no place on the chart.
   */
  set(content) {
    this.content = content;
    soon(this, () => this.#apply());
  }

  /** With the colours of now. */
  recolour() {
    this.shape = null;
    if (this.content) soon(this, () => this.#apply());
  }

  #resize() {
    if (this.gone || this.box.clientWidth === 0 || !this.content) return;
    if (!this.plot) soon(this, () => this.#apply());
    else if (this.plot.width !== this.box.clientWidth) this.plot.setSize({ width: this.box.clientWidth, height: this.height });
  }

  #apply() {
    if (this.gone || this.box.clientWidth === 0) return;
    const { kind, x, lines, log, percent } = this.content;
    this.columns = lines.flatMap((line) => [
      { line, values: line.main, role: "main" },
      line.raw && { line, values: line.raw, role: "raw" },
      line.low && { line, values: line.low, role: "low" },
      line.high && { line, values: line.high, role: "high" },
    ]).filter(Boolean);
    // Behind the others first, so that what is to be read is on top.
    const order = { low: 0, high: 0, raw: 1, main: 2 };
    this.columns.sort((a, b) => order[a.role] - order[b.role]);
    const data = [x, ...this.columns.map(({ values }) => values)];
    const shape = JSON.stringify([kind, log, percent, this.columns.map(({ line, role }) => [line.label, line.stroke, line.dash, role])]);
    if (this.plot && shape === this.shape) {
      this.plot.setData(data);
      this.#newest();
      return;
    }
    this.shape = shape;
    const hidden = this.#hidden();
    if (this.plot) this.plot.destroy();
    this.plot = new uPlot(this.#options(hidden), data, this.box);
    this.plot.root.setAttribute("role", "img");
    this.plot.root.setAttribute("aria-label", this.title);
    this.#newest();
  }

  /** Labels of the lines that somebody has switched off in the legend. */
  #hidden() {
    if (!this.plot) return [];
    return this.plot.series.slice(1).filter((series) => series.show === false).map((series) => series.label);
  }

  /** While nobody points at anything, the legend tells the newest values. */
  #newest() {
    const { plot } = this;
    if (plot.cursor.idx !== null && plot.cursor.idx !== undefined) return;
    const lastOf = (values) => {
      let at = values.length - 1;
      while (at > 0 && (values[at] === null || values[at] === undefined)) at -= 1;
      return at;
    };
    this.idle = true;
    plot.setLegend({ idxs: plot.data.map(lastOf) }, false);
    this.idle = false;
  }

  #series(column, hidden) {
    const { line, role } = column;
    const isMain = role === "main";
    const value = (v) => (v === null || v === undefined ? "–" : this.content.percent ? `${(v * 100).toFixed(1)} %` : number(v));
    const raw = (at) => {
      const found = this.columns.find((one) => one.role === "raw" && one.line.label === line.label);
      return found && at !== null && at !== undefined && found.values[at] !== null ? ` (${value(found.values[at])})` : "";
    };
    const stroke = colour(line.stroke);
    return {
      label: line.label,
      show: !(isMain && hidden.includes(line.label)),
      stroke: isMain ? stroke : role === "raw" ? `${stroke}59` : undefined,
      width: isMain ? 1.6 : role === "raw" ? 1.2 : 0,
      dash: line.dash,
      class: isMain ? undefined : "band",
      points: { show: () => isMain && this.content.lines.some((one) => one.label === line.label && one.few), size: 6 },
      value: (u, v, n, at) => (isMain && this.idle && this.content.lines.some((one) => one.label === line.label && one.lost) ? "not finite" : value(v) + (isMain ? raw(at) : "")),
      spanGaps: true,
    };
  }

  #bands() {
    return this.content.lines.filter((line) => line.low).map((line) => {
      const of = (role) => this.columns.findIndex((one) => one.role === role && one.line === line) + 1;
      return { series: [of("high"), of("low")], fill: `${colour(line.stroke)}${line.raw ? "2e" : "5c"}` };
    });
  }

  #options(hidden) {
    const { kind, log } = this.content;
    const axis = { stroke: colour("--muted"), font: "11px system-ui, sans-serif", grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false } };
    return {
      width: this.box.clientWidth,
      height: this.height,
      padding: [10, 18, 0, 0],
      series: [{ label: kind === "wall" || kind === "relative" ? "time" : kind, value: (u, v) => place(kind, v, this.content.isSpread) }, ...this.columns.map((column) => this.#series(column, hidden))],
      bands: this.#bands(),
      scales: {
        x: { time: kind === "wall", range: (u, low, high) => this.content.range ?? padded(low, high) },
        y: log ? { distr: 3, range: (u, low, high) => logRange(low, high) } : {},
      },
      axes: [
        { ...axis, size: 28, space: 64, ...marks(kind, this.content.isSpread) },
        {
          ...axis,
          size: 54,
          ...(log ? { splits: (u, n, low, high) => logMarks(low, high), filter: (u, splits) => splits } : {}),
          values: (u, values) => values.map((v) => (v === null ? "" : this.content.percent ? `${Number((v * 100).toFixed(2))} %` : number(v, 3))),
        },
      ],
      cursor: {
        sync: this.group ? { key: this.group, filters: { pub: (type) => SHARED.includes(type) } } : undefined,
        hover: { skip: [null, undefined] },
        drag: { x: true, y: false, dist: 5, setScale: false },
        bind: { dblclick: () => () => this.onzoom(null) },
        points: { size: (u, n) => (this.columns[n - 1].role === "main" ? 6 : 0) },
      },
      legend: { live: true, markers: { width: 2 } },
      hooks: {
        drawClear: [(u) => this.behind && this.behind(u)],
        draw: [(u) => this.above && this.above(u)],
        setCursor: [(u) => (u.cursor.left < 0 || u.cursor.left === null) && this.plot === u && this.#newest()],
        setSelect: [(u) => this.#selected(u)],
      },
    };
  }

  #selected(u) {
    const { left, width } = u.select;
    if (width < 5) return;
    u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.onzoom([u.posToVal(left, "x"), u.posToVal(left + width, "x")]);
  }
}

/** Every chart with the colours of now. */
export function recolour() {
  charts.forEach((chart) => chart.recolour());
}

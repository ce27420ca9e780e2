// One chart over uPlot: sized by its box, coloured by the style sheet, drawn again when either changes.

import { h, colour, coalesced } from "./dom.js";
import { number, clock } from "./format.js";

const HEIGHT = 240;
/** Ranges that differ by less, as a share of their width, are the same. */
const SAME = 1e-3;
const charts = new Set();

const logTicks = (u, splits) => splits.map((value) => (Math.abs(Math.log10(value) % 1) < 1e-9 ? value : null));

/** The time on an axis of seconds since 1970, or a count. */
const along = (by) => (by === "time" ? undefined : (u, values) => values.map((value) => number(value, 6)));

export class Chart {
  /**
   * `lines`: `{label, stroke, dash, band}` for each column behind the first; `band` names the pair of columns that hold the
   * extremes, which are filled between and not listed. `onzoom` is told the range that somebody looks at, or null.
   */
  constructor({ title, lines, height = HEIGHT, group, hooks = {}, percent = false, onzoom = () => {} }) {
    Object.assign(this, { title, lines, height, group, hooks, percent, onzoom });
    this.by = "epoch";
    this.log = false;
    /** What somebody looks at; null: everything. */
    this.range = null;
    this.data = [[], ...lines.map(() => [])];
    this.box = h("div", { class: "plot" });
    this.redraw = coalesced(() => this.#apply());
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(this.box);
    charts.add(this);
  }

  destroy() {
    charts.delete(this);
    this.observer.disconnect();
    if (this.plot) this.plot.destroy();
    this.plot = null;
    this.gone = true;
  }

  set(data) {
    this.data = data;
    this.redraw();
  }

  /** Other settings need another plot. */
  change(settings) {
    Object.assign(this, settings);
    this.range = null;
    this.onzoom(null);
    this.#build();
  }

  /** Looks at this range. */
  zoom(range) {
    this.range = range;
    if (this.plot) this.plot.setScale("x", { min: range[0], max: range[1] });
  }

  /** Somebody has chosen a range, or the plot has taken all of its data. */
  #scaled(u) {
    const { min, max } = u.scales.x;
    const x = u.data[0];
    if (min === null || min === undefined || x.length === 0) return;
    const whole = min <= x[0] && max >= x[x.length - 1];
    const known = this.range && Math.max(Math.abs(this.range[0] - min), Math.abs(this.range[1] - max)) <= (max - min) * SAME;
    if (whole ? this.range === null : known) return;
    this.range = whole ? null : [min, max];
    this.onzoom(this.range);
  }

  #resize() {
    if (this.gone || this.box.clientWidth === 0) return;
    if (!this.plot) this.#build();
    else this.plot.setSize({ width: this.box.clientWidth, height: this.height });
  }

  #apply() {
    if (this.gone) return;
    if (!this.plot) return void this.#build();
    // Somebody who has zoomed in looks at something: it stays where it is.
    this.plot.setData(this.data, this.range === null);
    if (this.range) this.zoom(this.range);
    this.#newest();
  }

  /** While nobody points at anything, the legend tells the newest values. */
  #newest() {
    const { plot } = this;
    if (plot.cursor.idx === null || plot.cursor.idx === undefined) plot.setLegend({ idx: this.data[0].length - 1 }, false);
  }

  #build() {
    if (this.gone || this.box.clientWidth === 0) return;
    if (this.plot) this.plot.destroy();
    this.plot = new uPlot(this.#options(), this.data, this.box);
    this.#newest();
    this.plot.root.setAttribute("role", "img");
    this.plot.root.setAttribute("aria-label", this.title);
  }

  #options() {
    const axis = {
      stroke: colour("--muted"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: colour("--grid"), width: 1 },
      ticks: { show: false },
    };
    const value = this.percent ? (v) => (v === null ? "–" : `${(v * 100).toFixed(1)} %`) : (v) => number(v);
    const series = this.lines.map((line) => ({
      label: line.label,
      stroke: line.hidden ? undefined : colour(line.stroke),
      width: line.hidden ? 0 : 1.6,
      dash: line.dash,
      points: { show: (u) => !line.hidden && u.data[0].length < 3 },
      value: (u, v) => value(v ?? null),
      spanGaps: true,
    }));
    const bands = this.lines
      .map((line, at) => line.band && { series: [line.band + 1, line.band], fill: `${colour(this.lines[at].stroke)}66` })
      .filter(Boolean);
    return {
      width: this.box.clientWidth,
      height: this.height,
      padding: [10, 22, 0, 0],
      series: [{ label: this.by === "time" ? "time" : this.by, value: (u, v) => (v === null ? "–" : this.by === "time" ? clock(v * 1000) : number(v, 7)) }, ...series],
      bands,
      scales: {
        x: { time: this.by === "time" },
        y: this.log ? { distr: 3 } : this.percent ? { range: (u, low, high) => [Math.max(0, low - 0.03), Math.min(1.02, high + 0.03)] } : {},
      },
      axes: [
        { ...axis, size: 30, values: along(this.by), space: 60 },
        {
          ...axis,
          size: 52,
          ...(this.log ? { filter: logTicks } : {}),
          values: (u, values) => values.map((v) => (v === null ? "" : this.percent ? `${Math.round(v * 100)} %` : number(v, 3))),
        },
      ],
      cursor: {
        sync: this.group ? { key: this.group } : undefined,
        drag: { x: true, y: false, dist: 5 },
        points: { size: 6 },
      },
      legend: { live: true, markers: { width: 2 } },
      hooks: {
        drawClear: [(u) => this.hooks.behind && this.hooks.behind(u)],
        draw: [(u) => this.hooks.above && this.hooks.above(u)],
        ready: [(u) => hideBands(u, this.lines)],
        setScale: [(u, scale) => scale === "x" && this.plot === u && this.#scaled(u)],
      },
    };
  }
}

/** Extremes are drawn, not listed. */
function hideBands(u, lines) {
  const rows = u.root.querySelectorAll(".u-legend .u-series");
  lines.forEach((line, at) => line.hidden && rows[at + 1] && rows[at + 1].classList.add("band"));
}

/** Every chart with the colours of now. */
export function recolour() {
  charts.forEach((chart) => chart.change({}));
}

// One run: its numbers, curves, network, growth and events.

import { h, show, say, coalesced } from "./dom.js";
import { get, newestOnly, optional, path } from "./api.js";
import { clock, count, date, number, percent, runName, short, statusOf } from "./format.js";
import { Chart } from "./chart.js";
import { above, behind } from "./overlays.js";
import { draw as drawNetwork, parse } from "./network.js";
import { Series } from "./series.js";
import { live, stored } from "./stream.js";
import * as runs from "./runs.js";

const EVENTS = 200;
const GROWTH_MS = 3000;
/** Between two readings of the whole curve that the stream asks for; and the longest, while the store stays behind. */
const CURVE_MS = 3000;
const CURVE_MOST_MS = 24000;

let series = null;
let charts = [];
let parts = null;
let leave = [];
let by = "epoch";
let log = false;
let snapshots = [];
let shown = null;
let renewing = null;
/** The number of hidden units that the stream told last. */
let units = null;
const asking = { network: newestOnly(), growth: newestOnly(), events: newestOnly() };
/** Whether the curve is being read again, when it may be next, and whether it must be. */
let curve = { reading: false, resting: null, wanted: false, pause: CURVE_MS };
/** The moments between which somebody looks more closely, and the curve between them when there is more to see of it. */
let looked = null;
let closer = null;

const view = () => closer ?? series;

const lines = (base, train, val) => [
  { label: `train ${base}`, stroke: "--train", field: train },
  { label: `val ${base}`, stroke: "--val", field: val },
  { hidden: true, label: "", stroke: "--train", band: 3, extreme: "low", field: train },
  { hidden: true, label: "", stroke: "--train", extreme: "high", field: train },
  { hidden: true, label: "", stroke: "--val", band: 5, extreme: "low", field: val },
  { hidden: true, label: "", stroke: "--val", extreme: "high", field: val },
];

function makeChart(title, base, fields, isPercent) {
  const chart = new Chart({
    title,
    lines: lines(base, ...fields),
    group: "run",
    percent: isPercent,
    hooks: { behind: (u) => series && series.loaded && behind(u, view(), by), above: (u) => series && series.loaded && above(u, view(), by, fields) },
    onzoom: look,
  });
  chart.feed = () => {
    const shown = view();
    chart.set([
      shown.axis(by),
      ...chart.lines.map((line) => (line.extreme ? (shown.spread ? shown[line.extreme][line.field] : []) : shown.values[line.field])).map((column) => (column.length ? column : new Array(shown.time.length).fill(null))),
    ]);
  };
  return chart;
}

/** Somebody looks at a range of the axis, or at everything again. */
function look(range) {
  if (!series || !parts || (range === null && !looked)) return;
  parts.whole.hidden = range === null;
  if (range === null) {
    [looked, closer] = [null, null];
    // Both charts look at the same.
    charts.forEach((chart) => {
      chart.range = null;
    });
    return fresh();
  }
  looked = { from: view().timeAt(by, range[0]), to: view().timeAt(by, range[1]) };
  charts.forEach((chart) => chart.zoom(range));
  lookCloser().catch((error) => say(parts.note, error.message));
}

/** Reads what is looked at as closely as the daemon gives it; `again` when it may have changed. */
async function lookCloser(again = false) {
  if (!looked || (!again && closer && closer.exact === true && closer.covers(looked.from, looked.to))) return fresh();
  const mine = looked;
  // Whoever sees every row sees everything.
  const part = series.exact === true ? null : series.part(mine.from, mine.to);
  if (part) await part.load();
  if (looked !== mine || !series) return undefined;
  closer = part;
  const range = [view().place(by, mine.from), view().place(by, mine.to)];
  charts.forEach((chart) => {
    chart.range = range;
  });
  return fresh();
}

const tile = (label) => {
  const value = h("b", {}, "–");
  const note = h("small", {}, "");
  return { box: h("div", { class: "tile" }, h("span", {}, label), value, note), value, note };
};

function header(id) {
  const name = h("h1", {}, short(id));
  const status = h("span", { class: "badge", role: "status", "aria-live": "polite" }, "");
  const meta = h("p", { class: "meta" }, "");
  const formats = [["CSV", "csv"], ["JSON", "json"], ["NDJSON", "ndjson"]].map(([label, format]) =>
    h("a", { href: path("api/export", { run_id: id, format }), download: `${short(id)}.${format}` }, label));
  return { name, status, meta, box: h("div", { class: "head" }, h("div", { class: "title" }, name, status), meta, h("div", { class: "exports" }, h("span", {}, "Export"), formats)) };
}

function toggle(label, options, current, choose) {
  const box = h("div", { class: "segments", role: "group", "aria-label": label }, options.map(([value, text]) =>
    h("button", { type: "button", "aria-pressed": String(value === current), onclick: (event) => {
      [...box.children].forEach((child) => child.setAttribute("aria-pressed", String(child === event.currentTarget)));
      choose(value);
    } }, text)));
  return box;
}

function build(box, id) {
  const tiles = { loss: tile("Train loss"), val: tile("Validation loss"), accuracy: tile("Validation accuracy"), epoch: tile("Epoch"), units: tile("Hidden units"), rows: tile("Time") };
  const head = header(id);
  const lossChart = makeChart("Loss", "loss", ["train_loss", "val_loss"], false);
  const accuracyChart = makeChart("Accuracy", "accuracy", ["train_accuracy", "val_accuracy"], true);
  charts = [lossChart, accuracyChart];
  const note = h("p", { class: "curve-note" }, "Loading…");
  const network = h("div", { class: "drawing" });
  const slider = h("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Snapshot of the network", oninput: (event) => {
    shown = Number(event.target.value) === snapshots.length - 1 ? null : Number(event.target.value);
    showNetwork();
  } });
  const caption = h("p", { class: "caption" }, "");
  const growth = h("tbody", {});
  const events = h("ol", { class: "events" });
  const gaps = h("ul", { class: "gaps" });
  const whole = h("button", { type: "button", class: "ghost small", hidden: true, onclick: () => look(null) }, "Whole run");
  const controls = h("div", { class: "bar" },
    toggle("Horizontal axis", [["epoch", "Epoch"], ["time", "Time"]], by, (value) => {
      by = value;
      charts.forEach((chart) => chart.change({ by }));
      charts.forEach((chart) => chart.feed());
    }),
    toggle("Scale of the loss", [[false, "Linear"], [true, "Log"]], log, (value) => {
      log = value;
      lossChart.change({ log });
    }),
    whole,
    h("span", { class: "keys" }, h("i", { class: "key phase" }), "candidate phase", h("i", { class: "key unit" }), "unit added", h("i", { class: "key gap" }), "gap"),
  );
  parts = { tiles, head, note, whole, network, slider, caption, growth, events, gaps };
  show(box, head.box,
    h("section", { class: "tiles", "aria-label": "Newest values" }, Object.values(tiles).map(({ box: one }) => one)),
    h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Curves"), controls), note,
      h("h3", {}, "Loss"), lossChart.box, h("h3", {}, "Accuracy"), accuracyChart.box),
    h("div", { class: "pair" },
      h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Network")), network, slider, caption),
      h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Growth")),
        h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Growth of the network" }, h("table", {}, h("thead", {}, h("tr", {}, ["Units", "Epoch", "Correlation", "Loss then", "Change"].map((text) => h("th", { scope: "col" }, text)))), growth)))),
    h("div", { class: "pair" },
      h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Events")), events),
      h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "What is missing")), gaps)),
  );
}

const fresh = coalesced(() => {
  if (!series || !parts) return;
  charts.forEach((chart) => chart.feed());
  const { tiles, note } = parts;
  const [loss, val, accuracy] = ["train_loss", "val_loss", "val_accuracy"].map((name) => series.newest(name));
  say(tiles.loss.value, number(loss));
  say(tiles.loss.note, `best ${number(series.best("train_loss", Math.min))}`);
  say(tiles.val.value, number(val));
  say(tiles.val.note, `best ${number(series.best("val_loss", Math.min))}`);
  say(tiles.accuracy.value, percent(accuracy));
  say(tiles.accuracy.note, `best ${percent(series.best("val_accuracy", Math.max))}`);
  const at = series.time.length - 1;
  say(tiles.epoch.value, count(at < 0 ? null : series.epochs[at]));
  say(tiles.epoch.note, at < 0 || !series.phase[at] ? "" : `${series.phase[at]} phase`);
  say(tiles.units.value, count(at < 0 ? null : series.hidden[at]));
  const curve = view();
  const exact = curve.exact === true ? `${count(curve.time.length)} points, exact` : `${count(curve.time.length)} points of ${count(curve.exact.of)}, ${curve.exact.method}`;
  const part = closer ? ", of this part" : "";
  const replaced = series.replaced ? `; ${count(series.replaced)} replaced by a resumed attempt` : "";
  const odd = curve.odd.length ? `; ${curve.odd.length} not finite (▲)` : "";
  say(note, series.time.length ? `${exact}${part}${replaced}${odd}. Drag to zoom, double click to see all.` : "No metrics yet. They appear as they arrive.");
  showGaps();
  showRun();
});

function showRun() {
  const run = runs.known.get(series.runId);
  if (!run || !parts) return;
  const { name, status, meta } = parts.head;
  say(name, runName(run));
  const now = statusOf(run);
  say(status, now);
  status.className = `badge ${now}`;
  const words = [
    run.dataset_name && `dataset ${run.dataset_name}${run.dataset_size ? ` (${count(run.dataset_size)})` : ""}`,
    run.start_time && `started ${date(run.start_time)}`,
    run.created_by && `by ${run.created_by}`,
    run.total_parameters && `${count(run.total_parameters)} parameters`,
    ...(run.tags || []).map((tag) => `#${tag}`),
    run.run_id,
  ].filter(Boolean);
  say(meta, [...words, run.notes].filter(Boolean).join("  ·  "));
  say(parts.tiles.rows.value, runs.ran(run));
  say(parts.tiles.rows.note, run.end_time ? `ended ${clock(run.end_time)}` : "so far");
  say(parts.tiles.units.note, run.total_parameters ? `${count(run.total_parameters)} parameters` : "");
}

function showGaps() {
  const words = series.gaps.map((gap) =>
    h("li", { "data-reason": gap.reason }, h("b", {}, gap.lost === null ? "unknown" : count(gap.lost)), ` ${gap.seq ? `not stored, seq ${gap.seq.join(" to ")}` : gap.reason.replaceAll("_", " ")}, `, `${clock(gap.from * 1000)} to ${clock(gap.to * 1000)}`));
  const key = JSON.stringify(series.gaps);
  if (parts.gaps.dataset.key === key) return;
  parts.gaps.dataset.key = key;
  show(parts.gaps, words.length ? words.slice(-50).reverse() : h("li", { class: "empty" }, "Nothing that we know of."));
}

function showNetwork() {
  const last = snapshots.length - 1;
  parts.slider.max = Math.max(0, last);
  parts.slider.value = shown ?? Math.max(0, last);
  parts.slider.hidden = last < 1;
  const row = snapshots[shown ?? last];
  if (!row) return drawNetwork(parts.network, { inputs: 0, hidden: 0, outputs: 0, links: [] });
  const network = parse(row);
  drawNetwork(parts.network, network);
  say(parts.caption, `${network.inputs} → ${network.hidden} → ${network.outputs}, epoch ${count(network.epoch)}, ${count(network.parameters)} parameters, snapshot ${(shown ?? last) + 1} of ${snapshots.length}`);
}

async function loadNetwork(id) {
  const { answer, newest } = await asking.network(optional(get(`api/runs/${id}/topology`, { limit: 100 }), { topology: [] }));
  if (!newest || !series || series.runId !== id) return;
  const last = answer.topology[0];
  // What the stream brought may not be in the store yet.
  snapshots = [...answer.topology.reverse(), ...snapshots.filter((row) => !last || row.timestamp > last.timestamp)];
  showNetwork();
}

async function loadGrowth(id) {
  const { answer, newest } = await asking.growth(optional(get(`api/runs/${id}/growth`), null));
  if (!newest || !series || series.runId !== id || !parts) return;
  const levels = answer ? answer.levels : series.arrivals().map(({ at, units }) => ({ hidden_units: units, epoch: series.epochs[at], before: series.values.train_loss[at - 1], change: null }));
  const rows = levels.slice().reverse().map((level) => {
    const better = level.change !== null && level.change < 0;
    return h("tr", {}, h("td", {}, count(level.hidden_units)), h("td", {}, count(level.epoch)), h("td", {}, number(level.correlation, 3)), h("td", {}, number(level.before)), h("td", { class: level.change === null || level.change === undefined ? "" : better ? "good" : "worse" }, level.change === null || level.change === undefined ? "–" : `${better ? "−" : "+"}${number(Math.abs(level.change), 3)}`));
  });
  show(parts.growth, rows.length ? rows : h("tr", {}, h("td", { colspan: 5, class: "empty" }, "No unit yet.")));
}

function eventLine(row) {
  let payload = {};
  try {
    payload = JSON.parse(row.payload_json);
  } catch {
    payload = {};
  }
  const data = { ...payload, ...(payload.data || {}), ...((payload.data || {}).details || {}) };
  const words = ["status", "phase", "reason", "correlation", "hidden_unit_index"].filter((name) => data[name] !== undefined && typeof data[name] !== "object").map((name) => `${name.replaceAll("_", " ")} ${typeof data[name] === "number" ? number(data[name], 3) : data[name]}`);
  return h("li", {}, h("time", { datetime: row.timestamp }, clock(row.timestamp)), h("b", {}, row.type.replaceAll("_", " ")), h("span", {}, [row.epoch !== null && `epoch ${count(row.epoch)}`, ...words].filter(Boolean).join(", ")));
}

async function loadEvents(id) {
  const { answer, newest } = await asking.events(get(`api/runs/${id}/events`, { limit: EVENTS }));
  if (!newest || !series || series.runId !== id) return;
  show(parts.events, answer.events.length ? answer.events.map(eventLine) : h("li", { class: "empty" }, "None yet."));
}

/** Reads everything of the run from the store. */
async function load(id) {
  const tolerate = (question) => question.catch((error) => series && series.runId === id && error.status !== 404 && say(parts.note, error.message));
  const mine = series;
  await tolerate(mine.load().then(() => {
    if (mine !== series) return undefined;
    if (mine.stale) reread();
    return lookCloser(true);
  }));
  await Promise.all([loadNetwork(id), loadEvents(id), loadGrowth(id)].map(tolerate));
}

/** Reads the whole curve again, but not all the time: what is asked for meanwhile is done once, after a rest. */
async function reread() {
  const mine = series;
  const state = curve;
  state.wanted = true;
  if (state.reading || state.resting !== null) return;
  [state.reading, state.wanted] = [true, false];
  try {
    await mine.load();
    if (mine === series) await lookCloser(true);
  } catch {
    // The store is away; the next row asks again.
  }
  state.reading = false;
  if (mine !== series) return;
  state.wanted ||= mine.stale;
  state.resting = setTimeout(() => {
    state.resting = null;
    if (state.wanted) reread();
  }, mine.stale ? state.pause : CURVE_MS);
  state.pause = mine.stale ? Math.min(2 * state.pause, CURVE_MOST_MS) : CURVE_MS;
}

function loadSlow() {
  if (!series) return;
  const id = series.runId;
  Promise.all([loadGrowth(id), loadEvents(id), loadNetwork(id)]).catch(() => {});
}

/** Soon, and not more often than that: growth, events and gaps change slowly. The store is asked once it has what changed. */
function renew() {
  renewing ??= setTimeout(() => {
    renewing = null;
    stored(loadSlow);
  }, GROWTH_MS);
}

/** Whether the newest of these rows has another number of hidden units than the rows before. */
function grew(rows) {
  const row = rows.findLast(({ hidden_units }) => hidden_units !== null && hidden_units !== undefined);
  if (!row || row.hidden_units === units) return false;
  units = row.hidden_units;
  return true;
}

export function open(box, id) {
  close();
  series = new Series(id);
  shown = null;
  snapshots = [];
  build(box, id);
  runs.select(id);
  load(id);
  if (!runs.known.has(id)) runs.renew(id);
  leave = [
    runs.changed.on(() => series && showRun()),
    live.metrics.on(({ run_id, rows, skipped }) => {
      if (run_id !== id) return;
      const stale = series.append(rows);
      if (stale || skipped > 0) reread();
      if (grew(rows)) renew();
      fresh();
    }),
    live.topology.on((row) => {
      if (row.run_id !== id) return;
      if (row.topology_json === null) return renew();
      const last = snapshots[snapshots.length - 1];
      if (!last || row.timestamp > last.timestamp) snapshots.push(row);
      showNetwork();
    }),
    live.event.on(({ run_id }) => run_id === id && renew()),
    live.behind.on(() => load(id)),
  ];
}

export function close() {
  leave.forEach((stop) => stop());
  charts.forEach((chart) => chart.destroy());
  clearTimeout(renewing);
  clearTimeout(curve.resting);
  curve = { reading: false, resting: null, wanted: false, pause: CURVE_MS };
  [series, charts, parts, leave, renewing, units, looked, closer] = [null, [], null, [], null, null, null, null];
}

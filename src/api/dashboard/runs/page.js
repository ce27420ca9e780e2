// The table of runs: searched, sorted and read in pages by the daemon.

import { h, say, show, coalesced } from "../base/dom.js";
import * as address from "../base/address.js";
import { get } from "../base/api.js";
import { seconds } from "../base/format.js";
import { live } from "../base/stream.js";
import { bar } from "./bulk.js";
import { columnOf, defaults, named } from "./columns.js";
import { emptyState } from "./empty.js";
import { filters } from "./filters.js";
import { changed, known, missing, renew, speaks, take } from "./known.js";
import { metrics } from "./metric_cache.js";
import { metricOf } from "./metric_keys.js";
import { MetricReader } from "./metric_reader.js";
import { picker } from "./picker.js";
import { fromAddress as pickFromAddress, pickAll, picked, picks } from "./picks.js";
import * as queries from "./query.js";
import { allShown, clicked } from "./selection.js";
import { Table } from "./table.js";
import { walk } from "./walk.js";

const PAGE = 50;
/** The most runs of one request. */
const REQUEST_MAX = 500;
/** Between two readings of the rows that had events; and how many at once. */
const RENEW_MS = 3000;
const RENEW_MAX = 8;
/** Between two looks for new runs. */
const NEW_MS = 1500;
const NEW_IDLE_MS = 20000;
/** Runs of the list whose metrics the choice of columns offers. */
const NAMED_MAX = 100;

let view = null;
let opened = false;
/** What the table showed when it was left: it is there at once when a person comes back. */
let left = null;

const empty = () => ({ ids: [], next: null, looked: 0, sorted: null, busy: true, failure: null });
const textOf = (query) => JSON.stringify(queries.toRequest(query));

/** Reads the list from its beginning, or goes on with it. */
async function read(mine, on = false) {
  mine.serial += 1;
  const { serial } = mine;
  const before = on ? mine.list.ids : [];
  const first = on ? [] : mine.list.ids;
  mine.list = { ...(on ? mine.list : empty()), busy: true, failure: null };
  // The rows of the answer before stay until there are others.
  if (!on) mine.list.ids = first;
  const request = queries.toRequest(mine.query);
  const told = (state) => {
    take(state.runs);
    // While the daemon sorts or searches, the rows of before are better than none.
    mine.stale &&= state.runs.length === 0 && state.next !== null;
    const ids = mine.stale ? mine.list.ids : unique([...before, ...state.runs.map((run) => run.run_id)]);
    mine.list = { ...mine.list, ids, next: state.next, looked: state.looked, sorted: state.sorted };
    draw();
  };
  mine.stale = !on;
  draw();
  try {
    const ask = (cursor, limit) => get("api/runs", { ...request, limit: Math.min(limit, REQUEST_MAX), before: cursor });
    const state = await walk({ ask, wanted: mine.wanted - before.length, from: on ? mine.list.next : null, told, isWanted: () => view === mine && serial === mine.serial });
    if (!state) return;
    mine.list.busy = false;
    if (!on) settle(mine, state.runs);
  } catch (error) {
    if (view !== mine || serial !== mine.serial) return;
    Object.assign(mine.list, { busy: false, failure: error.message });
  }
  draw();
}

const unique = (ids) => [...new Set(ids)];

/** The first page is there: its runs decide the columns, and what is newer than they are is new. */
function settle(mine, runs) {
  mine.columns = mine.chosen || defaults(runs);
  const filters = textOf({ ...mine.query, ...queries.NEWEST_FIRST });
  // A run that begins from here on is new, not only one that begins behind the next look.
  if (queries.isNewestFirst(mine.query)) mine.seen = seenOf(runs, Boolean(mine.list.next));
  else if (mine.seen && mine.seen.filters === filters) mine.newer.forEach((id) => mine.seen.ids.add(id));
  else mine.seen = null;
  if (mine.seen) mine.seen.filters = filters;
  mine.newer = new Set();
  look(mine);
}

const started = (run) => seconds(run.start_time) ?? 0;

/** What is not new: these runs, the newest of all or of those that match, and what is older. */
const seenOf = (runs, isPart) => ({ ids: new Set(runs.map((run) => run.run_id)), oldest: isPart ? started(runs[runs.length - 1]) : -Infinity });

/** Looks for runs that have begun since the list was read. */
async function look(mine) {
  if (view !== mine || document.hidden || mine.looking) return;
  mine.looking = true;
  try {
    const newest = { ...mine.query, ...queries.NEWEST_FIRST };
    const { runs } = await get("api/runs", { ...queries.toRequest(newest), limit: PAGE });
    if (view === mine) note(mine, runs, textOf(newest));
  } catch {
    // The next look tells.
  }
  mine.looking = false;
}

function note(mine, runs, filters) {
  // The answer to a look with other filters says nothing.
  if (filters !== textOf({ ...mine.query, ...queries.NEWEST_FIRST })) return;
  mine.seen ??= { ...seenOf(runs, runs.length === PAGE), filters };
  const shown = new Set(mine.list.ids);
  const isNew = (run) => !mine.seen.ids.has(run.run_id) && !shown.has(run.run_id) && started(run) >= mine.seen.oldest;
  take(runs);
  runs.filter(isNew).forEach((run) => mine.newer.add(run.run_id));
  if (mine.newer.size && queries.isNewestFirst(mine.query) && !isReading(mine)) bring(mine);
  draw();
}

/** Whether rows that come in above would move what a person looks at. */
const isReading = (mine) => mine.parts.scroll.scrollTop > 0 || scrollY > mine.parts.scroll.offsetTop || mine.table.body.contains(document.activeElement) || mine.table.body.matches(":hover");

/** Puts new runs on top, or reads a sorted list again. */
function bring(mine) {
  if (!queries.isNewestFirst(mine.query)) return read(mine);
  const news = [...mine.newer].map((id) => known.get(id)).filter(Boolean).sort((a, b) => seconds(b.start_time) - seconds(a.start_time));
  mine.newer.forEach((id) => mine.seen.ids.add(id));
  mine.newer = new Set();
  mine.list.ids = unique([...news.map((run) => run.run_id), ...mine.list.ids]);
  if (!mine.columns.length || mine.list.ids.length === news.length) mine.columns = mine.chosen || defaults(news);
  return draw();
}

const draw = coalesced(() => {
  const mine = view;
  if (!mine) return;
  mine.list.ids = mine.list.ids.filter((id) => !missing.has(id));
  const runs = shown(mine);
  const { parts, table, query, list } = mine;
  const columns = mine.columns.map((key) => columnOf(key, runs));
  table.setColumns(columns, query);
  table.setRuns(runs, picked);
  table.element.classList.toggle("stale", Boolean(mine.stale));
  const none = runs.length === 0 && !list.busy;
  table.element.hidden = runs.length === 0;
  parts.filters.set(query, runs, columns);
  say(parts.summary, list.failure ? `The list cannot be read: ${list.failure}. It is read again when the daemon answers.` : queries.progress(query, { ...list, shown: mine.stale ? 0 : runs.length }));
  parts.summary.classList.toggle("failed", Boolean(list.failure));
  parts.stop.hidden = !(list.busy && list.looked);
  parts.more.hidden = !list.next || list.busy;
  parts.none.hidden = !none || Boolean(list.failure);
  parts.unfiltered.hidden = queries.isFiltered(query);
  parts.filtered.hidden = !queries.isFiltered(query);
  parts.news.hidden = mine.newer.size === 0;
  say(parts.news, `${mine.newer.size} new ${mine.newer.size === 1 ? "run" : "runs"}: show`);
  mine.bulk.draw();
  mine.columnsPicker.draw();
  readMetrics(mine);
});

/** Reads what the columns of metrics lack in the rows in view, and the names of metrics while columns are chosen. */
function readMetrics(mine) {
  if (view !== mine || document.hidden) return;
  const seen = mine.table.seen();
  mine.reader.want(seen, mine.columns.filter(metricOf), mine.columnsPicker.isOpen() ? offering(mine) : []);
}

/** The runs whose metrics the choice of columns offers: those in view first. */
const offering = (mine) => [...new Set([...mine.table.seen(), ...shown(mine)])].slice(0, NAMED_MAX);

/** What there is to choose columns from. */
const choosable = (mine) => ({
  runs: shown(mine), chosen: mine.columns, labels: metrics.labelsOf(mine.list.ids), waiting: offering(mine).some((run) => !metrics.hasNames(run.run_id, Date.now())),
});

/** The runs of the list that are known. */
const shown = (mine) => mine.list.ids.map((id) => known.get(id)).filter(Boolean);

/** Another search, order or filter. */
function ask(changes) {
  const mine = view;
  const query = { ...mine.query, ...changes };
  if (textOf(query) === textOf(mine.query)) return;
  mine.query = query;
  mine.wanted = PAGE;
  address.update(queries.toAddress(query));
  title(query);
  read(mine);
}

function choose(keys) {
  const mine = view;
  mine.chosen = keys;
  mine.columns = keys || defaults(shown(mine));
  address.update({ col: keys });
  draw();
}

const title = ({ q }) => {
  document.title = `${q ? `Runs: ${q}` : "Runs"} - cascor-ingest`;
};

function build(mine, box) {
  const news = h("button", { type: "button", class: "news", hidden: true, onclick: () => bring(mine) });
  const summary = h("p", { class: "summary", role: "status" }, "Loading…");
  const stop = h("button", { type: "button", class: "ghost small", hidden: true, onclick: () => {
    mine.serial += 1;
    mine.list.busy = false;
    draw();
  } }, "Stop");
  const more = h("button", { type: "button", class: "wide", "data-do": "more", hidden: true, onclick: () => {
    mine.wanted = mine.list.ids.length + PAGE;
    read(mine, true);
  } }, "Show more runs");
  const filtered = h("p", {}, "Every run was looked at, and none matches. Archived runs are left out unless they are asked for.");
  const unfiltered = emptyState();
  const none = h("div", { class: "none", hidden: true }, filtered, unfiltered);
  const scroll = h("div", { class: "runs-scroll", role: "region", "aria-label": "Table of runs", tabindex: -1 }, mine.table.element, more);
  mine.columnsPicker = picker(() => choosable(mine), { choose, opened: () => readMetrics(mine) });
  mine.parts = { news, summary, stop, more, none, filtered, unfiltered, scroll, filters: filters(mine.query, ask) };
  show(box, h("div", { class: "runs-page" }, h("div", { class: "runs-head" }, h("h1", {}, "Runs"), mine.columnsPicker.box), mine.parts.filters.element, mine.bulk.box,
    h("div", { class: "runs-line" }, summary, stop, news), scroll, none));
}

function handlers(mine) {
  let anchor = null;
  return {
    sort: (column) => ask(queries.sortedBy(mine.query, column)),
    pick: (id, yes, range) => {
      pickAll(clicked(picked, mine.list.ids, { id, yes, anchor, range }));
      anchor = id;
    },
    pickShown: (yes) => pickAll(allShown(picked, mine.list.ids, yes)),
    look: () => readMetrics(mine),
  };
}

/** Reads rows again that had an event since. */
function follow(mine) {
  const since = mine.renewed;
  mine.renewed = Date.now();
  if (!document.hidden) mine.list.ids.filter((id) => speaks(id, since)).slice(0, RENEW_MAX).forEach(renew);
}

export function open(box) {
  const { params } = address.current();
  const query = queries.fromAddress(params);
  const mine = { query, chosen: named(params.col), columns: [], list: empty(), newer: new Set(), seen: null, serial: 0, wanted: PAGE, stale: false, renewed: Date.now() };
  mine.columns = mine.chosen || defaults([]);
  mine.table = new Table(handlers(mine));
  mine.reader = new MetricReader({ ask: get, cache: metrics, speaks, told: draw });
  mine.bulk = bar(() => mine.list.ids);
  view = mine;
  build(mine, box);
  title(query);
  // Going back to the table does not undo what was selected since.
  if (!opened || picked.size === 0) pickFromAddress(params);
  opened = true;
  picked.forEach((id) => known.has(id) || renew(id));
  const back = left && left.text === textOf(query) ? left : null;
  if (back) {
    mine.list = { ...back.list, busy: false };
    mine.columns = mine.chosen || back.columns;
    mine.wanted = Math.max(PAGE, back.list.ids.length);
    draw();
    requestAnimationFrame(() => requestAnimationFrame(() => {
      mine.parts.scroll.scrollTop = back.scrollTop;
    }));
  }
  read(mine);
  let last = Date.now();
  const watch = () => {
    if (Date.now() - last < (mine.heard ? NEW_MS : NEW_IDLE_MS)) return;
    [last, mine.heard] = [Date.now(), false];
    look(mine);
  };
  const timers = [setInterval(() => follow(mine), RENEW_MS), setInterval(draw, 5000), setInterval(watch, NEW_MS)];
  const hear = (ids) => {
    mine.heard ||= ids.some((id) => !mine.list.ids.includes(id));
  };
  mine.leave = [changed.on(draw), picks.on(draw), live.behind.on(() => (mine.list.failure ? read(mine) : look(mine))),
    live.event.on(({ run_id }) => hear([run_id])), live.activity.on(({ runs }) => hear(runs)),
    () => timers.forEach(clearInterval)];
}

export function close() {
  if (!view) return;
  const { parts, query, list, columns, leave, columnsPicker, table, reader } = view;
  left = { text: textOf(query), list, columns, scrollTop: parts.scroll.scrollTop };
  view = null;
  leave.forEach((stop) => stop());
  parts.filters.close();
  columnsPicker.close();
  table.close();
  reader.close();
}

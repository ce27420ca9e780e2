// The list of runs beside a run: newest first, searched by the daemon, kept fresh by the stream.

import { h, show, coalesced } from "../base/dom.js";
import { get } from "../base/api.js";
import { ago, counted, fieldOf, number, runName, seconds, short, statusOf } from "../base/format.js";
import { live } from "../base/stream.js";
import { byStart, changed, known, listen, speaks, take } from "./known.js";
import { pick, picked } from "./picks.js";
import { STATUSES, isFiltered, progress, toRequest } from "./query.js";
import { walk } from "./walk.js";

export { ran } from "./columns.js";
export { changed, known, missing, newest, renew } from "./known.js";
export { fromAddress, picked, picks } from "./picks.js";

const PAGE = 50;
const TYPING_MS = 250;
const REFRESH_MS = 20000;
/** A search through more runs than these is not repeated by itself. */
const REPEATED_MAX = 5000;
/** Tags that are offered as filters. */
const TAGS_OFFERED = 6;

let query = { q: "", status: "", tags: [], dataset: "", archived: "" };
/** Ids in the order of the daemon, and how far it has looked. */
let list = { ids: [], next: null, looked: 0, busy: true, failure: null };
let current = null;
let serial = 0;
let typing = null;
let rows, more, summary, chips, tags;

const request = () => toRequest({ ...query, sort: "start_time", order: "desc" });

/** Reads the list from its beginning, or goes on with it. What is shown stays until there is something else to show. */
async function read({ on = false, quiet = false } = {}) {
  serial += 1;
  const mine = serial;
  const before = on ? list.ids : [];
  const asked = request();
  const wanted = on || !quiet ? PAGE : Math.max(PAGE, list.ids.length);
  const told = (state) => {
    take(state.runs);
    if (!quiet) list = { ...list, ids: [...before, ...state.runs.map((run) => run.run_id)], looked: state.looked, busy: true, failure: null };
    draw();
  };
  if (!quiet) list = { ...list, busy: true, looked: 0 };
  draw();
  try {
    const state = await walk({
      ask: (cursor, limit) => get("api/runs", { ...asked, limit: Math.min(limit, 500), before: cursor }),
      wanted, from: on ? list.next : null, told, isWanted: () => mine === serial,
    });
    if (!state) return;
    list = { ids: [...new Set([...before, ...state.runs.map((run) => run.run_id)])], next: state.next, looked: state.looked, busy: false, failure: null };
  } catch (error) {
    if (mine !== serial) return;
    list = { ...list, busy: false, failure: error.message };
  }
  changed.tell();
}

/** Reads the list again, without a word. */
export function refresh() {
  if (isFiltered(query) && list.looked > REPEATED_MAX && !list.failure) return undefined;
  return list.busy && serial ? undefined : read({ quiet: serial > 0 });
}

/** The runs to show: those of the daemon's answer; without a filter also those that the stream has brought since. */
function shown() {
  const told = list.ids.map((id) => known.get(id)).filter(Boolean);
  if (isFiltered(query)) return told;
  const oldest = list.next && told.length ? seconds(told[told.length - 1].start_time) ?? 0 : -Infinity;
  const ids = new Set(list.ids);
  const newer = [...known.values()].filter((run) => !ids.has(run.run_id) && !run.archived && (seconds(run.start_time) ?? 0) > oldest);
  return [...told.filter((run) => !run.archived || run.run_id === current), ...newer].sort(byStart);
}

function entry(run) {
  const status = statusOf(run);
  const loss = fieldOf(run, "final_train_loss");
  return h(
    "li",
    { class: `entry ${run.run_id === current ? "current" : ""}`, "data-run": run.run_id },
    h(
      "a",
      { href: `#/run/${run.run_id}`, "aria-current": run.run_id === current ? "page" : null },
      h("span", { class: "line" }, h("i", { class: `dot ${status} ${speaks(run.run_id) ? "speaks" : ""}` }), h("b", { title: runName(run) }, runName(run)), h("span", { class: "when" }, ago(run.last_event_time || run.start_time).replace(" ago", ""))),
      h(
        "span",
        { class: "line small" },
        h("span", { class: `status ${status}` }, status),
        loss !== null && h("span", {}, `loss ${number(loss)}`),
        run.total_hidden_units !== null && h("span", {}, counted(run.total_hidden_units, "unit")),
        loss === null && (run.display_name || run.run_name) && h("span", { class: "id" }, short(run.run_id)),
      ),
    ),
    h(
      "label",
      { class: "pick", title: "Select to compare" },
      h("input", { type: "checkbox", checked: picked.has(run.run_id), "aria-label": `Select ${runName(run)}`, onchange: (event) => {
        pick(run.run_id, event.target.checked);
        changed.tell();
      } }),
    ),
  );
}

/** The tags of the runs that are listed, the most frequent first, and those that are asked for. */
function offered(runs) {
  const times = new Map();
  for (const run of runs) for (const tag of run.tags || []) times.set(tag, (times.get(tag) || 0) + 1);
  const frequent = [...times.keys()].sort((a, b) => times.get(b) - times.get(a)).filter((tag) => !query.tags.includes(tag));
  return [...query.tags, ...frequent.slice(0, TAGS_OFFERED)];
}

function drawTags(runs) {
  const names = offered(runs);
  const key = JSON.stringify([names, query.tags]);
  if (tags.dataset.key === key) return;
  tags.dataset.key = key;
  tags.hidden = names.length === 0;
  show(tags, names.map((tag) => h("button", { type: "button", class: "chip", "aria-pressed": String(query.tags.includes(tag)), onclick: () =>
    ask({ tags: query.tags.includes(tag) ? query.tags.filter((one) => one !== tag) : [...query.tags, tag] }) }, `#${tag}`)));
}

const draw = coalesced(() => {
  const runs = shown();
  // A person who walks through the list by keyboard stays at their place.
  const focused = document.activeElement && document.activeElement.closest && document.activeElement.closest("#runs [data-run]");
  const inner = focused && (document.activeElement.tagName === "A" ? "a" : "input");
  show(rows, runs.map(entry));
  if (focused) {
    const again = rows.querySelector(`[data-run="${focused.dataset.run}"] ${inner}`);
    if (again) again.focus({ preventScroll: true });
  }
  more.hidden = !list.next || list.busy;
  summary.textContent = list.failure ? `The list cannot be read: ${list.failure}.` : progress(query, { ...list, shown: runs.length });
  summary.classList.toggle("failed", Boolean(list.failure));
  [...chips.children].forEach((chip) => chip.setAttribute("aria-pressed", String(chip.dataset.status === query.status)));
  drawTags(runs);
});

/** Asks for other runs. */
function ask(changes) {
  query = { ...query, ...changes };
  draw();
  read();
}

/** Whether the daemon has told that there is no run. */
export const isEmpty = () => !list.busy && !list.failure && !isFiltered(query) && list.ids.length === 0;

/** Why the list could not be read, or null. */
export const failure = () => list.failure;

/** Marks the run that is looked at. */
export function select(id) {
  current = id;
  draw();
}

export function mount(box) {
  const search = h("input", { type: "search", placeholder: "Search all runs", "aria-label": "Search runs by name, dataset, tag, notes or key=value", "data-search": "", oninput: (event) => {
    const q = event.target.value.trim();
    clearTimeout(typing);
    typing = setTimeout(() => q !== query.q && ask({ q }), TYPING_MS);
  } });
  chips = h("div", { class: "chips", role: "group", "aria-label": "Status" }, ["", ...STATUSES].map((status) =>
    h("button", { type: "button", class: "chip", "data-status": status, "aria-pressed": "false", onclick: () => ask({ status }) }, status || "all"),
  ));
  tags = h("div", { class: "chips tags", role: "group", "aria-label": "Tags", hidden: true });
  summary = h("p", { class: "summary", role: "status" }, "Loading…");
  rows = h("ul", { class: "entries" });
  more = h("button", { type: "button", class: "wide", hidden: true, onclick: () => read({ on: true }) }, "Show older runs");
  show(box, h("div", { class: "filters" }, search, chips, tags), summary, rows, more);
  listen();
  changed.on(draw);
  live.behind.on(refresh);
  // Times that pass, and what the stream does not tell.
  setInterval(draw, 5000);
  setInterval(refresh, REFRESH_MS);
}

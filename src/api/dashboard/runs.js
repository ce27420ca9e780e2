// The list of runs: newest first, kept fresh by the stream, filtered by status and text.

import { h, show, topic, coalesced } from "./dom.js";
import { get } from "./api.js";
import { ago, number, runName, short, statusOf, duration, seconds } from "./format.js";
import { live } from "./stream.js";

const PAGE = 50;
const STATUSES = ["running", "stale", "completed", "failed", "stopped"];
const SPEAKING_MS = 2500;

/** Every run that is known, by id. */
export const known = new Map();
/** Something about the known runs has changed. */
export const changed = topic();
/** Ids of the runs to compare. */
export const picked = new Set(JSON.parse(sessionStorage.getItem("picked") || "[]"));
/** What is picked has changed. */
export const picks = topic();

const filter = { status: "", text: "" };
const spoke = new Map();
let next = null;
let failure = null;
let loading = false;
let current = null;
let list, more, summary, chips;

export async function refresh() {
  if (loading) return;
  loading = true;
  try {
    const answer = await get("api/runs", { limit: PAGE, status: filter.status });
    if (filter.status) {
      for (const [id, run] of known) if (statusOf(run) === filter.status && !answer.next) known.delete(id);
    }
    answer.runs.forEach((run) => known.set(run.run_id, run));
    next = answer.next;
    failure = null;
  } catch (error) {
    failure = error.message;
  }
  loading = false;
  changed.tell();
}

async function older() {
  const answer = await get("api/runs", { limit: PAGE, status: filter.status, before: next });
  answer.runs.forEach((run) => known.set(run.run_id, run));
  next = answer.next;
  changed.tell();
}

const wanted = new Set();
let asking = null;

/** Reads a run again, soon: its row follows its events. */
export function renew(id) {
  wanted.add(id);
  asking ??= setTimeout(async () => {
    asking = null;
    const ids = [...wanted].slice(0, 8);
    wanted.clear();
    await Promise.all(
      ids.map(async (one) => {
        try {
          const { run } = await get(`api/runs/${one}`, { limit: 0, count: "none" });
          known.set(one, run);
        } catch (error) {
          // The store follows the stream by a moment.
          if (error.status === 404 && (spoke.get(one) || 0) > Date.now() - 10000) setTimeout(() => renew(one), 500);
        }
      }),
    );
    changed.tell();
  }, 350);
}

function hear(id, row) {
  spoke.set(id, Date.now());
  const run = known.get(id);
  if (!run) return renew(id);
  run.last_event_time = new Date().toISOString();
  if (row) {
    for (const name of ["train_loss", "val_loss", "train_accuracy", "val_accuracy"]) if (row[name] !== null) run[`final_${name}`] = row[name];
    if (row.epoch !== null) run.final_epoch = row.epoch;
    if (row.hidden_units !== null) run.total_hidden_units = row.hidden_units;
  }
  changed.tell();
}

function order(a, b) {
  return (seconds(b.start_time) ?? 0) - (seconds(a.start_time) ?? 0);
}

function matches(run) {
  if (filter.status && statusOf(run) !== filter.status) return false;
  if (!filter.text) return true;
  const text = [run.run_id, run.run_name, run.dataset_name, run.created_by, run.notes, ...(run.tags || [])].join(" ").toLowerCase();
  return filter.text.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function pick(id, yes) {
  if (yes) picked.add(id);
  else picked.delete(id);
  sessionStorage.setItem("picked", JSON.stringify([...picked]));
  picks.tell();
}

function entry(run) {
  const status = statusOf(run);
  const speaks = (spoke.get(run.run_id) || 0) > Date.now() - SPEAKING_MS;
  const loss = run.final_train_loss === null && (run.non_finite || []).includes("final_train_loss") ? "NaN" : number(run.final_train_loss);
  return h(
    "li",
    { class: `entry ${run.run_id === current ? "current" : ""}`, "data-run": run.run_id },
    h(
      "a",
      { href: `#/run/${run.run_id}`, "aria-current": run.run_id === current ? "page" : null },
      h("span", { class: "line" }, h("i", { class: `dot ${status} ${speaks ? "speaks" : ""}` }), h("b", {}, runName(run)), h("span", { class: "when" }, ago(run.last_event_time || run.start_time).replace(" ago", ""))),
      h(
        "span",
        { class: "line small" },
        h("span", { class: `status ${status}` }, status),
        h("span", {}, `loss ${loss}`),
        run.total_hidden_units !== null && h("span", {}, `${run.total_hidden_units} units`),
        run.run_name && h("span", { class: "id" }, short(run.run_id)),
      ),
    ),
    h(
      "label",
      { class: "pick", title: "Compare" },
      h("input", { type: "checkbox", checked: picked.has(run.run_id), "aria-label": `Compare ${runName(run)}`, onchange: (event) => pick(run.run_id, event.target.checked) }),
    ),
  );
}

const draw = coalesced(() => {
  const runs = [...known.values()].filter(matches).sort(order);
  // Whoever walks through the list by keyboard stays where they are.
  const focused = document.activeElement && document.activeElement.closest && document.activeElement.closest("#runs [data-run]");
  const inner = focused && (document.activeElement.tagName === "A" ? "a" : "input");
  show(list, runs.map(entry));
  if (focused) {
    const again = list.querySelector(`[data-run="${focused.dataset.run}"] ${inner}`);
    if (again) again.focus({ preventScroll: true });
  }
  more.hidden = !next;
  const running = [...known.values()].filter((run) => statusOf(run) === "running").length;
  summary.textContent = failure || (runs.length === 0 ? (known.size ? "No run matches." : "No runs yet. They appear by themselves.") : `${runs.length} shown, ${running} running. Tick to compare.`);
  summary.classList.toggle("failed", Boolean(failure));
  [...chips.children].forEach((chip) => chip.setAttribute("aria-pressed", String(chip.dataset.status === filter.status)));
});

/** Marks the run that is looked at. */
export function select(id) {
  current = id;
  draw();
}

/** The newest run, for a page without one. */
export const newest = () => [...known.values()].sort(order)[0];

export function mount(box) {
  const search = h("input", { type: "search", placeholder: "Filter by name, dataset, tag", "aria-label": "Filter runs", oninput: (event) => {
    filter.text = event.target.value.trim();
    draw();
  } });
  chips = h("div", { class: "chips", role: "group", "aria-label": "Status" }, ["", ...STATUSES].map((status) =>
    h("button", { type: "button", class: "chip", "data-status": status, "aria-pressed": "false", onclick: () => {
      filter.status = status;
      refresh();
    } }, status || "all"),
  ));
  summary = h("p", { class: "summary", role: "status" }, "Loading…");
  list = h("ul", { class: "entries" });
  more = h("button", { type: "button", class: "wide", hidden: true, onclick: older }, "Older runs");
  show(box, h("div", { class: "filters" }, search, chips), summary, list, more);
  changed.on(draw);
  live.metrics.on(({ run_id, rows }) => hear(run_id, rows[rows.length - 1]));
  live.event.on(({ run_id, rows }) => {
    hear(run_id);
    if (rows.some((row) => /^(training|run)_/.test(row.type))) {
      renew(run_id);
      setTimeout(() => renew(run_id), 1500);
    }
  });
  live.activity.on(({ runs }) => runs.forEach((id) => hear(id)));
  live.behind.on(refresh);
  // Times that pass, and what the stream does not tell.
  setInterval(draw, 5000);
  setInterval(refresh, 20000);
}

/** `5 min 3 s`, also of a run that goes on. */
export function ran(run) {
  if (run.duration_seconds !== null && run.duration_seconds !== undefined) return duration(run.duration_seconds);
  const from = seconds(run.start_time);
  const to = statusOf(run) === "running" ? Date.now() / 1000 : seconds(run.last_event_time);
  return from === null || to === null ? "–" : duration(Math.max(0, to - from));
}

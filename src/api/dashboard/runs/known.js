// What is known of each run, kept fresh by the stream.

import { topic } from "../base/dom.js";
import { get } from "../base/api.js";
import { seconds } from "../base/format.js";
import { live } from "../base/stream.js";
import { labelOf } from "../charts/metrics.js";
import { metrics, versionOf } from "./metric_cache.js";

const SPEAKING_MS = 2500;
const RENEW_MS = 350;
/** Runs that are read again at once. */
const RENEW_MAX = 8;
/** How long the store may follow the stream. */
const BEHIND_MS = 10000;

/** A text that is the id of a run. */
export const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
/** Every run that is known, by id. */
export const known = new Map();
/** Something about the known runs has changed. */
export const changed = topic();
/** Ids of runs that the store does not have, or no longer. */
export const missing = new Set();

const spoke = new Map();
const deleted = new Set();
const wanted = new Set();
let asking = null;

/** Takes runs as the daemon has told them. */
export function take(runs) {
  for (const run of runs) {
    if (deleted.has(run.run_id) && (spoke.get(run.run_id) || 0) < Date.now() - BEHIND_MS) continue;
    missing.delete(run.run_id);
    known.set(run.run_id, run);
  }
  changed.tell();
}

/** A run that was deleted here: an answer that was under way may still have it. */
export function forget(id) {
  deleted.add(id);
  missing.add(id);
  spoke.delete(id);
  known.delete(id);
  changed.tell();
}

async function read(id) {
  try {
    const { run, metric_names: names } = await get(`api/runs/${id}`, { limit: 0, count: "none" });
    if (names) metrics.takeNames(id, names.map(labelOf), versionOf(run));
    take([run]);
  } catch (error) {
    if (error.status !== 404) return;
    // The store follows the stream by a moment.
    if ((spoke.get(id) || 0) > Date.now() - BEHIND_MS) setTimeout(() => renew(id), 500);
    else {
      missing.add(id);
      known.delete(id);
    }
    changed.tell();
  }
}

/** Reads a run again, soon: its row follows its events. */
export function renew(id) {
  wanted.add(id);
  asking ??= setTimeout(async () => {
    const ids = [...wanted].slice(0, RENEW_MAX);
    ids.forEach((one) => wanted.delete(one));
    await Promise.all(ids.map(read));
    asking = null;
    if (wanted.size) renew([...wanted][0]);
  }, RENEW_MS);
}

function hear(id, row) {
  spoke.set(id, Date.now());
  deleted.delete(id);
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

/** Whether a run had an event just now, or since a time. */
export const speaks = (id, since = Date.now() - SPEAKING_MS) => (spoke.get(id) || 0) > since;

/** Newest first, as the daemon lists them. */
export const byStart = (a, b) => (seconds(b.start_time) ?? 0) - (seconds(a.start_time) ?? 0);

/** The newest run, for a page without one. */
export const newest = () => [...known.values()].filter((run) => !run.archived).sort(byStart)[0];

export function listen() {
  live.metrics.on(({ run_id, rows }) => hear(run_id, rows[rows.length - 1]));
  live.event.on(({ run_id, rows }) => {
    hear(run_id);
    if (rows.some((row) => /^(training|run)_/.test(row.type))) {
      renew(run_id);
      setTimeout(() => renew(run_id), 1500);
    }
  });
  live.activity.on(({ runs }) => runs.forEach((id) => hear(id)));
}

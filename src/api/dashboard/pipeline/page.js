// The pipeline's health: rate, lag, spool, store, what was missed; and the commands.

import { h, s, show, say } from "../base/dom.js";
import { bytes, clock, count, date, duration, number, seconds } from "../base/format.js";
import { live } from "../base/stream.js";
import { verdict, time } from "../base/verdict.js";
import * as control from "./control.js";
import { REASONS } from "./reasons.js";
import * as streams from "./streams.js";

const KEPT = 180;

const history = { rate: [], rows: [], lag: [], pending: [] };
let before = null;
let newest = null;
let parts = null;
let connection = "connecting";

function keep(name, value) {
  history[name].push(value);
  if (history[name].length > KEPT) history[name].shift();
}

/** From the start on, so that there is something to see when the view is opened. */
export function listen() {
  live.status.on((status) => {
    newest = status;
    // A server that only reads has no pipeline.
    if (!status.counters) return draw();
    const at = seconds(status.at);
    if (before && before.instance === status.instance && at > seconds(before.at) && status.counters.received >= before.counters.received) {
      const past = at - seconds(before.at);
      // The daemon's own figure, which `status` shows.
      keep("rate", status.received_per_second ?? (status.counters.received - before.counters.received) / past);
      keep("rows", (status.counters.rows - before.counters.rows) / past);
    }
    keep("lag", status.lag_seconds ?? 0);
    keep("pending", status.spool.pending_records);
    before = status;
    draw();
  });
  live.state.on((now) => {
    connection = now;
    draw();
  });
}

function spark(values) {
  const [width, height] = [200, 36];
  const top = Math.max(1e-9, ...values);
  const step = width / (Math.max(40, values.length) - 1);
  const from = width - (values.length - 1) * step;
  const points = values.map((value, at) => `${(from + at * step).toFixed(1)},${(height - 2 - (value / top) * (height - 6)).toFixed(1)}`);
  const area = values.length > 1 ? `${from.toFixed(1)},${height} ${points.join(" ")} ${width},${height}` : "";
  return s("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "spark", "aria-hidden": "true" }, s("polygon", { points: area }), s("polyline", { points: points.join(" ") }));
}

function tile(label, values) {
  const value = h("b", {}, "–");
  const note = h("small", {}, "");
  const graph = h("div", {});
  return { box: h("div", { class: "tile" }, h("span", {}, label), value, note, graph), set(text, more) {
    say(value, text);
    say(note, more);
    if (values) show(graph, spark(values));
  } };
}

function meter(share) {
  const bar = h("div", { class: `meter ${share > 0.8 ? "bad" : share > 0.5 ? "warn" : ""}`, role: "meter", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(share * 100), "aria-label": "Spool used" }, h("i", {}));
  bar.firstChild.style.width = `${Math.max(0.5, Math.min(100, share * 100))}%`;
  return bar;
}

const state = (fine, text) => h("span", { class: `state ${fine ? "good" : "bad"}` }, h("i", { class: "dot" }), text);
const head = (columns) => h("thead", {}, h("tr", {}, columns.map(([text, kind]) => h("th", { scope: "col", class: kind || null }, text))));
const facts = (pairs) => h("dl", {}, pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

function draw() {
  if (!parts || !newest) return;
  const status = newest;
  const said = verdict(status);
  parts.badge.className = `badge ${said.ok ? "good" : said.state === "PAUSED" ? "warn" : "bad"}`;
  say(parts.badge, said.state.toLowerCase());
  say(parts.figures, connection === "live" ? said.figures.join(", ") : `Not connected. Last heard at ${clock(status.at)}.`);
  parts.box.classList.toggle("old", connection !== "live");
  drawProblems(said.findings, status.store.problem);
  show(parts.daemon, facts([
    ["Instance", status.instance], ["Version", status.version], status.started_at && ["Started", date(status.started_at)], ["Up", duration(status.uptime_seconds)],
    status.counters && ["Rejected", count(status.counters.rejected)], status.counters && ["Dead letters", count(status.counters.dead_letters)],
  ].filter(Boolean)));
  if (status.counters) drawPipeline(status);
  else drawReader(status);
}

function drawPipeline(status) {
  const rate = history.rate[history.rate.length - 1] ?? null;
  const rows = history.rows[history.rows.length - 1] ?? null;
  parts.rate.set(rate === null ? "–" : `${number(rate, 3)} /s`, `${count(status.counters.received)} received`);
  parts.rows.set(rows === null ? "–" : `${number(rows, 3)} /s`, `${count(status.counters.rows)} rows stored`);
  parts.lag.set(status.lag_seconds === null ? "–" : time(status.lag_seconds), "oldest not yet stored");
  parts.pending.set(count(status.spool.pending_records), "wait for the store");
  const { spool, store, redis } = status;
  show(parts.state,
    state(status.phase === "running", status.phase),
    state(store.connected && !store.problem, `store ${store.kind} ${answers(store)}`),
    state(spool.healthy, spool.healthy ? "spool writes to disk" : "spool holds in memory"));
  show(parts.spool, meter(spool.used_bytes / Math.max(1, spool.capacity_bytes)), facts([
    ["Used", `${bytes(spool.used_bytes)} of ${bytes(spool.capacity_bytes)} in ${count(spool.segments)} ${spool.segments === 1 ? "segment" : "segments"}`],
    ["In memory", bytes(spool.memory_bytes)],
    ["Durable to", `${count(spool.durable)} of ${count(spool.end)}`],
    ["Stored to", count(spool.stored)],
  ]));
  show(parts.redis, facts(listening(redis)));
  drawStreams(redis);
  const missed = Object.entries(status.gaps).filter(([, gap]) => gap.gaps > 0 || gap.lost > 0);
  show(parts.gaps, missed.length ? missed.map(([reason, gap]) => h("tr", {}, h("th", { scope: "row" }, reason.replaceAll("_", " "), h("small", {}, REASONS[reason] || "")), h("td", { class: "number" }, count(gap.gaps)), h("td", { class: "number" }, gap.lost ? count(gap.lost) : "unknown"))) : h("tr", {}, h("td", { colspan: 3, class: "empty" }, "Nothing was missed since the daemon started.")));
}

const answers = (store) => (store.problem ? "holds rows back" : store.connected ? "answers" : "does not answer");

/** What is wrong, and what mends it: the words of `cascor-ingest status`. */
function drawProblems(findings, problem) {
  const key = JSON.stringify([findings, problem && problem.since]);
  if (parts.problem.dataset.key === key) return;
  parts.problem.dataset.key = key;
  show(parts.problem, findings.length === 0 ? [] : h("section", { class: "card problems", role: "alert" },
    h("div", { class: "card-head" }, h("h2", {}, "What is wrong")),
    h("dl", {}, findings.flatMap(({ state: word, text, remedy }) => [
      h("dt", {}, h("span", { class: `badge ${word === "PAUSED" ? "warn" : "bad"}` }, word.toLowerCase())),
      h("dd", {}, text, h("p", { class: "caption" }, "To mend it: ", h("code", { class: "remedy" }, remedy))),
    ]))));
}

function listening(redis) {
  const { connections: plain, unproven } = streams.channels(redis);
  const connections = plain.map((connection) => [connection.name || "connection", state(Boolean(connection.connected), connection.error || (connection.connected ? "subscribed" : "down"))]);
  return [...connections, ["Channels not subscribed", unproven.length ? unproven.join(", ") : "none"]];
}

/** A table of the streams; nothing where none is read. */
function drawStreams(redis) {
  const rows = streams.rows(redis);
  const figure = (value) => h("td", { class: "number" }, typeof value === "number" ? count(value) : value);
  show(parts.streams, rows.length === 0 ? [] : h("table", {}, head([["Stream", ""], ["Not read yet", "number"], ["Not acknowledged", "number"]]),
    h("tbody", {}, rows.map(({ name, fine, text, unread, pending }) => h("tr", {}, h("th", { scope: "row" }, name, h("small", {}, state(fine, text))), figure(unread), figure(pending))))));
}

/** A server without a pipeline (`serve`). */
function drawReader(status) {
  show(parts.state, state(status.ready, status.phase), state(status.store.connected, `store ${answers(status.store)}`));
  show(parts.redis, facts([["commands", state(Boolean(status.redis.connected), status.redis.connected ? "up" : "down")], ...listening(status.redis)]));
  show(parts.spool, h("p", { class: "empty" }, "This server only reads: it has no spool. Its daemons have one."));
  show(parts.gaps, h("tr", {}, h("td", { colspan: 3, class: "empty" }, "This server only reads, and misses nothing. What its daemons missed is on the page of each run.")));
  parts.flow.hidden = true;
}

export function open(box) {
  parts = {
    box, rate: tile("Received", history.rate), rows: tile("Stored", history.rows), lag: tile("Lag", history.lag), pending: tile("Waiting", history.pending),
    badge: h("span", { class: "badge", role: "status" }, ""), figures: h("p", { class: "meta" }, "Waiting for the daemon's status…"),
    state: h("div", { class: "states" }), problem: h("div", {}), spool: h("div", {}), redis: h("div", {}), streams: h("div", { class: "streams" }), daemon: h("div", {}), gaps: h("tbody", {}),
  };
  parts.flow = h("section", { class: "tiles four", "aria-label": "Flow" }, [parts.rate, parts.rows, parts.lag, parts.pending].map((one) => one.box));
  const card = (title, ...children) => h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, title)), children);
  const columns = [["Reason", ""], ["Gaps", "number"], ["Messages", "number"]];
  show(box,
    h("div", { class: "head" }, h("div", { class: "title" }, h("h1", {}, "Pipeline"), parts.badge), parts.figures, parts.state),
    parts.problem,
    parts.flow,
    h("div", { class: "pair" },
      card("Commands", control.panel()),
      h("div", {}, card("What was missed", h("table", {}, head(columns), parts.gaps)), card("Redis", parts.redis, parts.streams))),
    h("div", { class: "pair" }, card("Spool", parts.spool), card("Daemon", parts.daemon)),
  );
  draw();
}

export function close() {
  if (parts) parts.box.classList.remove("old");
  parts = null;
}

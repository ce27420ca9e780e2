// The pipeline's health: rate, lag, spool, store, what was missed; and the commands.

import { h, s, show, say } from "./dom.js";
import { bytes, count, date, duration, number, seconds } from "./format.js";
import { live } from "./stream.js";
import * as control from "./control.js";

const KEPT = 180;
const REASONS = {
  not_listening: "The daemon was not running, or not yet subscribed",
  disconnected: "The connection to Redis was lost",
  cut_by_redis: "Redis cut the connection: its output buffer was full",
  client_lag: "The receive buffer overflowed",
  queue_full: "The queue before intake was full",
  spool_full: "Disk and memory segment were full",
  sequence: "The producer's numbers have a hole",
};

const history = { rate: [], rows: [], lag: [], pending: [] };
let before = null;
let newest = null;
let parts = null;

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
      keep("rate", (status.counters.received - before.counters.received) / past);
      keep("rows", (status.counters.rows - before.counters.rows) / past);
    }
    keep("lag", status.lag_seconds);
    keep("pending", status.spool.pending_records);
    before = status;
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
const facts = (pairs) => h("dl", {}, pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

function draw() {
  if (!parts || !newest) return;
  const status = newest;
  if (!status.counters) return drawReader(status);
  const rate = history.rate[history.rate.length - 1] ?? null;
  const rows = history.rows[history.rows.length - 1] ?? null;
  parts.rate.set(rate === null ? "–" : `${number(rate, 3)} /s`, `${count(status.counters.received)} received`);
  parts.rows.set(rows === null ? "–" : `${number(rows, 3)} /s`, `${count(status.counters.rows)} rows stored`);
  parts.lag.set(duration(status.lag_seconds), "oldest not yet stored");
  parts.pending.set(count(status.spool.pending_records), status.paused ? "held: paused" : "records wait for the store");
  const { spool, store, redis } = status;
  show(parts.state,
    state(status.ready, status.ready ? `${status.phase}` : status.missing.join("; ")),
    state(store.connected && !store.problem, `store ${store.kind} ${answers(store)}`),
    state(spool.healthy, spool.healthy ? "spool writes to disk" : "spool holds in memory"),
    status.paused ? state(false, "paused") : null);
  show(parts.problem, problem(store));
  show(parts.spool, meter(spool.used_bytes / Math.max(1, spool.capacity_bytes)), facts([
    ["Used", `${bytes(spool.used_bytes)} of ${bytes(spool.capacity_bytes)} in ${count(spool.segments)} segments`],
    ["In memory", bytes(spool.memory_bytes)],
    ["Durable to", `${count(spool.durable)} of ${count(spool.end)}`],
    ["Stored to", count(spool.stored)],
  ]));
  show(parts.redis, facts(listening(redis)));
  show(parts.daemon, facts([
    ["Instance", status.instance], ["Version", status.version], ["Started", date(status.started_at)], ["Up", duration(status.uptime_seconds)],
    ["Rejected", count(status.counters.rejected)], ["Dead letters", count(status.counters.dead_letters)],
  ]));
  const missed = Object.entries(status.gaps).filter(([, gap]) => gap.gaps > 0 || gap.lost > 0);
  show(parts.gaps, missed.length ? missed.map(([reason, gap]) => h("tr", {}, h("th", { scope: "row" }, reason.replaceAll("_", " "), h("small", {}, REASONS[reason] || "")), h("td", {}, count(gap.gaps)), h("td", {}, gap.lost ? count(gap.lost) : "unknown"))) : h("tr", {}, h("td", { colspan: 3, class: "empty" }, "Nothing was missed since the start.")));
}

const answers = (store) => (store.problem ? "holds rows back" : store.connected ? "answers" : "does not answer");

/** What keeps rows from being stored, and the command that mends it. */
function problem(store) {
  if (!store.problem) return null;
  const { holds, since, reason, remedy, needs_attention: attention } = store.problem;
  return h("section", { class: "card", role: "alert" }, h("div", { class: "card-head" }, h("h2", {}, attention ? "The store needs attention" : "The store is unavailable")), facts([
    ["Waiting", `${holds}, since ${date(since)}`], ["Reason", reason], ["To mend it", remedy ? h("code", {}, remedy) : attention ? "see the reason" : "nothing: it is tried again"],
  ]));
}

function listening(redis) {
  const connections = (redis.connections || []).map((connection) => [connection.name || "connection", state(Boolean(connection.connected), connection.error || (connection.connected ? "subscribed" : "down"))]);
  return [...connections, ["Unproven channels", redis.unproven && redis.unproven.length ? redis.unproven.join(", ") : "none"]];
}

function drawReader(status) {
  show(parts.state, state(status.ready, status.phase), state(status.store.connected, `store ${status.store.connected ? "answers" : "does not answer"}`));
  show(parts.problem, problem(status.store));
  show(parts.redis, facts([["commands", state(Boolean(status.redis.connected), status.redis.connected ? "up" : "down")], ...listening(status.redis)]));
  show(parts.spool, h("p", { class: "empty" }, "This server only reads; it has no pipeline."));
  show(parts.gaps, h("tr", {}, h("td", { colspan: 3, class: "empty" }, "This server only reads; see the runs for what is missing.")));
  show(parts.daemon, facts([["Instance", status.instance], ["Version", status.version], ["Up", duration(status.uptime_seconds)]]));
}

export function open(box) {
  parts = {
    rate: tile("Received", history.rate), rows: tile("Stored", history.rows), lag: tile("Lag", history.lag), pending: tile("Waiting", history.pending),
    state: h("div", { class: "states", role: "status" }), problem: h("div", {}), spool: h("div", {}), redis: h("div", {}), daemon: h("div", {}), gaps: h("tbody", {}),
  };
  const card = (title, ...children) => h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, title)), children);
  show(box,
    h("div", { class: "head" }, h("div", { class: "title" }, h("h1", {}, "Pipeline")), parts.state),
    parts.problem,
    h("section", { class: "tiles four", "aria-label": "Flow" }, [parts.rate, parts.rows, parts.lag, parts.pending].map((one) => one.box)),
    h("div", { class: "pair" }, card("Commands", control.panel()), card("What was missed", h("table", {}, h("thead", {}, h("tr", {}, ["Reason", "Gaps", "Messages"].map((text) => h("th", { scope: "col" }, text)))), parts.gaps))),
    h("div", { class: "triple" }, card("Spool", parts.spool), card("Redis", parts.redis), card("Daemon", parts.daemon)),
  );
  draw();
}

export function close() {
  parts = null;
}

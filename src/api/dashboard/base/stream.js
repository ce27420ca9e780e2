// The live stream: one connection, mended by itself, and the moments at which the store must be asked for what was missed.

import { topic } from "./dom.js";
import { delay } from "./backoff.js";
import { path, refused } from "./api.js";

const SILENCE_MS = 15000;
/** The daemon says something every second. */
const QUIET_MS = 3000;
const WATCH_MS = 3000;
const ASLEEP_MS = 5000;
const WHY_TIMEOUT_MS = 4000;
const TOO_MANY = 429;
const POLL_MS = 3000;

/** What arrives: `metrics`, `topology`, `event`, `activity`, `receipt`, `status`. */
export const live = {
  metrics: topic(),
  topology: topic(),
  event: topic(),
  activity: topic(),
  receipt: topic(),
  status: topic(),
  /** The daemon that the stream is of: what it has begun with. */
  hello: topic(),
  /** Something may have been missed: read it from the store. */
  behind: topic(),
  /** "live", "connecting", "offline". */
  state: topic(),
  /** Why the stream is refused, in the daemon's words. */
  refused: topic(),
};

let source = null;
let runs = [];
let place = null;
let retry = null;
let heard = 0;
let polling = null;
let known = "connecting";
let failures = 0;
/** What is to be called once the store has what was received until now: first without a place in the spool, then with it. */
const asked = new Set();
const waiting = new Map();

function note(state) {
  if (state === known) return;
  known = state;
  live.state.tell(state);
}

function handle(name, use) {
  source.addEventListener(name, (event) => {
    heard = Date.now();
    note("live");
    if (event.lastEventId) place = event.lastEventId;
    use(JSON.parse(event.data));
  });
}

/**
 * Calls `then` once the store has everything that was received until now; once, however often it is asked for meanwhile. What the
 * stream brings is stored a moment later, and much later while the store is away.
 */
export function stored(then) {
  asked.add(then);
}

/**
 * Without a pipeline nothing says when what was received is in the store: soon. Nor does anything say so of streams, of which other
 * daemons receive a part.
 */
function settle(spool, streams) {
  if (!spool) {
    asked.forEach((then) => setTimeout(then, POLL_MS));
    asked.clear();
    return;
  }
  const due = [...waiting].filter(([, target]) => spool.stored >= target).map(([then]) => then);
  due.forEach((then) => waiting.delete(then));
  for (const then of asked) {
    if (waiting.has(then)) continue;
    asked.delete(then);
    const isStored = spool.stored >= spool.end;
    if (!isStored) waiting.set(then, spool.end);
    if (streams.length > 0) setTimeout(then, POLL_MS);
    else if (isStored) due.push(then);
  }
  new Set(due).forEach((then) => then());
}

const catchUp = () => live.behind.tell("stored");

function open() {
  clearTimeout(retry);
  if (source) source.close();
  source = new EventSource(path("api/stream", { run_id: runs, last_event_id: place }));
  heard = Date.now();
  const mine = source;
  handle("hello", (hello) => {
    failures = 0;
    live.hello.tell(hello);
    // It may be another daemon, whose spool has other places.
    waiting.forEach((_, then) => asked.add(then));
    waiting.clear();
    // What was received before we listened is not in the stream, and in the store later.
    stored(catchUp);
    // A server that hears nothing has nothing to tell: the store is asked instead.
    clearInterval(polling);
    if (!hello.live) polling = setInterval(() => !document.hidden && live.behind.tell("poll"), POLL_MS);
    if (!hello.resumed) live.behind.tell("connected");
  });
  handle("status", ({ spool, redis }) => settle(spool, (redis && redis.streams) || []));
  handle("skipped", () => {
    live.behind.tell("skipped");
    // What was skipped just now is in the store later.
    stored(catchUp);
  });
  handle("seen", () => {});
  for (const name of ["metrics", "topology", "event", "activity", "receipt", "status"]) handle(name, live[name].tell);
  source.onerror = () => mine === source && failed();
}

/** The connection is gone, or was refused. The browser would try again, but not always, and not soon. */
function failed() {
  source.close();
  failures += 1;
  // A stream ends now and then, and goes on at once: nobody has to be told.
  if (failures > 1) note(failures > 2 ? "offline" : "connecting");
  clearTimeout(retry);
  retry = setTimeout(open, delay(failures));
  if (failures > 1) why();
}

/** An `EventSource` does not tell why it was refused; a question does. */
async function why() {
  const asked = source;
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), WHY_TIMEOUT_MS);
  try {
    const response = await fetch(path("api/stream", { run_id: runs }), { cache: "no-store", signal: limit.signal });
    if (response.ok || asked !== source) return;
    const body = await response.json().catch(() => null);
    live.refused.tell((body && body.detail) || `${response.status} ${response.statusText}`.trim());
    if (response.status === 401 || response.status === 403) refused.tell(response.status);
    if (response.status === TOO_MANY) live.behind.tell("poll");
  } catch {
    live.refused.tell(null);
  } finally {
    clearTimeout(timer);
    limit.abort();
  }
}

/** Begins, or goes on with other runs in view. */
export function follow(wanted) {
  if (source && String(wanted) === String(runs)) return;
  runs = [...wanted];
  open();
}

/** Tries again now, as after signing in. */
export const reopen = () => open();

/** The page was asleep, or its network away: what it had is old, and its connection may be dead without an error. */
function awake() {
  failures = 0;
  live.behind.tell("awake");
  if (source && (known !== "live" || Date.now() - heard > QUIET_MS)) open();
}

// A connection that died in silence (a network that changed) tells nobody; nor does a machine that slept.
let watched = Date.now();
setInterval(() => {
  const past = Date.now() - watched;
  watched = Date.now();
  if (past > WATCH_MS + ASLEEP_MS && !document.hidden) awake();
  else if (source && Date.now() - heard > SILENCE_MS) failed();
}, WATCH_MS);

let hiddenAt = 0;
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hiddenAt = Date.now();
  else if (known !== "live" || (hiddenAt && Date.now() - hiddenAt > ASLEEP_MS)) awake();
});
document.addEventListener("resume", awake);
window.addEventListener("pageshow", ({ persisted }) => persisted && awake());
window.addEventListener("online", () => {
  failures = 0;
  if (source) open();
});

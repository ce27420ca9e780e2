// The live stream: one connection, mended by itself, and the moments at which the store must be asked for what was missed.

import { topic } from "./dom.js";
import { path } from "./api.js";

const RETRY_MS = 2000;
const SILENCE_MS = 15000;
const ASLEEP_MS = 5000;
const POLL_MS = 3000;

/** What arrives: `metrics`, `topology`, `event`, `activity`, `receipt`, `status`. */
export const live = {
  metrics: topic(),
  topology: topic(),
  event: topic(),
  activity: topic(),
  receipt: topic(),
  status: topic(),
  /** Something may have been missed: read it from the store. */
  behind: topic(),
  /** "live", "connecting", "offline". */
  state: topic(),
};

let source = null;
let runs = [];
let place = null;
let retry = null;
let heard = 0;
let polling = null;
let known = "connecting";
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

/** Without a pipeline nothing says when what was received is in the store: soon. */
function settle(spool) {
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
    if (spool.stored >= spool.end) due.push(then);
    else waiting.set(then, spool.end);
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
  handle("status", ({ spool }) => settle(spool));
  handle("skipped", () => live.behind.tell("skipped"));
  handle("seen", () => {});
  for (const name of ["metrics", "topology", "event", "activity", "receipt", "status"]) handle(name, live[name].tell);
  source.onerror = () => {
    if (mine !== source) return;
    note(mine.readyState === EventSource.CLOSED ? "offline" : "connecting");
    // Refused for good (a restart, too many, signed out): the browser gives up, we do not.
    if (mine.readyState === EventSource.CLOSED) retry = setTimeout(open, RETRY_MS);
  };
}

/** Begins, or goes on with other runs in view. */
export function follow(wanted) {
  if (source && String(wanted) === String(runs)) return;
  runs = [...wanted];
  open();
}

/** Tries again now, as after signing in. */
export const reopen = () => open();

// A connection that died in silence (a laptop that slept, a network that changed) tells nobody.
setInterval(() => {
  if (source && Date.now() - heard > SILENCE_MS) {
    note("connecting");
    open();
  }
}, 3000);

let hiddenAt = 0;
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hiddenAt = Date.now();
  } else if (hiddenAt && Date.now() - hiddenAt > ASLEEP_MS) {
    live.behind.tell("awake");
    if (source && (source.readyState === EventSource.CLOSED || Date.now() - heard > SILENCE_MS)) open();
  }
});
window.addEventListener("online", () => source && open());

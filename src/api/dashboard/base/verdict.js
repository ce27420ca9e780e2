// The verdict on a daemon, from its status object: the words of `cascor-ingest status`, which src/cli/verdict.rs makes. Both are
// held to tests/fixtures/verdicts.json. No page: tested by itself.

/** Share of its capacity from which a spool that does not write to disk counts as full, in per cent. */
const FULL_PERCENT = 95;
/** Share of its capacity from which the verdict mentions the spool, in per cent. */
const FILLING_PERCENT = 50;
/** Lag from which a store that has never answered counts as away. */
const SILENT_SECONDS = 5;
/** Age of a status from which its daemon counts as gone: it writes one each second. */
const SILENT_AGE_SECONDS = 5;
/** Entries of streams that no daemon has read yet, from which the verdict mentions them. */
const UNREAD_ENTRIES = 1000;
const START_THE_STORE = "start the store; it is tried again, and records wait in the spool";

/** `{ok, state, findings: [{state, text, remedy}], figures, text}`; `state` is `OK`, or that of the worst finding. */
export function verdict(status) {
  const isStatus = status && typeof status.phase === "string" && typeof status.ready === "boolean";
  // What an old status says of the daemon is not true any more.
  const gone = isStatus ? silent(status) : finding("UNKNOWN", "its status is not that of a daemon", "which program wrote that key?");
  const findings = gone ? [gone] : problems(status);
  const told = gone ? [] : figures(status);
  const text = [...findings.map((one) => one.text), told.join(", ")].filter(Boolean).join("; ");
  return { ok: findings.length === 0, state: findings.length ? findings[0].state : "OK", findings, figures: told, text };
}

const finding = (state, text, remedy) => ({ state, text, remedy });

function problems(status) {
  const found = [stopping, spool, subscription, streams, store, paused, http].map((look) => look(status)).filter(Boolean);
  if (found.length === 0 && !status.ready) found.push(finding("NOT READY", (status.missing || []).join("; "), "see its log"));
  return found;
}

function silent({ age_seconds: age = null }) {
  const remedy = "start it again if it has ended; its log and its machine say why it is silent";
  return age !== null && age >= SILENT_AGE_SECONDS ? finding("NO ANSWER", `last sign of life ${time(age)} ago`, remedy) : null;
}

const stopping = (status) => (status.phase === "stopping" ? finding("STOPPING", "the daemon is about to end", "start it again") : null);

function spool(status) {
  if (!status.spool || status.spool.healthy !== false) return null;
  const memory = `${size(status.spool.memory_bytes || 0)} are in memory only and are lost with the process`;
  const used = usedPercent(status);
  if (used !== null && used >= FULL_PERCENT) {
    const remedy = "mend the store so that the spool drains, or raise `spool.capacity`";
    return finding("FULL", `the spool is full (${size(status.spool.capacity_bytes)}), ${memory}`, remedy);
  }
  return finding("FAILING", `the spool cannot write to disk, ${memory}`, "free or repair the disk of `spool.dir`; its log has the error");
}

function subscription({ redis }) {
  if (!redis) return null;
  const unproven = (redis.unproven || []).filter((name) => !(redis.streams || []).some((stream) => stream.name === name));
  if (unproven.length === 0) return null;
  const connections = redis.connections || [];
  const wrong = connections.find((connection) => connection.error);
  const text = `does not receive ${unproven.map((channel) => `\`${channel}\``).join(", ")}${wrong ? `: ${wrong.error}` : ""}`;
  const isDown = connections.some((connection) => connection.connected === false);
  return finding("NOT SUBSCRIBED", text, isDown
    ? "start Redis, or correct `redis.url`; the daemon connects by itself"
    : "permit these channels to the daemon's user in Redis (ACL)");
}

/** The stream that is not read, or else one that is read with fewer rights than are needed. */
function streams({ redis }) {
  const all = (redis && redis.streams) || [];
  const stream = all.find(({ reading }) => !reading) ?? all.find(({ error }) => error);
  if (!stream) return null;
  const error = stream.error || "";
  const remedy = error.includes("ACL SETUSER")
    ? "run this `ACL SETUSER` in Redis, as a user who may"
    : error.includes("is no stream")
      ? "delete or rename that key, or correct `redis.streams`"
      : error.startsWith("Redis answers")
        ? "correct what this error names; the daemon tries again by itself"
        : "start Redis, or correct `redis.url`; the daemon connects by itself";
  const why = error && `: ${error}`;
  return stream.reading
    ? finding("RESTRICTED", `the stream \`${stream.name}\` is read, but not looked after${why}`, remedy)
    : finding("NOT READING", `does not read the stream \`${stream.name}\`${why}`, remedy);
}

/** What a problem of the store keeps from being done; `serve` has no spool. */
function held(holds) {
  if (holds === "reads") return "nothing can be read";
  return `${!holds || holds === "store" ? "rows" : holds} wait in the spool`;
}

function store(status) {
  const { problem, connected } = status.store || {};
  const lag = status.lag_seconds ?? null;
  if (!problem) {
    // Before its first row a daemon has not heard from its store yet.
    const isAway = connected === false && (lag === null || lag >= SILENT_SECONDS);
    return isAway ? finding("HELD", "the store does not answer", START_THE_STORE) : null;
  }
  const what = problem.needs_attention ? "the store is misconfigured" : "the store is away";
  const since = (problem.since || "").slice(0, 19).replace("T", " ");
  const text = `${what}, ${held(problem.holds)} since ${since}: ${problem.reason}`;
  return finding("HELD", text, problem.remedy || (problem.needs_attention ? "mend what the reason names" : START_THE_STORE));
}

const paused = ({ paused: held, instance }) =>
  (held ? finding("PAUSED", "received and spooled, but not stored", `cascor-ingest control resume --target ${instance}`) : null);

function http(status) {
  const problem = status.http && status.http.problem;
  const remedy = "end that process, or set `http.listen` to another port; it is tried again";
  return problem ? finding("NO HTTP", `HTTP does not listen: ${problem}`, remedy) : null;
}

function figures(status) {
  // `serve` has no pipeline.
  if (!status.counters) return ["answers HTTP, receives nothing"];
  const told = [];
  const rate = status.received_per_second ?? null;
  if (rate !== null) told.push(`receiving ${rate > 0 && rate < 10 ? rate.toFixed(1) : rate.toFixed(0)}/s`);
  const lag = status.lag_seconds ?? null;
  if (lag !== null) told.push(`lag ${time(lag)}`);
  const some = (count, one, many) => (count > 0 ? [`${count} ${count === 1 ? one : many}`] : []);
  if (lag !== null && lag >= 1) told.push(...some(status.spool.pending_records, "record waits", "records wait"));
  const unread = ((status.redis && status.redis.streams) || []).reduce((sum, stream) => sum + (stream.lag || 0), 0);
  if (unread >= UNREAD_ENTRIES) told.push(`${unread} entries not read yet`);
  const used = usedPercent(status);
  if (used !== null && used >= FILLING_PERCENT) told.push(`spool ${used} % full`);
  told.push(...some(status.counters.dead_letters, "dead letter", "dead letters"), ...missed(status));
  if (status.latest && status.latest.problem) told.push(`latest keys are not written: ${status.latest.problem}`);
  if (status.access && status.access.problem) told.push(`tokens are those of before: ${status.access.problem}`);
  const certificate = status.access && status.access.certificate_problem;
  if (certificate) told.push(`the certificate is that of before: ${certificate}`);
  return told;
}

/** What was missed since the daemon started, on channels and of streams alike: with its number, and without. */
function missed({ gaps }) {
  // `sequence` tells once more, for each run, what the other reasons count.
  const found = Object.entries(gaps || {}).filter(([reason, gap]) => reason !== "sequence" && (gap.lost > 0 || gap.gaps > 0));
  const names = (list) => list.map(([reason]) => reason).sort();
  const [counted, uncounted] = [found.filter(([, gap]) => gap.lost > 0), found.filter(([, gap]) => !(gap.lost > 0))];
  const lost = counted.reduce((sum, [, gap]) => sum + gap.lost, 0);
  const atMost = names(counted).includes("trimmed_at_most") ? "at most " : "";
  const told = [];
  if (lost > 0) told.push(`${atMost}${lost} ${lost === 1 ? "message" : "messages"} lost (${names(counted).join(" ")})`);
  if (uncounted.length) told.push(`an unknown number of messages missed (${names(uncounted).join(" ")})`);
  return told;
}

function usedPercent({ spool: { used_bytes: used, capacity_bytes: capacity } = {} }) {
  return capacity > 0 && used !== undefined ? Math.floor((used * 100) / capacity) : null;
}

/** A time as a person reads it. */
export function time(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** A size as a person reads it. */
export function size(bytes) {
  for (const [scale, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (bytes >= scale) return `${(bytes / scale).toFixed(1)} ${unit}`;
  }
  return `${bytes} B`;
}

// Numbers, times and names as people read them.

const DASH = "–";

/** A field of a row: a number that JSON does not have is its name, `NaN`, `Infinity` or `-Infinity`. */
export function fieldOf(row, name) {
  const value = row[name];
  if (value !== null && value !== undefined) return value;
  return (row.non_finite || []).includes(name) ? (row.infinite || {})[name] ?? "NaN" : value;
}

/** A loss or a weight: four digits that matter. */
export function number(value, digits = 4) {
  if (value === null || value === undefined) return DASH;
  if (typeof value === "string") return value;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2).replace(/\.?0+e/, "e");
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

export const count = (value) => (value === null || value === undefined ? DASH : Number(value).toLocaleString("en"));

/** A number with its noun: `1 row`, `2 rows`. */
export const counted = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

export const percent = (value) => (value === null || value === undefined ? DASH : `${(value * 100).toFixed(1)} %`);

export function bytes(value) {
  if (value === null || value === undefined) return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${at === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[at]}`;
}

/** A length of time in seconds. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return DASH;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days > 0) return `${days} d ${hours} h`;
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${Math.floor(seconds % 60)} s`;
}

export const seconds = (text) => (text ? Date.parse(text) / 1000 : null);

/** How long ago, in one unit. */
export function ago(text) {
  if (!text) return DASH;
  const past = Math.max(0, Date.now() / 1000 - seconds(text));
  if (past < 5) return "now";
  if (past < 60) return `${Math.floor(past)} s ago`;
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  return past < 86400 ? `${Math.floor(past / 3600)} h ago` : `${Math.floor(past / 86400)} d ago`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });

export const clock = (text) => (text ? CLOCK.format(new Date(text)) : DASH);
export const date = (text) => (text ? DAY.format(new Date(text)) : DASH);

export const short = (id) => id.slice(0, 8);

/** A name within a text: one that is written from right to left does not turn what is around it. */
export const isolated = (name) => `\u2068${name}\u2069`;

/** What a run is called. */
export const runName = (run) => run.display_name || run.run_name || (run.dataset_name ? `${run.dataset_name} · ${short(run.run_id)}` : short(run.run_id));

/** Seconds of silence after which a running run is stale (`http.stale_after`), until the daemon tells another number. */
let staleAfter = 300;

export const setStaleAfter = (after) => (staleAfter = after ?? staleAfter);

/** The status to show now: a run that falls silent is stale before the next answer says so. */
export function statusOf(run) {
  const last = seconds(run.last_event_time || run.start_time);
  return run.status === "running" && last !== null && Date.now() / 1000 - last > staleAfter ? "stale" : run.status || "unknown";
}

// The configuration of a run, as a flat list: the keys of nested objects are joined with dots, as the daemon's search and sort do.

const DEPTH_MAX = 16;

function add(found, prefix, value, depth) {
  const nested = value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length > 0;
  if (!nested || depth === DEPTH_MAX) {
    found.set(prefix, value);
    return;
  }
  for (const [key, inner] of Object.entries(value)) add(found, prefix ? `${prefix}.${key}` : key, inner, depth + 1);
}

/** The keys and values of a configuration, in its own order; empty without one. */
export function flatten(json) {
  const found = new Map();
  const value = parse(json);
  if (value !== null && typeof value === "object" && Object.keys(value).length) add(found, Array.isArray(value) ? "config" : "", value, 0);
  return found;
}

/** The configuration as a value; null when it is absent or no JSON. */
export function parse(json) {
  try {
    return json ? JSON.parse(json) : null;
  } catch {
    return null;
  }
}

const read = new Map();
const KEPT = 2000;

/** The same for a run; what was read is kept. */
export function configOf(run) {
  if (!run.config_json) return new Map();
  const known = read.get(run.run_id);
  if (known && known.json === run.config_json) return known.flat;
  const flat = flatten(run.config_json);
  if (read.size >= KEPT) read.clear();
  read.set(run.run_id, { json: run.config_json, flat });
  return flat;
}

/** A value as text. */
export function valueText(value) {
  if (value === undefined) return "–";
  return typeof value === "string" ? value : JSON.stringify(value);
}

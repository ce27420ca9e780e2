// What the page shows, as its address: `#/run/NAME?axis=step&smooth=0.6`. It survives a reload, and is a link for another person.

const VIEWS = ["runs", "run", "compare", "pipeline"];

/**
 * The parts of an address: `{view, run, params}`. `view` is null for an address without one; `run` is the run's id or name, of the
 * view `run` alone; `params` holds a list of texts for each name.
 */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [view, ...rest] = path.split("/");
  const params = {};
  for (const [name, value] of new URLSearchParams(query)) (params[name] ??= []).push(value);
  if (!VIEWS.includes(view)) return { view: null, run: null, params };
  const run = view === "run" && rest.length ? decode(rest.join("/")) : null;
  return { view: view === "run" && !run ? "runs" : view, run, params };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of these parts. A parameter may be a text, a number or a list; what is null, false or empty is left out. */
export function format({ view, run = null, params = {} }) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== false && one !== "") query.append(name, one === true ? "yes" : one);
    }
  }
  const path = run === null ? `#/${view}` : `#/${view}/${encodeURIComponent(run)}`;
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** The one value of a parameter, or null. */
export const one = (params, name) => (params[name] ? params[name][params[name].length - 1] : null);

/** The address of the page now. */
export const current = () => parse(location.hash);

/** Changes parameters of the address, and leaves the others; the page stays as it is, and `back` goes to the view before. */
export function update(changes) {
  const now = current();
  history.replaceState(history.state, "", format({ ...now, params: { ...now.params, ...changes } }));
}

/** Shows something else; `back` returns. */
export function go(address) {
  location.hash = format(address);
}

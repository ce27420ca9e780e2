// What a list of runs is asked for: between the address of the page and the parameters of `GET api/runs`.

export const STATUSES = ["running", "stale", "completed", "failed", "stopped"];
export const NEWEST_FIRST = { sort: "start_time", order: "desc" };
const ARCHIVED = ["true", "any"];

const last = (params, name) => (params[name] ? params[name][params[name].length - 1].trim() : "");

/** The query that an address names; what it does not name is the default. */
export function fromAddress(params) {
  const [status, archived, order] = ["status", "archived", "order"].map((name) => last(params, name));
  return {
    q: last(params, "q"),
    status: STATUSES.includes(status) ? status : "",
    tags: [...new Set(params.tag || [])].filter((tag) => tag.trim()),
    dataset: last(params, "dataset"),
    archived: ARCHIVED.includes(archived) ? archived : "",
    sort: last(params, "sort") || NEWEST_FIRST.sort,
    order: order === "asc" ? "asc" : "desc",
  };
}

/** The parameters of the address; null for a default, which the address leaves out. */
export function toAddress(query) {
  const newestFirst = isNewestFirst(query);
  return {
    q: query.q || null,
    status: query.status || null,
    tag: query.tags,
    dataset: query.dataset || null,
    archived: query.archived || null,
    sort: newestFirst ? null : query.sort,
    order: newestFirst || query.order === "desc" ? null : query.order,
  };
}

/** The parameters of `GET api/runs`. */
export function toRequest(query) {
  const { sort, order } = isNewestFirst(query) ? { sort: "", order: "" } : query;
  return { q: query.q, status: query.status, tag: query.tags, dataset: query.dataset, archived: query.archived, sort, order };
}

export const isNewestFirst = (query) => query.sort === NEWEST_FIRST.sort && query.order === NEWEST_FIRST.order;

/** Whether the query leaves out runs, beside archived ones. */
export const isFiltered = (query) => Boolean(query.q || query.status || query.tags.length || query.dataset || query.archived);

/** The order after a click on the header of a column: numbers begin with the largest, texts with the first letter. */
export function sortedBy(query, column) {
  if (query.sort !== column.key) return { ...query, sort: column.key, order: column.text ? "asc" : "desc" };
  return { ...query, order: query.order === "desc" ? "asc" : "desc" };
}

const many = (count) => `${count.toLocaleString("en")} ${count === 1 ? "run" : "runs"}`;

/** What is to be known about an order, beside the order itself. */
function orderOf(sorted) {
  if (!sorted) return "";
  if (sorted.keys) return ` These runs have no key ${sorted.by.replace("config.", "")}; they have ${sorted.keys.join(", ") || "no configuration"}.`;
  return sorted.all ? "" : ` Sorted among the newest ${many(sorted.of)} only; older runs follow in a list of their own.`;
}

/**
 * What is said above the rows. `state`: `shown` runs, `looked` at so many, `busy` while the daemon still searches, `next` when there
 * are more, and `sorted` as the daemon tells it. That no run matches is said only once every run was compared.
 */
export function progress(query, { shown, looked, busy, next, sorted }) {
  const filtered = isFiltered(query);
  if (busy && sorted && sorted.sorting) return `Sorting, read ${many(sorted.of)} so far…`;
  const order = orderOf(sorted);
  if (busy) return looked ? `${many(shown)} so far, looked through ${many(looked)}, going on…` : "Loading…";
  if (next) return `${many(shown)} shown${filtered && looked ? `, looked through ${many(looked)}` : ""}; there are more.${order}`;
  if (shown) return `${many(shown)}${filtered ? (shown === 1 ? " matches." : " match.") : "."}${order}`;
  return filtered ? "No run matches." : "No runs yet.";
}

// The search and the filters above the table of runs.

import { h, show } from "../base/dom.js";
import { COLUMNS, columnOf } from "./columns.js";
import { STATUSES } from "./query.js";

const TYPING_MS = 250;

const option = (value, text, current) => h("option", { value, selected: value === current }, text);

/** The names of datasets and tags that these runs have, and those that are asked for. */
const offered = (values, asked) => [...new Set([...values.filter(Boolean), ...asked])].sort((a, b) => a.localeCompare(b));

/** `ask(changes)` changes the query. */
export function filters(query, ask) {
  let typing = null;
  const search = h("input", { type: "search", value: query.q, placeholder: "Search: name, tag, notes, lr=0.1", title: "Words that all occur in the name, id, dataset, tags, notes, creator or configuration. key=value compares a configuration key.", "aria-label": "Search runs by name, dataset, tag, notes or key=value", "data-search": "", oninput: () => {
    clearTimeout(typing);
    typing = setTimeout(() => ask({ q: search.value.trim() }), TYPING_MS);
  } });
  const select = (label, onchange) => h("select", { "aria-label": label, onchange: (event) => onchange(event.target.value) });
  const status = select("Status", (value) => ask({ status: value }));
  const dataset = select("Dataset", (value) => ask({ dataset: value }));
  const tag = select("Tag", (value) => value && ask({ tags: [...box.query.tags, value] }));
  const archived = select("Archived runs", (value) => ask({ archived: value }));
  // On a phone the table has no headers to sort by.
  const sort = select("Order", (value) => {
    const [key, order] = value.split(" ");
    ask({ sort: key, order });
  });
  const tags = h("div", { class: "chips" });
  const clear = h("button", { type: "button", class: "ghost small", onclick: () => {
    search.value = "";
    ask({ q: "", status: "", tags: [], dataset: "", archived: "" });
  } }, "Clear filters");
  const element = h("div", { class: "table-filters" }, search, h("div", { class: "selects" }, status, dataset, tag, archived, h("span", { class: "phone-only" }, sort)), tags);
  const box = { element, query, search };

  /** Shows what is asked for; `runs` are those whose datasets and tags are offered. */
  box.set = (now, runs, columns) => {
    box.query = now;
    if (document.activeElement !== search && search.value.trim() !== now.q) search.value = now.q;
    const datasets = offered(runs.map((run) => run.dataset_name), now.dataset ? [now.dataset] : []);
    const known = offered(runs.flatMap((run) => run.tags || []), []).filter((one) => !now.tags.includes(one));
    const sorts = [...new Map([...columns.filter((column) => !column.metric), columnOf(now.sort, runs) || { key: now.sort, label: now.sort }, ...COLUMNS.slice(0, 4)].map((column) => [column.key, column])).values()];
    fill(status, [option("", "Any status", now.status), ...STATUSES.map((one) => option(one, one, now.status))]);
    fill(dataset, [option("", "Any dataset", now.dataset), ...datasets.map((one) => option(one, one, now.dataset))]);
    fill(tag, [option("", now.tags.length ? "And tag…" : "Any tag", ""), ...known.map((one) => option(one, one, ""))]);
    fill(archived, [option("", "Not archived", now.archived), option("any", "With archived", now.archived), option("true", "Archived only", now.archived)]);
    fill(sort, sorts.flatMap(({ key, label }) => ["desc", "asc"].map((order) => option(`${key} ${order}`, `${label} ${order === "desc" ? "↓" : "↑"}`, `${now.sort} ${now.order}`))));
    [dataset.hidden, tag.hidden] = [datasets.length === 0, known.length === 0];
    const filtered = now.q || now.status || now.tags.length || now.dataset || now.archived;
    tags.hidden = !filtered;
    const key = JSON.stringify([now.tags, Boolean(filtered)]);
    if (tags.dataset.key === key) return;
    tags.dataset.key = key;
    show(tags, now.tags.map((one) => h("button", { type: "button", class: "chip", "aria-pressed": "true", "aria-label": `Without the tag ${one}`, onclick: () => ask({ tags: box.query.tags.filter((other) => other !== one) }) }, `#${one} ✕`)), clear);
  };
  box.close = () => clearTimeout(typing);
  return box;
}

/** New options, when they are others: an open list of options would close. */
function fill(box, options) {
  const key = options.map((one) => `${one.value}\n${one.textContent}\n${one.selected}`).join("\n\n");
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  show(box, options);
}

// The choice of columns.

import { h, show } from "../base/dom.js";
import { count } from "../base/format.js";
import { choices } from "./choices.js";
import { columnOf } from "./columns.js";
import { metricOf, titleOf } from "./metric_keys.js";

const more = (hidden) => hidden > 0 && h("p", { class: "hint" }, `${count(hidden)} more: the search finds them.`);

/**
 * The button and its list. `state()` gives `{runs, chosen, labels, waiting}`: the labels of metrics, and whether more of them are being
 * read. `choose(keys)` takes the new columns, null for the default ones; `opened()` is called when the list opens.
 */
export function picker(state, { choose, opened }) {
  let drawn = null;
  const search = h("input", { type: "search", placeholder: "Find a column", "aria-label": "Find a column", oninput: () => draw() });
  const lists = h("div", { class: "lists" });
  const reset = h("button", { type: "button", class: "small", onclick: () => {
    choose(null);
    draw();
  } }, "Default columns");
  const panel = h("div", { class: "popup columns", role: "dialog", "aria-label": "Columns", hidden: true }, search, lists, reset);
  const button = h("button", { type: "button", "aria-haspopup": "dialog", "aria-expanded": "false", onclick: () => open(panel.hidden) }, "Columns");

  /** Shows what there is to choose; only what is new is drawn, so that nothing moves under a person who chooses. */
  function draw() {
    if (panel.hidden) return;
    const { chosen, waiting, ...there } = state();
    const offered = choices({ chosen, ...there }, search.value.trim());
    const key = JSON.stringify([offered, waiting]);
    if (key !== drawn) fill(offered, waiting);
    drawn = key;
    for (const input of lists.querySelectorAll("[data-column] input")) input.checked = chosen.includes(input.closest("[data-column]").dataset.column);
  }

  /** A person who walks through the list by keyboard stays at their place. */
  function fill({ fixed, metrics, config }, waiting) {
    const focused = lists.contains(document.activeElement) && document.activeElement.closest("[data-column]");
    const top = lists.scrollTop;
    const groups = [...fixed.map(fieldset), metricsTable(metrics), fieldset(config)].filter(Boolean);
    const none = waiting ? "No column has this name so far: the metrics of the runs shown are being read." : "No column has this name. Metrics and configuration keys are those of the runs shown.";
    show(lists, groups.length ? groups : h("p", { class: "empty" }, none));
    lists.scrollTop = top;
    const again = focused && [...lists.querySelectorAll("[data-column]")].find((one) => one.dataset.column === focused.dataset.column);
    if (focused) (again ? again.querySelector("input") : search).focus({ preventScroll: true });
  }

  function fieldset({ title, keys, more: hidden }) {
    if (!keys.length) return null;
    const line = (key) => h("label", { class: "check", "data-column": key }, box(key), h("span", {}, columnOf(key).label));
    return h("fieldset", {}, h("legend", {}, title), keys.map(line), more(hidden));
  }

  function metricsTable({ rows, more: hidden }) {
    if (!rows.length) return null;
    const cell = (key) => h("td", {}, key && h("label", { "data-column": key }, box(key, titleOf(metricOf(key)))));
    const head = h("tr", {}, h("th", { scope: "col" }, "Metric"), ["Last", "Min", "Max"].map((word) => h("th", { scope: "col" }, word)));
    return h("fieldset", {}, h("legend", {}, "Metrics that runs log"), h("p", { class: "hint" }, "Min and max read every row of a run: they take longer."),
      h("table", { class: "metric-choice" }, h("thead", {}, head), h("tbody", {}, rows.map(({ label, keys }) => h("tr", {}, h("th", { scope: "row" }, label), keys.map(cell))))),
      more(hidden));
  }

  function box(key, name = null) {
    return h("input", { type: "checkbox", disabled: key === "name", "aria-label": name, onchange: (event) => {
      const now = state().chosen;
      choose(event.target.checked ? [...now, key] : now.filter((one) => one !== key));
    } });
  }

  function open(yes) {
    panel.hidden = !yes;
    button.setAttribute("aria-expanded", String(yes));
    if (!yes) return;
    search.value = "";
    drawn = null;
    draw();
    search.focus();
    opened();
  }

  const outside = (event) => !panel.hidden && !anchor.contains(event.target) && open(false);
  document.addEventListener("pointerdown", outside);
  const anchor = h("div", { class: "anchor", onkeydown: (event) => {
    if (event.key !== "Escape" || panel.hidden) return;
    event.stopPropagation();
    open(false);
    button.focus();
  } }, button, panel);
  return { box: anchor, draw, isOpen: () => !panel.hidden, close: () => document.removeEventListener("pointerdown", outside) };
}

// The choice of columns.

import { h, show } from "../base/dom.js";
import { COLUMNS, columnOf, configKeys } from "./columns.js";

/** How many keys are listed at once; the search finds the others. */
const LISTED = 200;

const METRIC = /^(final|best|total)_/;

/** The groups of columns that these runs can show, and the chosen ones among them that no shown run has. */
function groups(runs, chosen) {
  const configs = [...new Set([...configKeys(runs), ...chosen.filter((key) => key.startsWith("config."))])];
  return [
    ["Run", COLUMNS.filter(({ key }) => !METRIC.test(key)).map(({ key }) => key)],
    ["Metrics, last and best", COLUMNS.filter(({ key }) => METRIC.test(key)).map(({ key }) => key)],
    ["Configuration", configs],
  ];
}

/** The button and its list. `state()` gives `{runs, chosen}`; `choose(keys)` takes the new columns, null for the default ones. */
export function picker(state, choose) {
  const search = h("input", { type: "search", placeholder: "Find a column", "aria-label": "Find a column", oninput: () => draw() });
  const lists = h("div", { class: "lists" });
  const reset = h("button", { type: "button", class: "small", onclick: () => {
    choose(null);
    draw();
  } }, "Default columns");
  const panel = h("div", { class: "popup columns", role: "dialog", "aria-label": "Columns", hidden: true }, search, lists, reset);
  const button = h("button", { type: "button", "aria-haspopup": "dialog", "aria-expanded": "false", onclick: () => open(panel.hidden) }, "Columns");

  function draw() {
    const { runs, chosen } = state();
    const wanted = search.value.trim().toLowerCase();
    const shown = groups(runs, chosen).map(([title, keys]) => [title, keys.filter((key) => columnOf(key).label.toLowerCase().includes(wanted)).slice(0, LISTED)]).filter(([, keys]) => keys.length);
    show(lists, shown.length ? shown.map(([title, keys]) => h("fieldset", {}, h("legend", {}, title), keys.map((key) => line(key, chosen)))) : h("p", { class: "empty" }, "No column has this name. Configuration keys are those of the runs shown."));
  }

  function line(key, chosen) {
    const box = h("input", { type: "checkbox", checked: chosen.includes(key), disabled: key === "name", onchange: () => {
      const now = state().chosen;
      choose(box.checked ? [...now, key] : now.filter((one) => one !== key));
    } });
    return h("label", { class: "check", "data-column": key }, box, h("span", {}, columnOf(key).label));
  }

  function open(yes) {
    panel.hidden = !yes;
    button.setAttribute("aria-expanded", String(yes));
    if (!yes) return;
    search.value = "";
    draw();
    search.focus();
  }

  const outside = (event) => !panel.hidden && !box.contains(event.target) && open(false);
  document.addEventListener("pointerdown", outside);
  const box = h("div", { class: "anchor", onkeydown: (event) => {
    if (event.key !== "Escape" || panel.hidden) return;
    event.stopPropagation();
    open(false);
    button.focus();
  } }, button, panel);
  return { box, close: () => document.removeEventListener("pointerdown", outside) };
}

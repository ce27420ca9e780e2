// The configuration of a run: its keys, searched, and the whole as JSON.

import { h, say, show } from "../base/dom.js";
import { copyButton } from "../base/copy.js";
import { count } from "../base/format.js";
import { configOf, parse, valueText } from "../runs/config.js";

/** So many keys are seen at a glance; more of them have a search. */
const AT_A_GLANCE = 8;
/** The most rows; the search finds the others. */
const ROWS_MAX = 500;

/** `{box, set(run)}`; the box is hidden while the run has no configuration. */
export function configuration() {
  let run = null;
  let json;
  const search = h("input", { type: "search", placeholder: "Find a key or value", "aria-label": "Find in the configuration", oninput: () => draw() });
  const rows = h("tbody", {});
  const title = h("h3", {}, "Configuration");
  const note = h("p", { class: "empty", role: "status" });
  const copy = copyButton("Copy JSON", "of the configuration", () => JSON.stringify(parse(run.config_json), null, 2));
  const box = h("section", { class: "configuration", "aria-label": "Configuration", hidden: true },
    h("div", { class: "card-head" }, title, h("div", { class: "bar" }, search, copy)),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Keys of the configuration" }, h("table", { class: "keys-table" }, rows)), note);

  function draw() {
    const all = [...configOf(run)].map(([key, value]) => [key, valueText(value)]);
    const wanted = search.value.trim().toLowerCase();
    const found = all.filter(([key, value]) => `${key} ${value}`.toLowerCase().includes(wanted));
    say(title, `Configuration, ${count(all.length)} ${all.length === 1 ? "key" : "keys"}`);
    search.hidden = all.length <= AT_A_GLANCE;
    show(rows, found.slice(0, ROWS_MAX).map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, key), h("td", {}, value))));
    say(note, found.length ? (found.length > ROWS_MAX ? `${count(found.length - ROWS_MAX)} more: search for them.` : "") : "No key or value has this text.");
  }

  return {
    box,
    set(now) {
      run = now;
      if (json === run.config_json) return;
      json = run.config_json;
      box.hidden = configOf(run).size === 0;
      if (!box.hidden) draw();
    },
  };
}

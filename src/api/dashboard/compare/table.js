// The runs of a comparison: their numbers, and in what their configurations differ.

import { h, say, show } from "../base/dom.js";
import { count, number, runName, short } from "../base/format.js";
import { COLUMNS } from "../runs/columns.js";
import { known, missing } from "../runs/known.js";
import { pick, picked } from "../runs/picks.js";
import { differences } from "./differences.js";

const COLOURS = 8;
/** Columns of the run itself, in this order; those that no run has a value for are left out. */
const SHOWN = ["status", "dataset_name", "duration_seconds", "final_epoch", "total_hidden_units", "final_train_loss", "final_val_loss", "final_val_accuracy", "best_val_accuracy"];

const nameOf = (id) => (known.has(id) ? runName(known.get(id)) : short(id));

/** The colour of a run's curve; runs that do not fit have none. */
const swatch = (at, most) => (most !== null && at >= most ? null : h("i", { class: `swatch c${(at % COLOURS) + 1}` }));

const link = (id, at, most) => h("span", { class: "legend" }, swatch(at, most), h("a", { href: `#/run/${id}`, title: nameOf(id) }, nameOf(id)));

/** The last, smallest and largest value of each curve that has one. */
function valuesOf(answer) {
  const found = new Map();
  for (const curve of answer ? answer.curves : []) {
    const of = (values) => values.filter((value) => value !== null);
    const [last, low, high] = [of(curve.last), of(curve.min), of(curve.max)];
    if (last.length) found.set(curve.run_id, [last[last.length - 1], low.reduce((a, b) => Math.min(a, b)), high.reduce((a, b) => Math.max(a, b))]);
  }
  return found;
}

function numbers(ids, answer, most) {
  const runs = ids.map((id) => known.get(id));
  const values = valuesOf(answer);
  const columns = COLUMNS.filter(({ key }) => SHOWN.includes(key)).sort((a, b) => SHOWN.indexOf(a.key) - SHOWN.indexOf(b.key))
    .filter((column) => !answer || column.key !== `final_${answer.field}`)
    .filter((column) => runs.some((run) => run && column.show(run) !== ""));
  const field = values.size ? [`${answer.field} last`, "min", "max"].map((what) => h("th", { scope: "col", class: "number" }, what)) : [];
  const cell = (column, run) => h("td", { class: column.text ? "" : "number" }, run ? column.show(run) : "");
  const row = (id, at) => h("tr", { "data-run": id },
    h("th", { scope: "row" }, link(id, at, most), missing.has(id) && h("small", {}, "not in the store"), most !== null && at >= most && h("small", {}, "does not fit, not drawn")),
    field.length > 0 && (values.get(id) || [null, null, null]).map((value) => h("td", { class: "number" }, value === null ? "" : number(value))),
    columns.map((column) => cell(column, known.get(id))),
    h("td", {}, h("button", { type: "button", class: "ghost small", "aria-label": `Take ${nameOf(id)} out`, onclick: () => pick(id, false) }, "✕")));
  return [h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Run"), field, columns.map((column) => h("th", { scope: "col", class: column.text ? "" : "number" }, column.label)), h("td", {}, ""))), h("tbody", {}, ids.map(row))];
}

function keysTable(ids, rows, most, label) {
  const cell = (value) => h("td", { class: value === null ? "empty" : "" }, value ?? "–");
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    h("table", { class: "differences" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Key"), ids.map((id, at) => h("th", { scope: "col" }, link(id, at, most))))),
      h("tbody", {}, rows.map(({ key, values }) => h("tr", { "data-key": key }, h("th", { scope: "row" }, key), values.map(cell))))));
}

function configurations(ids, most, open) {
  const there = ids.filter((id) => known.has(id));
  const { differ, equal } = differences(there.map((id) => known.get(id)));
  const keys = (number) => `${count(number)} ${number === 1 ? "key" : "keys"}`;
  return [
    differ.length > 0 && keysTable(there, differ, most, "Keys that differ"),
    differ.length === 0 && h("p", { class: "empty" }, there.length < 2 ? "Select a second run to see in what the two differ." : equal.length ? `No difference: all ${keys(equal.length)} are equal.` : "None of these runs has a configuration."),
    equal.length > 0 && h("details", { class: "equal", open }, h("summary", {}, there.length < 2 ? keys(equal.length) : `${keys(equal.length)} equal in all runs`),
      h("table", { class: "differences" }, h("tbody", {}, equal.map(({ key, values }) => h("tr", { "data-key": key }, h("th", { scope: "row" }, key), h("td", {}, values[0])))))),
  ];
}

/** The cards: `{box, draw(), values(answer), limit(most)}`. */
export function panel() {
  let answer = null;
  let most = null;
  let key = null;
  const fits = h("p", { class: "fits", role: "status" });
  const table = h("table", { class: "compared" });
  const differ = h("div", {});
  const none = h("p", { class: "empty" }, "No run is selected. Tick runs in the ", h("a", { href: "#/runs" }, "list of runs"), ".");
  const scroll = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Numbers of the runs" }, table);
  const settings = h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Configuration")), differ);
  const box = h("div", {}, h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Numbers"), fits), none, scroll), settings);

  function draw() {
    const ids = [...picked];
    const now = JSON.stringify([ids, ids.map((id) => known.get(id)), [...missing], most, answer && answer.field, answer && [...valuesOf(answer)]]);
    if (now === key) return;
    key = now;
    const over = most !== null && ids.length > most;
    const within = ids.length ? `${count(ids.length)} of at most ${most} runs` : `At most ${most} runs fit in one comparison.`;
    say(fits, most === null ? "" : over ? `${count(ids.length)} runs are selected, and ${most} fit (http.max_runs): the first ${most} are drawn.` : within);
    fits.classList.toggle("failed", over);
    const { open = false } = differ.querySelector("details") || {};
    // A person who takes runs out by keyboard goes on with the next.
    const at = [...table.querySelectorAll("button")].indexOf(document.activeElement);
    show(table, ids.length ? numbers(ids, answer, most) : []);
    show(differ, configurations(ids, most, open));
    const buttons = [...table.querySelectorAll("button")];
    if (at >= 0 && buttons.length) buttons[Math.min(at, buttons.length - 1)].focus({ preventScroll: true });
    none.hidden = ids.length > 0;
    [scroll.hidden, settings.hidden] = [ids.length === 0, ids.length === 0];
  }

  return {
    box, draw,
    /** The curves, as `api/compare` has answered. */
    values(now) {
      answer = now;
      draw();
    },
    limit(now) {
      most = now;
      draw();
    },
  };
}

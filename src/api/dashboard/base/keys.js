// The keyboard: what each key does, and the dialog that tells.

import { h, show } from "./dom.js";
import * as bindings from "./key_bindings.js";

const dialog = document.getElementById("dialog");
/** How long the second key of two is waited for. */
const SECOND_MS = 1500;

let first = null;
let waiting = null;

/** Whether it is there to be seen. */
const isShown = (element) => element.getClientRects().length > 0;

const shown = (selector) => [...document.querySelectorAll(selector)].filter(isShown);

/** The search of the view; where it has none, that of the list of runs. */
function search() {
  const field = shown("main input[type=search]")[0] || shown("aside input[type=search]")[0];
  if (!field) return;
  field.focus();
  field.select();
}

/** The rows to walk through: those of the view when it is a list, else those of the list of runs. One link a row. */
function rows() {
  const links = shown("main [data-run] a[href^='#/run/']");
  const found = links.length ? links : shown("aside [data-run] a[href^='#/run/']");
  const seen = new Set();
  return found.filter((link) => {
    const row = link.closest("[data-run]");
    return !seen.has(row) && seen.add(row);
  });
}

function walk(step) {
  const links = rows();
  const row = document.activeElement.closest("[data-run]");
  const at = links.findIndex((link) => link.closest("[data-run]") === row);
  const marked = links.findIndex((link) => link.getAttribute("aria-current"));
  const next = links[at === -1 ? Math.max(0, marked) : Math.min(links.length - 1, Math.max(0, at + step))];
  if (!next) return;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

/** Ticks the row that has the focus. */
function tick() {
  const row = document.activeElement.closest("[data-run]");
  const box = row && row.querySelector("input[type=checkbox]");
  if (box) box.click();
}

/** The dialog with all keys. */
export function help() {
  if (dialog.open) return;
  const key = (text) => text.split(" ").flatMap((one, at) => [at ? " " : "", h("kbd", {}, one)]);
  show(dialog,
    h("h2", { id: "dialog-title" }, "Keys"),
    h("dl", { class: "keyboard" }, bindings.HELP.map(([keys, does]) => [h("dt", {}, keys.map((one, at) => [at ? " or " : "", key(one)])), h("dd", {}, does)])),
    h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.close() }, "Close")));
  dialog.showModal();
}

const ACTIONS = {
  search,
  help,
  next: () => walk(1),
  previous: () => walk(-1),
  tick,
  runs: () => { location.hash = "#/runs"; },
  compare: () => { location.hash = "#/compare"; },
  pipeline: () => { location.hash = "#/pipeline"; },
};

function press(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
  const { target } = event;
  if (bindings.isTyping(target)) {
    // Out of the field, so that the next key is a command again.
    if (event.key === "Escape") target.blur();
    return;
  }
  const found = bindings.action(first, event.key);
  clearTimeout(waiting);
  first = found.first;
  if (first) waiting = setTimeout(() => { first = null; }, SECOND_MS);
  if (!found.action) return;
  event.preventDefault();
  ACTIONS[found.action]();
}

/** Listens. The button is for those who do not know that `?` tells. */
export function mount() {
  document.addEventListener("keydown", press);
  document.getElementById("keys").addEventListener("click", help);
}

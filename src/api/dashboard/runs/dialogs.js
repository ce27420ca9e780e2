// Questions before a change: which tag, and whether runs are really to be deleted.

import { h } from "../base/dom.js";
import { count, runName, statusOf } from "../base/format.js";

/** Names that the question before a deletion lists. */
const LISTED = 8;

let serial = 0;

/** Shows a form, and returns what `answer()` gives once it is sent; null when it is left. */
function ask(title, parts, { label, danger = false, answer }) {
  return new Promise((resolve) => {
    serial += 1;
    const heading = `question-${serial}`;
    let result = null;
    const send = h("button", { type: "submit", class: danger ? "danger" : "strong" }, label);
    const form = h("form", { method: "dialog", onsubmit: (event) => {
      result = answer();
      if (result === null) event.preventDefault();
    } }, h("h2", { id: heading }, title), parts(send), h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => box.close() }, "Cancel"), send));
    const box = h("dialog", { class: "question", "aria-labelledby": heading, onclose: () => {
      box.remove();
      resolve(result);
    } }, form);
    document.body.append(box);
    box.showModal();
    const field = box.querySelector("input[type=text]");
    if (field) field.focus();
  });
}

/** Asks for a tag: `{tag}`, or null. `known` are offered. */
export function askTag(title, known) {
  serial += 1;
  const list = `tags-${serial}`;
  const field = h("input", { type: "text", required: true, maxlength: 200, list, autocomplete: "off" });
  return ask(title, () => [h("label", {}, "Tag", field), h("datalist", { id: list }, known.map((tag) => h("option", { value: tag })))], {
    label: "OK",
    answer: () => (field.value.trim() ? { tag: field.value.trim() } : null),
  });
}

function listed(runs) {
  const names = runs.slice(0, LISTED).map((run) => h("li", {}, runName(run)));
  const more = runs.length - names.length;
  return h("ul", { class: "named" }, names, more > 0 && h("li", { class: "empty" }, `and ${count(more)} more`));
}

/** Asks whether these runs are to be deleted: the name of one, or the number of many, is typed. `{force}`, or null. */
export function askDeletion(runs) {
  const word = runs.length === 1 ? runName(runs[0]) : String(runs.length);
  const running = runs.filter((run) => statusOf(run) === "running").length;
  const force = h("input", { type: "checkbox" });
  const title = runs.length === 1 ? "Delete this run?" : `Delete ${count(runs.length)} runs?`;
  return ask(title, (send) => {
    send.disabled = true;
    const field = h("input", { type: "text", autocomplete: "off", spellcheck: "false", oninput: () => {
      send.disabled = field.value.trim() !== word.trim();
    } });
    return [
      h("p", {}, `${runs.length === 1 ? "Its" : "Their"} metrics, events and snapshots are removed from the store for good. To only hide ${runs.length === 1 ? "it, archive it" : "them, archive them"}.`),
      runs.length > 1 && listed(runs),
      running > 0 && h("label", { class: "check" }, force, h("span", {}, `${runs.length === 1 ? "It is running" : `${count(running)} of them are running`}: delete all the same. What the trainer sends later begins the run anew.`)),
      h("label", {}, h("span", {}, runs.length === 1 ? "Type its name, " : "Type their number, ", h("b", { class: "word" }, word), ", to delete"), field),
    ];
  }, { label: runs.length === 1 ? "Delete run" : `Delete ${count(runs.length)} runs`, danger: true, answer: () => ({ force: force.checked }) });
}

// What a run is: tags, notes, dataset, times, names, configuration. People change tags and notes here, archive and delete the run.

import { h, say, show } from "../base/dom.js";
import { copyButton } from "../base/copy.js";
import { count, date, runName } from "../base/format.js";
import { destroy, edit } from "../runs/actions.js";
import { ran } from "../runs/columns.js";
import { askDeletion } from "../runs/dialogs.js";
import { renew } from "../runs/known.js";
import { configuration } from "./configuration.js";
import { EditedTags, EditedText } from "./edit.js";

/** Changes of other people are no message of the stream: the run is read again. */
const RENEW_MS = 5000;

/** The facts of a run, each with its name; what a run does not have is not listed. */
function facts(run) {
  const copied = (name, text) => [h("span", { class: "exact" }, text), copyButton("Copy", name, () => text)];
  const size = run.dataset_size === null ? "" : `, ${count(run.dataset_size)} samples`;
  return [
    ["Dataset", run.dataset_name && [h("a", { href: `#/runs?${new URLSearchParams({ dataset: run.dataset_name })}`, title: "Runs on this dataset" }, run.dataset_name), size]],
    ["Started", run.start_time && date(run.start_time)],
    ["Restarted", run.restarted_at && date(run.restarted_at)],
    ["Ended", run.end_time && date(run.end_time)],
    ["Last event", !run.end_time && run.last_event_time && date(run.last_event_time)],
    ["Duration", run.start_time && ran(run)],
    ["Parameters", run.total_parameters !== null && count(run.total_parameters)],
    ["Created by", run.created_by],
    ["Published name", run.run_name && copied("the published name", run.run_name)],
    ["Id", copied("the id", run.run_id)],
    ["Last edited", run.edited_at && `${date(run.edited_at)}${run.edited_by ? ` by ${run.edited_by}` : ""}`],
  ].filter(([, value]) => value);
}

/** The card: `{box, set(run), close()}`. */
export function card(runId) {
  let run = null;
  let key = null;
  const tags = new EditedTags(runId);
  const notes = new EditedText({ runId, name: "notes", field: "notes", read: (one) => one.notes || "", lines: true, view: h("p", { class: "notes" }) });
  const config = configuration();
  const list = h("dl", { class: "facts" });
  const problem = h("p", { class: "problem", role: "alert" });
  const archive = h("button", { type: "button", class: "small", "data-needs": "admin", "data-do": "archive", onclick: () => attempt("archived", () => edit(runId, { archived: !run.archived })) }, "Archive");
  const erase = h("button", { type: "button", class: "small danger", "data-needs": "admin", "data-do": "delete", onclick: () => attempt("deleted", deletion) }, "Delete…");
  const box = h("section", { class: "card details", "aria-label": "Details", tabindex: -1 },
    h("div", { class: "card-head" }, h("h2", {}, "Details"), h("div", { class: "bar" }, archive, erase)), problem,
    h("div", { class: "details-parts" }, h("div", { class: "about" }, h("h3", {}, "Tags"), tags.box, h("h3", {}, "Notes"), notes.box, list), config.box));

  async function deletion() {
    const answer = await askDeletion([run]);
    if (!answer) return;
    await destroy(runId, answer.force);
    location.hash = "#/runs";
  }

  async function attempt(what, act) {
    say(problem, "");
    [archive.disabled, erase.disabled] = [true, true];
    try {
      await act();
    } catch (error) {
      say(problem, `${runName(run)} was not ${what}: ${error.message}.`);
    }
    [archive.disabled, erase.disabled] = [false, false];
  }

  const timer = setInterval(() => document.hidden || renew(runId), RENEW_MS);
  return {
    box,
    set(now) {
      run = now;
      tags.set(run);
      notes.set(run);
      config.set(run);
      say(archive, run.archived ? "Unarchive" : "Archive");
      // A list that is made anew takes the focus and the selection from a person who copies.
      const told = facts(run);
      const text = JSON.stringify(told.map(([name, value]) => [name, Array.isArray(value) ? value.map((part) => part.textContent ?? part) : value]));
      if (text === key) return;
      key = text;
      show(list, told.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    },
    close: () => clearInterval(timer),
  };
}

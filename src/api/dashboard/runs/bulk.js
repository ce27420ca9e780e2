// What can be done with the selected runs, and what became of it.

import { h, say, show } from "../base/dom.js";
import { count, runName, short } from "../base/format.js";
import { limit } from "../compare/limit.js";
import { destroy, each, edit } from "./actions.js";
import { askDeletion, askTag } from "./dialogs.js";
import { known } from "./known.js";
import { comparison, pickAll, picked } from "./picks.js";
import { counted } from "./selection.js";

/** Failures that are listed, each by its run's name. */
const FAILURES_LISTED = 20;

const nameOf = (id) => (known.has(id) ? runName(known.get(id)) : short(id));

/** The bar. `shown()` gives the ids of the list. */
export function bar(shown) {
  let busy = false;
  let most = null;
  const words = h("b", { role: "status" });
  const compare = h("a", { class: "button", "data-do": "compare" }, "Compare");
  const message = h("div", { class: "outcome-note", role: "status", "aria-live": "polite" });
  const buttons = [["archive", "Archive"], ["unarchive", "Unarchive"], ["tag", "Add tag…"], ["untag", "Remove tag…"], ["delete", "Delete…"]].map(([what, label]) =>
    h("button", { type: "button", "data-needs": "admin", "data-do": what, class: what === "delete" ? "danger" : "", onclick: () => start(what) }, label));
  const clear = h("button", { type: "button", class: "ghost", "data-do": "clear", onclick: () => pickAll([]) }, "Clear selection");
  const line = h("div", { class: "line-of-buttons" }, words, compare, buttons, clear);
  const box = h("section", { class: "bulk", "aria-label": "Selected runs", hidden: true }, line, message);

  async function askLimit() {
    const value = await limit();
    if (value === most) return;
    most = value;
    draw();
  }

  function draw() {
    if (picked.size > 1 && most === null) askLimit();
    if (!busy) say(words, counted(picked, shown()));
    const fits = most === null || picked.size <= most;
    say(compare, fits ? "Compare" : `Compare the first ${most}`);
    compare.title = fits ? "" : `${most} runs fit in one comparison (http.max_runs of the daemon)`;
    compare.href = comparison();
    for (const button of buttons) button.disabled = busy;
    const runs = [...picked].map((id) => known.get(id)).filter(Boolean);
    const button = (what) => buttons.find((one) => one.dataset.do === what);
    button("archive").hidden = runs.length > 0 && runs.every((run) => run.archived);
    button("unarchive").hidden = !runs.some((run) => run.archived);
    button("untag").hidden = !runs.some((run) => (run.tags || []).length);
    line.hidden = picked.size === 0 && !busy;
    box.hidden = line.hidden && !message.childElementCount;
  }

  async function start(what) {
    const ids = [...picked];
    const job = await prepare(what, ids);
    if (!job) return;
    const names = new Map(ids.map((id) => [id, nameOf(id)]));
    busy = true;
    show(message);
    draw();
    const { done, failed } = await each(ids, job.act, (finished) => say(words, `${job.doing} ${count(finished)} of ${count(ids.length)}…`));
    busy = false;
    // What failed stays selected, so that it can be tried again; so does everything where a further step is likely.
    if (failed.length) pickAll(failed.filter(({ gone }) => !gone).map(({ id }) => id));
    else if (job.leaves) pickAll([...picked].filter((id) => !done.includes(id)));
    report(job, done, failed.map((failure) => ({ ...failure, name: names.get(failure.id) })));
    draw();
  }

  function report(job, done, failed) {
    const runs = (number) => (number === 1 ? "1 run" : `${count(number)} runs`);
    const dismiss = h("button", { type: "button", class: "ghost small", "aria-label": "Dismiss this message", onclick: () => {
      show(message);
      draw();
    } }, "✕");
    const listed = failed.slice(0, FAILURES_LISTED).map(({ name, why }) => h("li", {}, h("b", {}, name), `: ${why}`));
    show(message, h("p", { class: failed.length ? "failed" : "" }, done.length || !failed.length ? `${job.did} ${runs(done.length)}.` : "", failed.length ? ` ${runs(failed.length)} not changed${failed.every(({ gone }) => gone) ? "" : "; what can be tried again is still selected"}:` : "", dismiss),
      listed.length > 0 && h("ul", {}, listed, failed.length > listed.length && h("li", {}, `and ${count(failed.length - listed.length)} more`)));
  }

  return { box, draw };
}

/** What is to be done with each run, once a person has said what a question needs; null when they leave it. */
async function prepare(what, ids) {
  const runs = ids.map((id) => known.get(id) || { run_id: id, tags: [] });
  const tags = [...new Set((what === "untag" ? runs : [...known.values()]).flatMap((run) => run.tags || []))].sort();
  if (what === "archive" || what === "unarchive") {
    const archived = what === "archive";
    return { doing: archived ? "Archiving" : "Unarchiving", did: archived ? "Archived" : "Unarchived", leaves: true, act: (id) => edit(id, { archived }) };
  }
  if (what === "delete") {
    const answer = await askDeletion(runs);
    return answer && { doing: "Deleting", did: "Deleted", leaves: true, act: (id) => destroy(id, answer.force) };
  }
  const adds = what === "tag";
  const answer = await askTag(`${adds ? "Add a tag to" : "Remove a tag from"} ${ids.length === 1 ? nameOf(ids[0]) : `${count(ids.length)} runs`}`, tags);
  return answer && { doing: "Tagging", did: `${adds ? "Added" : "Removed"} the tag ${answer.tag}:`, leaves: false, act: (id) => edit(id, adds ? { add_tags: [answer.tag] } : { remove_tags: [answer.tag] }) };
}

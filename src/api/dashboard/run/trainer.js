// Commands to the trainer of this run: pause, resume, stop.

import { confirm } from "../base/confirm.js";
import { h, say } from "../base/dom.js";
import { clock, runName, statusOf } from "../base/format.js";
import { command } from "../runs/actions.js";

/** The states of a run whose trainer may still listen. */
const LISTENS = ["running", "stale"];

const STOP = "The trainer is asked to end the training; the run then ends as stopped. It cannot be resumed from here.";

/** The buttons and what became of the last command: `{box, set(run)}`. */
export function trainer(runId) {
  let run = null;
  const told = h("span", { class: "told", role: "status" });
  const problem = h("span", { class: "problem", role: "alert" });
  const button = (name, label, style = "") => h("button", { type: "button", class: `small ${style}`, "data-trainer": name, onclick: (event) => send(name, event.currentTarget) }, label);
  const buttons = [button("pause", "Pause"), button("resume", "Resume"), button("stop", "Stop…", "danger")];
  const group = h("div", { class: "bar", role: "group", "aria-label": "Commands to the trainer" }, h("span", { class: "caption" }, "Trainer"), buttons);
  const box = h("div", { class: "bar trainer", "data-needs": "admin", hidden: true }, group, told, problem);

  async function send(name, pressed) {
    if (name === "stop" && !(await confirm({ title: `Stop ${runName(run)}?`, text: STOP, act: "Stop training" }))) return;
    say(problem, "");
    say(told, "");
    buttons.forEach((one) => { one.disabled = true; });
    try {
      const { received_at } = await command(runId, name);
      say(told, `${clock(received_at)}: ${name} sent to the trainer of ${runName(run)}. A trainer sends no receipt.`);
    } catch (error) {
      say(problem, `${name} was not sent: ${error.message}.`);
    }
    buttons.forEach((one) => { one.disabled = false; });
    pressed.focus();
  }

  return {
    box,
    set(now) {
      run = now;
      group.hidden = !LISTENS.includes(statusOf(run));
      // What became of a stop is still to be read when the run has ended.
      box.hidden = group.hidden && !told.textContent;
    },
  };
}

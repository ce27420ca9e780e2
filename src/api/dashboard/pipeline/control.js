// Commands and their receipts.

import { confirm } from "../base/confirm.js";
import { h, say, show } from "../base/dom.js";
import { post } from "../base/api.js";
import { clock, duration } from "../base/format.js";
import { live } from "../base/stream.js";
import * as session from "../base/session.js";
import { COMMANDS, question, targets, withoutRight } from "./commands.js";

const KEPT = 12;

const receipts = [];
let box = null;
let forms = null;
let status = null;
/** What the form was made for: another scope or another server needs another one. */
let made = null;
let chosen = "";

function note(receipt) {
  const known = receipts.find((other) => other.id && other.id === receipt.id);
  // The stream may be faster than the answer that there is no receipt yet.
  if (known && known.outcome && !receipt.outcome) return;
  if (known) Object.assign(known, receipt);
  else receipts.unshift(receipt);
  receipts.length = Math.min(receipts.length, KEPT);
  draw();
}

function line(receipt) {
  const outcome = receipt.outcome || (receipt.error ? "failed" : "waiting");
  const detail = receipt.error || (receipt.detail && typeof receipt.detail === "object" && receipt.detail.spool ? `phase ${receipt.detail.phase}, ${receipt.detail.spool.pending_records} records wait` : receipt.detail);
  return h("li", { class: outcome, "data-command": receipt.command, "data-outcome": outcome },
    h("time", {}, clock(receipt.received_at || receipt.sent_at)), h("b", {}, receipt.command), h("span", { class: `outcome ${outcome}` }, outcome),
    h("span", {}, [receipt.instance, detail, receipt.took_ms !== null && receipt.took_ms !== undefined ? duration(receipt.took_ms / 1000) : ""].filter(Boolean).join(" · ")));
}

function draw() {
  if (!box) return;
  show(box, receipts.length ? receipts.map(line) : h("li", { class: "empty" }, "No command since this page was opened."));
}

async function send(command, to, button) {
  if (command.asks && !(await confirm(question(command, to)))) return;
  const id = `dashboard-${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
  note({ id, command: command.command, sent_at: new Date().toISOString() });
  button.disabled = true;
  try {
    const receipt = await post("api/control", { command: command.command, id, ...(to.target === null ? {} : { target: to.target }) });
    note({ ...receipt, id });
  } catch (error) {
    note({ id, command: command.command, error: error.message });
  }
  button.disabled = false;
  button.focus();
}

function form() {
  const choices = targets(status.instance, Boolean(status.counters));
  chosen = choices[0].value;
  const to = () => choices.find(({ value }) => value === chosen);
  const what = h("p", { class: "caption" }, to().does);
  const choose = (value) => {
    chosen = value;
    say(what, to().does);
  };
  return [
    h("fieldset", { class: "targets" }, h("legend", {}, "To"), choices.map(({ value, label }) =>
      h("label", {}, h("input", { type: "radio", name: "target", value, checked: value === chosen, onchange: () => choose(value) }), label)), what),
    h("ul", { class: "commands" }, COMMANDS.map((command) => {
      const id = `does-${command.command}`;
      return h("li", {},
        h("button", { type: "button", "data-send": command.command, "aria-describedby": id, onclick: (event) => send(command, to(), event.currentTarget) }, command.label),
        h("span", { id }, command.does));
    })),
  ];
}

/** The form for those who may send, and for the others why there is none. */
function offer() {
  const maySend = session.can("admin");
  if (!forms || session.scope() === null || (maySend && !status)) return;
  const key = [session.scope(), session.user(), maySend && status.instance, maySend && Boolean(status.counters)].join();
  if (key === made) return;
  made = key;
  show(forms, maySend ? form() : h("p", { class: "empty" }, withoutRight(session.user(), session.scope())));
}

/** The buttons and what came of them. */
export function panel() {
  box = h("ol", { class: "receipts", "aria-live": "polite", "aria-label": "Receipts", tabindex: 0 });
  forms = h("div", {});
  made = null;
  draw();
  offer();
  return h("div", { class: "control" }, forms, h("h3", {}, "Receipts"), box);
}

live.receipt.on(note);
live.status.on((now) => {
  status = now;
  offer();
});
session.changed.on(offer);

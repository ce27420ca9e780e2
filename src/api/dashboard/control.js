// Commands and their receipts.

import { h, show } from "./dom.js";
import { post } from "./api.js";
import { clock, duration } from "./format.js";
import { live } from "./stream.js";
import * as session from "./session.js";

const COMMANDS = [
  ["pause", "Pause", "Hold what is received; nothing is lost. Trainers on the channel pause as well."],
  ["resume", "Resume", "Write on."],
  ["flush", "Flush", "Write everything received so far."],
  ["reset", "Reset", "Delete the latest-state keys and close the open run. Stored rows stay."],
  ["status", "Status", "Ask for the status object."],
];
const KEPT = 12;

const receipts = [];
let box = null;
let toAll = true;
let instance = "";

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
  show(box, receipts.length ? receipts.map(line) : h("li", { class: "empty" }, "No command yet."));
}

async function send(command, button) {
  const id = `dashboard-${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
  note({ id, command, sent_at: new Date().toISOString() });
  button.disabled = true;
  try {
    const receipt = await post("api/control", { command, id, ...(toAll ? {} : { target: instance || "ingest" }) });
    note({ ...receipt, id });
  } catch (error) {
    note({ id, command, error: error.message });
    if (error.status === 401 || error.status === 403) session.ask(error.message);
  }
  button.disabled = false;
  button.focus();
}

/** The buttons and what came of them. */
export function panel() {
  box = h("ol", { class: "receipts", "aria-live": "polite", "aria-label": "Receipts" });
  const buttons = COMMANDS.map(([command, label, title]) => h("button", { type: "button", class: command === "pause" ? "strong" : "", "data-send": command, title, onclick: (event) => send(command, event.currentTarget) }, label));
  draw();
  return h("div", { class: "control" },
    h("div", { class: "buttons" }, buttons),
    h("label", { class: "check" }, h("input", { type: "checkbox", checked: toAll, onchange: (event) => { toAll = event.target.checked; } }), "to everyone on the control channel, trainers included"),
    box);
}

live.receipt.on(note);
live.status.on((status) => { instance = status.instance; });

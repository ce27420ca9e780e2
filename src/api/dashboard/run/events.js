// What happened in a run, and what of it is missing. Cards without content are not in the document.

import { get, newestOnly } from "../base/api.js";
import { h, show } from "../base/dom.js";
import { clock, count, number } from "../base/format.js";

const EVENTS = 200;
const GAPS = 50;
const WORDS = ["status", "phase", "reason", "error", "correlation", "hidden_unit_index"];

function line(row) {
  let payload = {};
  try {
    payload = JSON.parse(row.payload_json) ?? {};
  } catch {
    payload = {};
  }
  const data = { ...payload, ...(payload.data || {}), ...((payload.data || {}).details || {}) };
  const words = WORDS.filter((name) => data[name] !== undefined && typeof data[name] !== "object").map((name) => `${name.replaceAll("_", " ")} ${typeof data[name] === "number" ? number(data[name], 3) : data[name]}`);
  return h("li", {}, h("time", { datetime: row.timestamp }, clock(row.timestamp)), h("b", {}, row.type.replaceAll("_", " ")), h("span", {}, [row.epoch !== null && `epoch ${count(row.epoch)}`, ...words].filter(Boolean).join(", ")));
}

function gapLine(gap) {
  const what = gap.seq ? `not stored, seq ${gap.seq.join(" to ")}` : gap.reason.replaceAll("_", " ");
  return h("li", { "data-reason": gap.reason }, h("b", {}, gap.lost === null ? "unknown" : count(gap.lost)), ` ${what}, ${clock(gap.from * 1000)} to ${clock(gap.to * 1000)}`);
}

export class Events {
  constructor(runId) {
    this.runId = runId;
    this.asking = newestOnly();
    const card = (title, list) => h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, title)), list);
    this.events = h("ol", { class: "events", tabindex: 0, "aria-label": "Events" });
    this.gaps = h("ul", { class: "gaps", tabindex: 0, "aria-label": "What is missing" });
    this.cards = [[card("Events", this.events), this.events], [card("What is missing", this.gaps), this.gaps]];
    this.box = h("div", { class: "pair" });
  }

  async load() {
    const { answer, newest } = await this.asking(get(`api/runs/${this.runId}/events`, { limit: EVENTS }));
    if (!newest) return;
    show(this.events, answer.events.map(line));
    this.#place();
  }

  setGaps(gaps) {
    const key = JSON.stringify(gaps);
    if (this.key === key) return;
    this.key = key;
    show(this.gaps, gaps.slice(-GAPS).reverse().map(gapLine));
    this.#place();
  }

  #place() {
    const cards = this.cards.filter(([, list]) => list.children.length > 0).map(([card]) => card);
    if (cards.length !== this.box.children.length || cards.some((card, at) => card !== this.box.children[at])) show(this.box, cards);
  }
}

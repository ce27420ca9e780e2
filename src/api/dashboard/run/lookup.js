// The run that an address names: by its id, or by the name that was published or given.

import { h } from "../base/dom.js";
import { get } from "../base/api.js";
import { runName } from "../base/format.js";
import { live } from "../base/stream.js";
import * as address from "../base/address.js";
import { ID, changed, known, take } from "../runs/known.js";

/** No run has this name: what may have happened, and where to go on. */
function unknown(text) {
  return h("div", { class: "welcome", "data-unknown": "" }, h("h1", {}, "No such run"),
    h("p", {}, "No run has the id or the name ", h("b", {}, text), ". It may have been deleted or renamed, or its first message is not stored yet; then it appears here by itself."),
    h("p", {}, h("a", { href: address.format({ view: "runs", params: { q: text, archived: "any" } }) }, "Search all runs for it"), " · ", h("a", { href: "#/runs" }, "All runs")));
}

/** Several runs have this name. */
function several(text, candidates) {
  const link = (run) => h("li", {}, h("a", { href: `#/run/${run.run_id}` }, runName(run)), h("small", {}, [run.run_name && run.run_name !== runName(run) && `published as ${run.run_name}`, run.run_id].filter(Boolean).join(" · ")));
  return h("div", { class: "welcome", "data-several": "" }, h("h1", {}, `${candidates.length} runs are called ${text}`), h("p", {}, "Choose one; its link holds its id, and is exact."), h("ul", { class: "candidates" }, candidates.map(link)));
}

const failed = (text, why) => h("div", { class: "welcome" }, h("h1", {}, text), h("p", { role: "status" }, `The run cannot be read: ${why}. It is read again when the daemon answers.`));

/** Calls `show(id)` once the run is found, and until then `tell` with what is to be said. Returns what ends it. */
export function lookUp(text, { show, tell }) {
  const id = ID.test(text) ? text.toLowerCase() : null;
  let state = "asking";
  const end = () => {
    state = "over";
    leave.forEach((stop) => stop());
  };
  const note = (now, ...parts) => {
    state = now;
    tell(...parts);
  };
  const ask = async () => {
    state = "asking";
    try {
      const { run } = await get(`api/runs/${encodeURIComponent(text)}`, { limit: 0, count: "none" });
      if (state === "over") return;
      end();
      take([run]);
      show(run.run_id);
    } catch (error) {
      if (state === "over") return;
      if (error.candidates.length) note("several", several(text, error.candidates));
      else if (error.status === 404 || error.status === 400) note("unknown", unknown(text));
      else note("failed", failed(text, error.message));
    }
  };
  // The store follows the stream by a moment: a run that is unknown now may be there soon.
  const isKnown = () => (id ? known.has(id) : [...known.values()].some((run) => run.run_name === text || run.display_name === text));
  const leave = [changed.on(() => state === "unknown" && isKnown() && ask()), live.behind.on(() => ["unknown", "failed"].includes(state) && ask())];
  if (id && known.has(id)) {
    end();
    show(id);
  } else {
    tell(h("p", { class: "summary", role: "status" }, "Loading…"));
    ask();
  }
  return end;
}

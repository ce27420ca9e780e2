// What is shown while there is no run.

import { h } from "../base/dom.js";

/** How to get a run: the demo, or a trainer of one's own. */
export const emptyState = () =>
  h("div", { class: "welcome" }, h("h1", {}, "Waiting for a run"),
    h("p", {}, "Runs appear here by themselves as soon as a trainer publishes. To see one now:"), h("pre", {}, "cascor-ingest demo"),
    h("p", {}, "Or publish from your own trainer, a JSON message for each epoch or step:"),
    h("pre", {}, "redis-cli publish cascor:training '{\"run_id\": \"my-run\", \"epoch\": 1, \"loss\": 0.5}'"));

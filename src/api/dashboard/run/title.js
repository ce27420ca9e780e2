// The name of a run as a headline that is edited in place.

import { h } from "../base/dom.js";
import { runName, short } from "../base/format.js";
import { EditedText } from "./edit.js";

/** `{box, set(run), close()}` for the head of the page. */
export function title(runId) {
  const text = new EditedText({
    runId, name: "name", field: "name", view: h("h1", {}, short(runId)),
    read: (run) => run.display_name || "",
    initial: (run) => run.display_name || run.run_name || "",
    shown: runName,
    hint: (run) => (run.run_name ? `Without a name it is called ${run.run_name}, as it was published.` : "Links by the published name and by the id go on to work."),
  });
  text.box.classList.add("run-title");
  return { box: text.box, set: (run) => text.set(run), close: () => {} };
}

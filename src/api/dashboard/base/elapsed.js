// What takes long says so, and for how long it has taken.

import { h, show } from "./dom.js";

const EVERY_MS = 1000;

/** Tells in `note`, from the first second on, what is being done and since when; ends when the answer is called. */
export function elapsed(note, words) {
  const began = Date.now();
  const timer = setInterval(() => {
    // A reader of the screen is told once, not each second.
    const spent = h("span", { "aria-hidden": "true" }, ` ${Math.round((Date.now() - began) / 1000)} s`);
    if (note.firstChild && note.firstChild.textContent === words) note.lastChild.replaceWith(spent);
    else show(note, words, spent);
  }, EVERY_MS);
  return () => clearInterval(timer);
}

// Which key does what. No page: tested by itself.

/** `[keys, what they do]`, as the dialog shows them. */
export const HELP = [
  [["/"], "search in this view"],
  [["j", "k"], "next, previous run in the list"],
  [["Enter"], "open the run"],
  [["x"], "tick the run"],
  [["g r"], "runs"],
  [["g c"], "compare"],
  [["g p"], "pipeline"],
  [["Esc"], "leave a field, close a dialog"],
  [["?"], "these keys"],
];

const SINGLE = { "/": "search", "?": "help", j: "next", k: "previous", x: "tick" };
const AFTER_G = { r: "runs", c: "compare", p: "pipeline" };
/** What takes text, or walks through choices with the keys itself. */
const TEXT_TYPES = ["text", "search", "password", "number", "email", "url", "date", "datetime-local", "time"];

/** What a key means behind `first`: the action, or null; and the key that waits for a second one, or null. */
export function action(first, key) {
  if (first === "g" && Object.hasOwn(AFTER_G, key)) return { action: AFTER_G[key], first: null };
  if (key === "g") return { action: null, first: "g" };
  return { action: Object.hasOwn(SINGLE, key) ? SINGLE[key] : null, first: null };
}

/** Whether keys are text here. */
export function isTyping({ tagName, type, isContentEditable }) {
  if (isContentEditable || tagName === "TEXTAREA" || tagName === "SELECT") return true;
  return tagName === "INPUT" && TEXT_TYPES.includes(type);
}

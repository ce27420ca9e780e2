// Copying a text. A page that is not behind TLS has no clipboard of its own; then a selected field is copied.

import { h, say } from "./dom.js";

const SAID_MS = 1500;

async function copy(text) {
  if (navigator.clipboard && isSecureContext) return navigator.clipboard.writeText(text);
  const field = h("textarea", { value: text, class: "off-page", "aria-hidden": "true", tabindex: -1 });
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (focused) focused.focus({ preventScroll: true });
  if (!done) throw new Error("the browser does not allow it");
  return undefined;
}

/** A button that copies what `text()` gives, and says so. */
export function copyButton(label, name, text) {
  const button = h("button", { type: "button", class: "ghost small", "aria-label": `${label} ${name}`, onclick: async () => {
    try {
      await copy(text());
      say(button, "Copied");
    } catch (error) {
      say(button, "Not copied");
      button.title = error.message;
    }
    setTimeout(() => say(button, label), SAID_MS);
  } }, label);
  return button;
}

// Asks before something is done that cannot be undone.

import { h, show } from "./dom.js";

const dialog = document.getElementById("dialog");

/** Whether it shall be done. `act` names the button that does it; the focus is on the other one. */
export function confirm({ title, text, act }) {
  return new Promise((decide) => {
    let yes = false;
    const choose = (value) => () => {
      yes = value;
      dialog.close();
    };
    const cancel = h("button", { type: "button", onclick: choose(false) }, "Cancel");
    show(dialog,
      h("h2", { id: "dialog-title" }, title), h("p", {}, text),
      h("div", { class: "buttons" }, cancel, h("button", { type: "button", class: "danger", "data-confirm": "yes", onclick: choose(true) }, act)));
    dialog.addEventListener("close", () => decide(yes), { once: true });
    dialog.showModal();
    cancel.focus();
  });
}

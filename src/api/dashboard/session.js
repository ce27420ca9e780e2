// Signing in: a token becomes a session; the page keeps neither.

import { h, show, say } from "./dom.js";
import { get, post, remove, setCsrf } from "./api.js";
import { reopen } from "./stream.js";
import * as runs from "./runs.js";

const dialog = document.getElementById("dialog");
const button = document.getElementById("account");
let user = null;

function take(session) {
  user = session && session.name ? session : null;
  setCsrf(user ? user.csrf : null);
  document.documentElement.toggleAttribute("data-locked", Boolean(session && session.locked));
  button.hidden = !(user || (session && session.sign_in));
  say(button, user ? `${user.name} (${user.scope})` : "Sign in");
  button.title = user ? "Sign out" : "";
}

async function submit(event) {
  event.preventDefault();
  const field = dialog.querySelector("input");
  const problem = dialog.querySelector(".problem");
  try {
    take(await post("api/session", { token: field.value.trim() }));
    field.value = "";
    dialog.close();
    reopen();
    runs.refresh();
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  } catch (error) {
    say(problem, error.message);
    field.focus();
  }
}

/** Asks for a token. */
export function ask(why) {
  if (dialog.open) return;
  show(dialog, h("form", { method: "dialog", onsubmit: submit },
    h("h2", { id: "dialog-title" }, "Sign in"),
    h("p", {}, why || "Give a token of this daemon (http.tokens_file)."),
    h("label", {}, "Token", h("input", { type: "password", autocomplete: "current-password", required: true, spellcheck: "false" })),
    h("p", { class: "problem", role: "alert" }, ""),
    h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), h("button", { type: "submit", class: "strong" }, "Sign in"))));
  dialog.showModal();
}

async function leave() {
  try {
    await remove("api/session");
  } catch {
    // Gone already, which is as good.
  }
  location.reload();
}

export async function mount() {
  button.addEventListener("click", () => (user ? leave() : ask()));
  try {
    take(await get("api/session"));
  } catch (error) {
    const locked = error.status === 401;
    take({ sign_in: locked, locked });
    if (locked) ask("Reading needs a token here.");
  }
}

// Signing in: a token becomes a session; the page keeps neither. What the session may do is in `can` and in `data-scope`.

import { h, say, show, topic } from "./dom.js";
import { get, post, refused, remove, setCsrf } from "./api.js";
import * as words from "./session_words.js";
import { live, reopen } from "./stream.js";

/** Under this name the browser remembers the user that was signed in, so that the page can say that a session has ended. */
const WHO = "signed-in";

/** When the daemon could not say what the page may do, it is asked again. */
const AGAIN_MS = 5000;

const root = document.documentElement;
const dialog = document.getElementById("dialog");
const button = document.getElementById("account");
let session = { name: null, scope: null, sign_in: false };
let asked = false;
let checking = null;
let tokens = null;
/** Number of sign-ins so far: an answer to a request from before the last one says nothing about the present session. */
let signedIn = 0;

/** What the page may do has changed. */
export const changed = topic();

/** The scope in force: `admin`, `read`, `none`; null until the daemon has said. */
export const scope = () => root.dataset.scope || null;

/** Whether the page may do what needs this scope. What may not be done is not shown: see `data-needs` in style.css. */
export const can = (needed) => scope() === "admin" || (needed === "read" && scope() === "read");

/** The user of the session, or null. */
export const user = () => session.name;

function take(answer) {
  session = answer;
  setCsrf(session.csrf || null);
  root.dataset.scope = words.scopeOf(session);
  button.hidden = !(session.name || session.sign_in);
  say(button, session.name ? `${session.name} (${session.scope})` : "Sign in");
  if (session.name) {
    localStorage.setItem(WHO, session.name);
    asked = false;
  }
  changed.tell();
}

async function submit(event) {
  event.preventDefault();
  const field = dialog.querySelector("input");
  try {
    const answer = await post("api/session", { token: field.value.trim() });
    signedIn += 1;
    take(answer);
    field.value = "";
    dialog.close();
    reopen();
    live.behind.tell("signed in");
  } catch (error) {
    say(dialog.querySelector(".problem"), words.refusedToken(error));
    field.focus();
  }
}

/** Asks for a token. */
export function ask(why) {
  if (dialog.open) return;
  show(dialog, h("form", { method: "dialog", onsubmit: submit },
    h("h2", { id: "dialog-title" }, "Sign in"),
    h("p", {}, why || "Give a token of this daemon (`http.tokens_file`). One with the scope `admin` may also send commands and change runs."),
    h("label", {}, "Token", h("input", { type: "password", autocomplete: "current-password", required: true, spellcheck: "false" })),
    h("p", { class: "problem", role: "alert" }, ""),
    h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), h("button", { type: "submit", class: "strong" }, "Sign in"))));
  dialog.showModal();
}

/** Asks once, however many requests are refused, until somebody has signed in. */
function askOnce(why) {
  if (asked) return;
  asked = true;
  ask(why);
}

async function leave() {
  localStorage.removeItem(WHO);
  try {
    await remove("api/session");
  } catch {
    // Gone already, which is as good.
  }
  location.reload();
}

function account() {
  if (!session.name) return ask();
  const act = (label, then) => h("button", { type: "button", onclick: then }, label);
  show(dialog,
    h("h2", { id: "dialog-title" }, `Signed in as ${session.name}`),
    h("p", {}, words.may(session.scope)),
    h("div", { class: "buttons" },
      act("Use another token", () => { dialog.close(); ask(); }), act("Sign out", leave), act("Close", () => dialog.close())));
  return dialog.showModal();
}

/** Asks the daemon what this page may do, after a refusal or a pause; says once why it may less than before. */
export function check() {
  checking ??= look().finally(() => {
    checking = null;
  });
  return checking;
}

async function look() {
  const before = session.name || localStorage.getItem(WHO);
  const then = signedIn;
  let answer;
  try {
    answer = await get("api/session");
  } catch (error) {
    // Without Redis no session can be looked up, and the daemon may be away: what was known stays.
    if (error.status === 0 || error.status >= 500) {
      if (then === signedIn && scope() === null) take({ name: null, scope: null, sign_in: true });
      setTimeout(check, AGAIN_MS);
      return;
    }
    answer = { name: null, scope: null, sign_in: error.status === 401, locked: true };
  }
  if (!answer.name && answer.sign_in) answer.locked = answer.locked || !(await isOpen());
  if (then !== signedIn) return;
  take(answer);
  const ended = Boolean(before && !answer.name && answer.sign_in);
  if (ended) localStorage.removeItem(WHO);
  if (ended) askOnce(words.ended(before));
  else if (answer.locked && answer.sign_in) askOnce("Reading needs a token here.");
}

/** Whether reading needs no token. */
async function isOpen() {
  try {
    await get("api/status");
    return true;
  } catch (error) {
    return error.status !== 401 && error.status !== 403;
  }
}

export async function mount() {
  button.addEventListener("click", account);
  // A page that may not read is refused all the time.
  refused.on(() => scope() !== "none" && check());
  live.behind.on((why) => why !== "poll" && why !== "stored" && check());
  // Tokens were added or removed while the page is open.
  live.status.on(({ access }) => {
    const now = JSON.stringify(access && access.tokens);
    if (tokens !== null && tokens !== now) check();
    tokens = now;
  });
  await check();
}

// What is said about tokens and sessions, and what a session may do. No page, no requests: tested by itself.

/** What the answer of `GET /api/session` allows: without tokens everything, to somebody who is not signed in at most reading. */
export function scopeOf({ name, scope, sign_in: needsToken, locked }) {
  if (name) return scope;
  if (locked) return "none";
  return needsToken ? "read" : "admin";
}

/** Why a token that was typed is refused. */
export function refusedToken({ status, message }) {
  if (status === 401) return `${capital(message)}. It is mistyped, or was removed or replaced since.`;
  if (status === 429) return `${capital(message)}. Wait before the next try.`;
  return `${capital(message)}.`;
}

/** Why somebody who was signed in is no more. */
export const ended = (name) =>
  `The session of \`${name}\` has ended: its token was removed or replaced, it expired, or it was signed out in another window. Sign in again.`;

/** What a token of this scope may do. */
export const may = (scope) =>
  scope === "admin" ? "This token may read, send commands and change runs." : "This token may only read. Commands and changes need a token with the scope `admin`.";

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/\.$/, "");

// Questions to the daemon. What goes wrong is an `ApiError` with the daemon's own words.

import { topic } from "./dom.js";

export class ApiError extends Error {
  /** `candidates`: the runs that an ambiguous name may mean. */
  constructor(status, detail, candidates = []) {
    super(detail);
    this.status = status;
    this.candidates = candidates;
  }
}

/** A question was refused for want of a token or a right. */
export const refused = topic();

const REFUSALS = [401, 403];
const SESSION = "api/session";

let csrf = null;

/** The token that requests of a signed-in page carry. */
export function setCsrf(token) {
  csrf = token;
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, "the daemon cannot be reached");
  }
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    body = null;
  }
  // What the sign-in itself is answered, its dialog says.
  if (REFUSALS.includes(response.status) && path !== SESSION) refused.tell(response.status);
  if (!response.ok) throw new ApiError(response.status, (body && body.detail) || `${response.status} ${response.statusText}`, (body && body.candidates) || []);
  return body;
}

/** A path with its parameters; what is undefined or empty is left out, lists are repeated. */
export function path(base, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") query.append(name, one);
    }
  }
  const text = query.toString();
  return text ? `${base}?${text}` : base;
}

export const get = (base, params, signal) => ask(path(base, params), { signal });

function change(method, base, body) {
  const headers = { "Content-Type": "application/json" };
  if (csrf) headers["X-CSRF-Token"] = csrf;
  return ask(base, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
}

export const post = (base, body) => change("POST", base, body);
export const patch = (base, body) => change("PATCH", base, body);
export const remove = (base) => change("DELETE", base);

/** Tells of the answer to each question whether it is to the newest one: answers may overtake each other. */
export function newestOnly() {
  let asked = 0;
  return async (question) => {
    asked += 1;
    const mine = asked;
    const answer = await question;
    return { answer, newest: mine === asked };
  };
}

/** A question whose route an older daemon may not have: then `other`. */
export async function optional(question, other) {
  try {
    return await question;
  } catch (error) {
    if (error instanceof ApiError && (error.status === 404 || error.status === 405)) return other;
    throw error;
  }
}

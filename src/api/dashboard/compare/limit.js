// How many runs fit in one comparison (`max_runs` of the settings), which the daemon tells when the stream begins.

import { live } from "../base/stream.js";

/** A page without a stream goes on without the limit. */
const PATIENCE_MS = 2000;

let tell;
let told = new Promise((resolve) => {
  tell = resolve;
});

live.hello.on(({ max_runs: most }) => {
  // Of another version, the daemon may not tell.
  tell(most ?? null);
  told = Promise.resolve(most ?? null);
});

/** The daemon's limit; null while it has not told. */
export const limit = () => Promise.race([told, new Promise((resolve) => {
  setTimeout(resolve, PATIENCE_MS, null);
})]);

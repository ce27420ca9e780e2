// How long to wait before the next try. No page: tested by itself.

const FIRST_MS = 250;
/** So that a daemon that was away for long is found within seconds. */
const MOST_MS = 5000;

/** The pause behind so many failures; `random` (0 to 1) spreads the pages that lost one daemon at the same time. */
export function delay(failures, random = Math.random()) {
  const full = Math.min(MOST_MS, FIRST_MS * 2 ** Math.max(0, Math.min(failures, 16) - 1));
  return full * (0.8 + 0.2 * random);
}

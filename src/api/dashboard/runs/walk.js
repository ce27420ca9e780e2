// Reads a list of runs: the daemon answers after a moment with what it has found, and says where the list goes on.

/**
 * Follows the pages until there are `wanted` runs, or no more. `ask(before, limit)` asks for a page. `told(state)` is called after
 * each with `{runs, next, looked, sorted}`: `runs` are those of this walk, `looked` counts what was compared with the filters.
 * Whoever wants it no longer says so by `isWanted`.
 */
export async function walk({ ask, wanted, from = null, told = () => {}, isWanted = () => true }) {
  const state = { runs: [], next: from, looked: 0, sorted: null };
  do {
    const page = await ask(state.next, wanted - state.runs.length);
    if (!isWanted()) return null;
    state.runs = [...state.runs, ...page.runs];
    state.next = page.next;
    state.looked += page.scanned ?? page.runs.length;
    state.sorted = page.sorted ?? state.sorted;
    told({ ...state });
  } while (state.next && state.runs.length < wanted);
  return state;
}

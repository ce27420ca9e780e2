// Work that is spread over pictures: a page with hundreds of charts scrolls without a jerk.

/** What is done for one picture, unless a single piece takes longer. */
const BUDGET_MS = 10;
/** A page that nobody sees is asked for no picture; it is drawn now and then, so that it is right when it is looked at. */
const HIDDEN_MS = 500;

const work = new Map();
let frame = null;
let timer = null;

function wake() {
  if (frame !== null || work.size === 0) return;
  frame = requestAnimationFrame(run);
  timer = setTimeout(run, HIDDEN_MS);
}

async function run() {
  cancelAnimationFrame(frame);
  clearTimeout(timer);
  const started = performance.now();
  while (work.size > 0 && performance.now() - started < BUDGET_MS) {
    const [key, task] = work.entries().next().value;
    work.delete(key);
    task();
    // The chart library draws in a microtask: its time counts, too.
    await null;
  }
  frame = null;
  wake();
}

/** Does this in one of the next pictures; once, however often it is asked for with the same key. */
export function soon(key, task) {
  work.set(key, task);
  wake();
}

/** No more. */
export const forget = (key) => work.delete(key);

/** A browser refuses to change the address hundreds of times within seconds, as while a slider is dragged. */
const SETTLED_MS = 150;

/** Does this once nothing has asked for it for a moment: `{ask(), stop()}`. */
export function settled(act) {
  let timer = null;
  return {
    ask() {
      clearTimeout(timer);
      timer = setTimeout(act, SETTLED_MS);
    },
    stop: () => clearTimeout(timer),
  };
}

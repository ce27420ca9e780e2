// Where each view was scrolled to: a return from a run finds the list where it was.

import { current } from "./address.js";

/** How long a list may take to be as long as it was. */
const PATIENCE_MS = 5000;

const places = new Map();
let view = null;
let wanted = 0;

const name = () => {
  const { view: now, run } = current();
  return run === null ? String(now) : `${now}/${run}`;
};

function restore() {
  const left = view;
  view = name();
  // Another choice within the view.
  if (left === view) return;
  wanted += 1;
  const mine = wanted;
  const top = places.get(view) || 0;
  const until = performance.now() + PATIENCE_MS;
  const go = () => {
    if (mine !== wanted) return;
    window.scrollTo(0, top);
    if (Math.abs(window.scrollY - top) > 1 && performance.now() < until) requestAnimationFrame(go);
  };
  // Once the view is there.
  requestAnimationFrame(go);
}

export function mount() {
  history.scrollRestoration = "manual";
  view = name();
  const note = () => places.set(view, window.scrollY);
  window.addEventListener("scroll", () => view === name() && note(), { passive: true });
  // A page that is scrolled meanwhile stays there.
  for (const kind of ["wheel", "touchstart", "pointerdown", "keydown"]) window.addEventListener(kind, () => { wanted += 1; }, { passive: true });
  window.addEventListener("hashchange", restore);
}

// The runs that are selected: to be compared, tagged, archived or deleted. They are kept for the tab, and are in the address.

import { topic } from "../base/dom.js";
import * as address from "../base/address.js";
import { get } from "../base/api.js";
import { ID } from "./known.js";

/** More of them make an address that is too long to be sent. */
const ADDRESS_MAX = 32;
const STORED = "picked";

/** Their ids. */
export const picked = new Set(stored());
/** What is selected has changed. */
export const picks = topic();

function stored() {
  try {
    return JSON.parse(sessionStorage.getItem(STORED) || "[]");
  } catch {
    return [];
  }
}

/** Selects these runs, and no others. */
export function pickAll(ids) {
  picked.clear();
  for (const id of ids) picked.add(id);
  picks.tell();
}

/** Selects a run, or no longer. */
export function pick(id, yes) {
  if (yes) picked.add(id);
  else picked.delete(id);
  picks.tell();
}

/** Selects the runs that an address names, by their ids or names. */
export async function fromAddress(params) {
  const named = params.run || [];
  if (!named.length || String(named) === String([...picked])) return;
  const ids = named.filter((text) => ID.test(text)).map((id) => id.toLowerCase());
  pickAll(ids);
  for (const text of named.filter((one) => !ID.test(one))) {
    try {
      const { run } = await get(`api/runs/${encodeURIComponent(text)}`, { limit: 0, count: "none" });
      pick(run.run_id, true);
    } catch {
      // No run, or several, have this name: there is nothing to select.
    }
  }
}

const inAddress = () => (picked.size <= ADDRESS_MAX ? [...picked] : []);

function note() {
  sessionStorage.setItem(STORED, JSON.stringify([...picked]));
  const { view } = address.current();
  if (view === "compare" || view === "runs") address.update({ run: inAddress() });
}

/** The address of the comparison of what is selected. */
export const comparison = () => address.format({ view: "compare", params: { run: inAddress() } });

picks.on(note);

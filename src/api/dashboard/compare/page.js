// Several runs beside each other: one metric of each on one axis, and their numbers and configurations in tables.

import { h, show } from "../base/dom.js";
import { live, stored } from "../base/stream.js";
import * as runs from "../runs/list.js";
import { CompareCurves } from "./curves.js";
import { limit } from "./limit.js";
import { panel } from "./table.js";

const RENEW_MS = 4000;

let curves = null;
let leave = [];
let timer = null;

export function open(box) {
  const table = panel();
  const mine = new CompareCurves((answer, most) => {
    table.limit(most);
    table.values(answer);
  });
  curves = mine;
  // Also said while no run is selected.
  limit().then(table.limit);
  show(box, h("div", { class: "head" }, h("div", { class: "title" }, h("h1", {}, "Compare runs"), h("a", { href: "#/runs" }, "Choose runs"))), mine.box, table.box);
  runs.picked.forEach((id) => runs.known.has(id) || runs.renew(id));
  table.draw();
  const set = () => mine.set([...runs.picked]);
  set();
  const renew = () => {
    timer ??= setTimeout(() => {
      timer = null;
      stored(() => mine === curves && mine.load());
    }, RENEW_MS);
  };
  leave = [
    runs.picks.on(() => {
      table.draw();
      set();
    }),
    runs.changed.on(table.draw),
    live.metrics.on(({ run_id }) => runs.picked.has(run_id) && renew()),
    live.behind.on(() => mine.load()),
  ];
}

export function close() {
  leave.forEach((stop) => stop());
  if (curves) curves.close();
  clearTimeout(timer);
  [curves, leave, timer] = [null, [], null];
}

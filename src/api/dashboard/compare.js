// Several runs beside each other: one field of each on one axis, and their numbers in a table.

import { h, show, say } from "./dom.js";
import { get, newestOnly } from "./api.js";
import { count, number, percent, runName, short, statusOf } from "./format.js";
import { Chart } from "./chart.js";
import { live, stored } from "./stream.js";
import * as runs from "./runs.js";

const POINTS = 1500;
const RENEW_MS = 4000;
const COLOURS = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7", "--c8"];
const DASHES = [undefined, [6, 4], [2, 3]];
const FIELDS = [["train_loss", "Train loss"], ["val_loss", "Validation loss"], ["train_accuracy", "Train accuracy"], ["val_accuracy", "Validation accuracy"], ["hidden_units", "Hidden units"], ["learning_rate", "Learning rate"]];

let chart = null;
let leave = [];
let field = "train_loss";
let by = "epoch";
let log = false;
let parts = null;
let timer = null;
const asking = newestOnly();

async function load() {
  const ids = [...runs.picked];
  if (!parts) return;
  const mine = parts;
  if (ids.length === 0) {
    return say(mine.note, "Tick runs in the list to lay their curves over each other.");
  }
  try {
    const { answer, newest } = await asking(get("api/compare", { run_id: ids, field, by, max_points: POINTS }));
    if (!newest || mine !== parts) return;
    drawCurves(answer);
    const lost = answer.curves.reduce((sum, curve) => sum + curve.non_finite, 0);
    say(mine.note, `${count(answer.curves.reduce((sum, curve) => sum + curve.of, 0))} values by ${by}${lost ? `, ${count(lost)} not finite` : ""}.`);
  } catch (error) {
    if (mine === parts) say(mine.note, error.status === 404 ? "One of these runs is not in the store." : error.message);
  }
}

function drawCurves(answer) {
  const key = answer.curves.map((curve) => curve.run_id).join();
  const lines = answer.curves.map((curve, at) => ({
    label: runName(runs.known.get(curve.run_id) || curve),
    stroke: COLOURS[at % COLOURS.length],
    dash: DASHES[Math.floor(at / COLOURS.length) % DASHES.length],
  }));
  if (!chart || chart.key !== `${key}|${field}|${by}|${log}`) {
    if (chart) chart.destroy();
    chart = new Chart({ title: `Comparison of ${lines.length} runs`, lines, height: 380, percent: field.endsWith("accuracy") });
    // Time runs from each run's own start, so it is a count of seconds and no date.
    chart.by = by === "time" ? "seconds" : by;
    chart.log = log;
    chart.key = `${key}|${field}|${by}|${log}`;
    show(parts.plot, chart.box);
  }
  chart.set([answer.x, ...answer.curves.map((curve) => curve.last)]);
}

function table() {
  if (!parts) return;
  const rows = [...runs.picked].map((id, at) => {
    const run = runs.known.get(id) || { run_id: id, status: null };
    return h("tr", {},
      h("th", { scope: "row" }, h("i", { class: `swatch c${(at % COLOURS.length) + 1}` }), h("a", { href: `#/run/${id}` }, runName(run))),
      h("td", {}, statusOf(run)), h("td", {}, run.dataset_name || "–"), h("td", {}, count(run.final_epoch)), h("td", {}, count(run.total_hidden_units)),
      h("td", {}, number(run.final_train_loss)), h("td", {}, number(run.final_val_loss)), h("td", {}, percent(run.final_val_accuracy)), h("td", {}, percent(run.best_val_accuracy)), h("td", {}, runs.ran(run)),
      h("td", {}, h("button", { type: "button", class: "ghost small", "aria-label": `Take ${short(id)} out`, onclick: () => {
        runs.picked.delete(id);
        sessionStorage.setItem("picked", JSON.stringify([...runs.picked]));
        runs.picks.tell();
        runs.changed.tell();
      } }, "✕")),
    );
  });
  show(parts.rows, rows.length ? rows : h("tr", {}, h("td", { colspan: 11, class: "empty" }, "No run is picked.")));
}

const choice = (label, options, current, choose) =>
  h("label", { class: "choice" }, h("span", {}, label), h("select", { onchange: (event) => choose(event.target.value) }, options.map(([value, text]) => h("option", { value, selected: value === current }, text))));

export function open(box) {
  const note = h("p", { class: "curve-note", role: "status" }, "Loading…");
  const plot = h("div", {});
  const rows = h("tbody", {});
  parts = { note, plot, rows };
  const head = ["Run", "Status", "Dataset", "Epoch", "Units", "Train loss", "Val loss", "Val accuracy", "Best", "Time", ""];
  show(box,
    h("div", { class: "head" }, h("div", { class: "title" }, h("h1", {}, "Compare runs"))),
    h("section", { class: "card" },
      h("div", { class: "card-head" }, h("h2", {}, "Curves"), h("div", { class: "bar" },
        choice("Field", FIELDS, field, (value) => { field = value; load(); }),
        choice("Along", [["epoch", "Epoch"], ["step", "Step"], ["time", "Time since start"]], by, (value) => { by = value; load(); }),
        choice("Scale", [["", "Linear"], ["log", "Log"]], log ? "log" : "", (value) => { log = value === "log"; load(); }),
      )), note, plot),
    h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Numbers")),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Numbers of the runs" }, h("table", {}, h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))), rows))),
  );
  table();
  load();
  const renew = () => {
    timer ??= setTimeout(() => {
      timer = null;
      stored(load);
    }, RENEW_MS);
  };
  leave = [runs.picks.on(() => { table(); load(); }), runs.changed.on(table), live.metrics.on(({ run_id }) => runs.picked.has(run_id) && renew()), live.behind.on(load)];
}

export function close() {
  leave.forEach((stop) => stop());
  if (chart) chart.destroy();
  clearTimeout(timer);
  [chart, parts, leave, timer] = [null, null, [], null];
}

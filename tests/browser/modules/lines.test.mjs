import assert from "node:assert/strict";
import { test } from "node:test";

import { coloursOf, columnsOf, logMarks, logRange } from "../../../src/api/dashboard/charts/lines.js";
import { aligned, isReduced, placed } from "../../../src/api/dashboard/compare/aligned.js";

test("a logarithmic scale leaves out what is not positive, and counts it", () => {
  const columns = columnsOf({ x: [0, 1, 2, 3], values: [1, 0, -2, null], low: null, high: null }, { log: true });
  assert.deepEqual([columns.main, columns.below, columns.raw, columns.low], [[1, null, null, null], 2, null, null]);
});

test("smoothing keeps the raw curve behind, and averages what a logarithm leaves out, too", () => {
  const { main, raw } = columnsOf({ x: [0, 1, 2], values: [4, -2, 4], low: null, high: null }, { weight: 0.5, log: true });
  assert.deepEqual(raw, [4, null, 4]);
  assert.deepEqual(main.map((value) => value && Number(value.toFixed(6))), [4, null, Number((4 / 1.75).toFixed(6))]);
});

test("lines of a chart have different colours, those of a part of the data the same everywhere", () => {
  assert.deepEqual(coloursOf(["train", "val"]), ["--train", "--val"]);
  assert.deepEqual(coloursOf(["val"]), ["--val"]);
  for (const splits of [["train", "", "val", "eval", "test"], ["val", "val", "eval", "eval"]]) assert.equal(new Set(coloursOf(splits)).size, splits.length);
});

test("a logarithmic axis has marks at round numbers, a few and never less than two", () => {
  assert.deepEqual(logMarks(0.12, 1.1), [0.2, 0.3, 0.5, 0.7, 1]);
  assert.deepEqual(logMarks(0.01, 100), [0.01, 0.1, 1, 10, 100]);
  for (const [low, high] of [[1e-12, 1e9], [0.531, 0.549], [3, 4], [1e-300, 1e300], logRange(5, 5), logRange(1e-8, 1e-8)]) {
    const marks = logMarks(low, high);
    assert.ok(marks.length >= 2 && marks.length <= 13 && marks.every((value) => value >= low && value <= high), `${low} to ${high}: ${marks}`);
  }
  assert.deepEqual(logRange(null, null), [0.1, 1]);
});

test("runs are laid over each other by place, also by the time of day", () => {
  const curve = (run_id, last) => ({ run_id, last, min: last, max: last });
  const answer = { x: [0, 10, 20], curves: [curve("a", [1, null, 3]), curve("b", [null, 5, 6])] };
  assert.deepEqual(aligned(placed(answer, null)), { x: [0, 10, 20], columns: [[[1, null, 3], [1, null, 3], [1, null, 3]], [[null, 5, 6], [null, 5, 6], [null, 5, 6]]] });
  const wall = aligned(placed(answer, new Map([["a", 100], ["b", 110]])));
  assert.deepEqual([wall.x, wall.columns[0][0], wall.columns[1][0]], [[100, 120, 130], [1, 3, null], [null, 5, 6]]);
  assert.equal(isReduced(answer), false);
  assert.equal(isReduced({ curves: [{ last: [1], min: [0], max: [1] }] }), true);
});

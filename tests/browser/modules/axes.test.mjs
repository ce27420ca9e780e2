import assert from "node:assert/strict";
import { test } from "node:test";

import { between, choose, continued, marks, pair, place, spread } from "../../../src/api/dashboard/charts/axes.js";

const rising = (x) => x.every((value, at) => at === 0 || value >= x[at - 1]);
const always = () => true;

test("a count that begins anew goes on, and rows without one stay where the curve was", () => {
  assert.deepEqual(continued([0, 1, 2, 0, 1, null, 5]).x, [0, 1, 2, 3, 4, 4, 8]);
  assert.deepEqual(continued([null, null, 7, 8]).x, [7, 7, 7, 8]);
  assert.deepEqual(continued([null, null]).x, [0, 0]);
  assert.deepEqual(continued([3, 4, 0], { x: 12, raw: 2, offset: 10 }).x, [13, 14, 15]);
  assert.deepEqual(continued([null, 3], { x: 12, raw: 2, offset: 10 }).x, [12, 13]);
  assert.deepEqual(continued([0.5, 1.75, 0.25, 1]).x, [0.5, 1.75, 2, 2.75], "fractions, too");
});

test("100,000 steps with 1,000 an epoch are no sawtooth", () => {
  const steps = Array.from({ length: 100000 }, (_, at) => at);
  const epochs = continued(steps.map((step) => Math.floor(step / 1000))).x;
  for (const progress of [steps, steps.map((at) => at + 1)]) {
    const x = spread(epochs, progress, always);
    assert.ok(rising(x), "it never goes back");
    x.forEach((value, at) => assert.ok(Math.abs(value - at / 1000) < 1e-6, `${at} is at ${value}`));
    assert.equal(new Set(x).size, 100000, "no two rows at one place");
  }
});

test("rows of one epoch that tell of different metrics stay at the epoch", () => {
  assert.deepEqual(spread([0, 0, 1, 1], [0, 1, 2, 3], () => false), [0, 0, 1, 1]);
  assert.deepEqual(spread([0, 1, 2], [0, 1, 2], always), [0, 1, 2]);
});

test("the newest epoch is taken to be as long as the one before, until it is longer", () => {
  assert.deepEqual(spread([0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 4, 5], always), [0, 0.25, 0.5, 0.75, 1, 1.25]);
  const grown = spread([0, 0, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5], always);
  assert.deepEqual(grown, [0, 0.5, 1, 1.25, 1.5, 1.75]);
  assert.deepEqual(spread([4, 4], [10, 20], always), [4, 4.5], "the only epoch");
  assert.ok(rising(spread([0, 0, 5, 5], [7, 7, 7, 7], always)), "no progress at all");
});

test("between finds the place of a value, and stays within the ends", () => {
  assert.equal(between([0, 10, 20], [1, 2, 4], 15), 3);
  assert.equal(between([0, 10], [1, 2], -5), 1);
  assert.equal(between([0, 10], [1, 2], 99), 2);
  assert.equal(between([3], [8], 3), 8);
  assert.equal(between([], [], 3), 3);
  assert.equal(pair([0, 1, 1, 2], 1), 2);
});

test("the right axis by itself", () => {
  const facts = { rows: 1000, withEpoch: 0, withStep: 0, values: 1000, epochs: 0 };
  const best = (more) => choose({ ...facts, ...more }).best;
  assert.equal(best({ withEpoch: 1000, epochs: 1000 }), "epoch", "one row an epoch");
  assert.equal(best({ withEpoch: 1000, withStep: 1000, epochs: 1000 }), "epoch");
  assert.equal(best({ withEpoch: 1000, withStep: 1000, epochs: 10 }), "step", "many rows an epoch");
  assert.equal(best({ withEpoch: 1000, epochs: 10 }), "epoch", "many, but no step");
  assert.equal(best({ withEpoch: 1000, withStep: 1000, epochs: 500, values: 500 }), "epoch", "two rows an epoch, of two metrics");
  assert.equal(best({ withStep: 1000 }), "step");
  assert.equal(best({}), "relative", "neither: never the epoch 1.80e+9");
  assert.equal(best({ withEpoch: 30, withStep: 900, epochs: 30 }), "step");
  assert.equal(best({ rows: 0, values: 0 }), "relative");
  assert.deepEqual(choose({ ...facts, withEpoch: 3 }).kinds, ["epoch", "relative", "wall"]);
  assert.deepEqual(choose({ ...facts, withStep: 3 }).kinds, ["step", "relative", "wall"]);
});

test("places are told as people read them", () => {
  assert.equal(place("step", 100000), "100,000");
  assert.equal(place("epoch", 12), "12");
  assert.equal(place("epoch", 12.34567), "12.346");
  assert.equal(place("epoch", 1.5, true), "1", "rows that share an epoch are spread within it");
  assert.deepEqual(marks("epoch", true).values(null, [1, 1.25, 1.5, 2]), ["1", "", "", "2"]);
  assert.equal(place("relative", 3723), "1 h 2 min");
  assert.equal(place("step", null), "–");
  assert.deepEqual(marks("relative").values(null, [0, 0.5, 30, 90, 3600, 5400, 86400]), ["0", "0.5 s", "30 s", "1:30", "1 h", "1:30 h", "1 d"]);
  assert.deepEqual(marks("step").values(null, [0, 500, 20000, 1500000]), ["0", "500", "20k", "1.5M"]);
});

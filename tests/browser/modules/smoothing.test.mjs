import assert from "node:assert/strict";
import { test } from "node:test";

import { smooth } from "../../../src/api/dashboard/charts/smoothing.js";

/** TensorBoard's own loop. */
function tensorboard(values, weight) {
  let [last, count] = [0, 0];
  return values.map((value) => {
    if (!Number.isFinite(value)) return null;
    last = last * weight + (1 - weight) * value;
    count += 1;
    return last / (1 - weight ** count);
  });
}

const close = (got, want) => {
  assert.equal(got.length, want.length);
  got.forEach((value, at) => assert.ok(value === want[at] || Math.abs(value - want[at]) < 1e-9, `${at}: ${value}, not ${want[at]}`));
};
const ramp = (length) => Array.from({ length }, (_, at) => at);

test("regular values are smoothed as TensorBoard does", () => {
  const values = ramp(200).map((at) => Math.sin(at * 12.9898) * 3 + at / 50);
  for (const weight of [0.1, 0.6, 0.95, 0.999]) close(smooth(ramp(200), values, weight), tensorboard(values, weight));
  // By hand: 1; (0.5 * 1 + 3) / 1.5; (0.25 * 1 + 0.5 * 3 + 5) / 1.75.
  close(smooth([0, 1, 2], [1, 3, 5], 0.5), [1, 3.5 / 1.5, 6.75 / 1.75]);
});

test("without smoothing nothing changes, and a constant stays what it is", () => {
  assert.deepEqual(smooth(ramp(3), [1, null, 2], 0), [1, null, 2]);
  close(smooth(ramp(50), new Array(50).fill(0.25), 0.9), new Array(50).fill(0.25));
});

test("missing values and NaN neither count nor poison what follows", () => {
  const got = smooth(ramp(5), [1, NaN, null, Infinity, 1], 0.9);
  close(got, [1, null, null, null, 1]);
  // Another metric's rows between do not matter: the distance of its own values is usual.
  close(smooth([0, 1, 2, 3, 4], [2, null, 4, null, 6], 0.5).filter((value) => value !== null), tensorboard([2, 4, 6], 0.5));
});

test("after a long pause the past weighs less, and crowded values count one each", () => {
  const regular = smooth([0, 1, 2, 3], [0, 0, 0, 10], 0.9)[3];
  const paused = smooth([0, 1, 2, 50], [0, 0, 0, 10], 0.9)[3];
  assert.ok(paused > regular && paused > 9.5, `${regular} and ${paused}`);
  close(smooth([0, 1, 2, 2, 2, 3], [1, 2, 3, 4, 5, 6], 0.8), tensorboard([1, 2, 3, 4, 5, 6], 0.8));
  close(smooth([5, 5, 5], [1, 2, 3], 0.5), tensorboard([1, 2, 3], 0.5));
  assert.equal(smooth([0, 1, 1e15], [1, 2, 3], 0.9)[2], 3);
});

test("nothing and one value", () => {
  assert.deepEqual(smooth([], [], 0.9), []);
  assert.deepEqual(smooth([3], [7], 0.99), [7]);
});

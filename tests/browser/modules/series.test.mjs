import assert from "node:assert/strict";
import { test } from "node:test";

import { Recent, Series, holes } from "../../../src/api/dashboard/run/series.js";

const START = Date.parse("2026-11-29T12:00:00Z");
const at = (seconds) => new Date(START + 1000 * seconds).toISOString();
const run = (more = {}) => ({ recent: new Recent(), origin: null, fraction: false, ...more });
/** A point of the store; `spread` when it stands for several rows. */
const point = (second, members) => ({ timestamp: at(second), event_id: second, epoch: null, step: null, hidden_units: null, phase: null, rows: 1, non_finite: [], spread: {}, ...members });
/** A row of the stream. */
const row = (second, members) => ({ timestamp: at(second), event_id: second, epoch: null, step: null, hidden_units: null, phase: null, train_loss: null, extra: {}, non_finite: [], ...members });
const taken = (fields, metrics, { exact = true, replaced = 0, of = run() } = {}) => {
  const series = new Series(of, fields);
  series.take({ metrics, exact, replaced });
  return series;
};
const rising = (x) => x.every((value, n) => n === 0 || value >= x[n - 1]);

test("values of columns and of extra metrics are read from the store and from the stream", () => {
  const series = taken(["train_loss", "reward/mean", "extra.epoch", "from"], [point(0, { train_loss: 1, "reward/mean": 2, "extra.epoch": 0.5, "extra.from": 9, from: "2026" })]);
  assert.equal(series.append([row(1, { train_loss: 0.5, extra: { "reward/mean": 3, epoch: 0.75, from: 8 } })]), false);
  assert.deepEqual(series.values, { train_loss: [1, 0.5], "reward/mean": [2, 3], "extra.epoch": [0.5, 0.75], from: [9, 8] });
  assert.deepEqual(series.axis("relative"), [0, 1]);
  assert.deepEqual([series.newest("reward/mean"), series.best("reward/mean", Math.min), series.counts["reward/mean"]], [3, 2, 2]);
});

test("rows that the answer does not have yet are appended again, and no row twice", () => {
  const of = run();
  of.recent.push([row(1, { train_loss: 1 }), row(2, { train_loss: 2 }), row(3, { train_loss: 3 })]);
  const series = taken(["train_loss"], [point(1, { train_loss: 1 }), point(2, { train_loss: 2 })], { of });
  assert.deepEqual(series.values.train_loss, [1, 2, 3]);
  series.append([row(3, { train_loss: 3 }), row(4, { train_loss: 4 })]);
  assert.deepEqual(series.values.train_loss, [1, 2, 3, 4]);
  assert.equal(new Series(of, ["train_loss"]).append([row(5, {})]), false, "not before it was read");
});

test("rows of the stream are kept within a bound of rows, and of numbers", () => {
  const recent = new Recent();
  recent.push(Array.from({ length: 13000 }, (_, n) => row(n, {})));
  assert.deepEqual([recent.rows.length, recent.rows[0].event_id], [12000, 1000]);
  const wide = new Recent();
  const extra = Object.fromEntries(Array.from({ length: 500 }, (_, n) => [`m${n}`, n]));
  wide.push(Array.from({ length: 2000 }, (_, n) => row(n, { extra })));
  assert.ok(wide.rows.length < 1000 && wide.rows.at(-1).event_id === 1999, String(wide.rows.length));
});

test("cascade phases and new units begin epochs anew, and the axis goes on", () => {
  const rows = [];
  for (const [units, phase, epochs] of [[0, "output", 3], [0, "candidate", 2], [1, "output", 3]]) {
    for (let epoch = 0; epoch < epochs; epoch += 1) rows.push(point(rows.length, { epoch, hidden_units: units, phase, train_loss: 1 }));
  }
  const series = taken(["train_loss"], rows);
  assert.deepEqual(series.axis("epoch"), [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(series.phases().map(({ name, from, to }) => [name, from, to]), [["output", 0, 2], ["candidate", 3, 4], ["output", 5, 7]]);
  assert.deepEqual(series.arrivals(), [{ at: 5, units: 1 }]);
  assert.equal(series.choose().best, "epoch");
});

test("a run that is resumed is read again, since only the whole curve tells what is replaced", () => {
  const series = taken(["train_loss"], [0, 1, 2, 3].map((epoch) => point(epoch, { epoch, hidden_units: 0, phase: "output", train_loss: 1 })));
  assert.equal(series.append([row(9, { epoch: 2, hidden_units: 0, phase: "output", train_loss: 0.5 })]), true);
  assert.equal(series.time.length, 4, "until then it is not drawn");
  assert.equal(series.append([row(10, { epoch: 0, hidden_units: 1, phase: "output", train_loss: 0.4 })]), false, "a new unit is no resumption");
  assert.equal(taken(["train_loss"], [], { replaced: 7 }).replaced, 7);
});

test("100,000 steps with 1,000 an epoch, reduced, are no sawtooth on any axis", () => {
  const metrics = Array.from({ length: 2000 }, (_, n) => {
    const step = 50 * n + 49;
    return point(n, { step, epoch: Math.floor(step / 1000), rows: 50, train_loss: 1 / (n + 1), spread: { train_loss: { min: 0, max: 2, count: 50 } } });
  });
  for (const steps of [true, false]) {
    const series = taken(["train_loss"], steps ? metrics : metrics.map((one) => ({ ...one, step: null })), { exact: { method: "buckets", of: 100000 } });
    for (const kind of ["step", "epoch", "relative", "wall"]) assert.ok(rising(series.axis(kind)), kind);
    const epochs = series.axis("epoch");
    assert.equal(new Set(epochs).size, 2000, "no two points at one place");
    epochs.forEach((x, n) => assert.ok(Math.abs(x - (50 * n + 49) / 1000) < 0.06, `${n} is at ${x}`));
    assert.equal(series.choose().best, steps ? "step" : "epoch");
  }
});

test("epochs with fractions are used where the trainer logs them", () => {
  const series = taken(["train_loss"], [0.25, 0.5, 1.75].map((epoch, n) => point(n, { epoch: Math.floor(epoch), "extra.epoch": epoch, train_loss: 1 })), { of: run({ fraction: true }) });
  assert.deepEqual(series.axis("epoch"), [0.25, 0.5, 1.75]);
  series.append([row(5, { epoch: 2, train_loss: 1, extra: { epoch: 2.5 } })]);
  assert.deepEqual(series.axis("epoch"), [0.25, 0.5, 1.75, 2.5]);
});

test("without epochs and steps the axis is time", () => {
  const series = taken(["reward/mean"], [point(5, { "reward/mean": 1 }), point(65, { "reward/mean": 2 })], { of: run({ origin: START / 1000 }) });
  assert.deepEqual(series.choose(), { kinds: ["relative", "wall"], best: "relative" });
  assert.deepEqual(series.axis("relative"), [5, 65]);
  assert.equal(series.timeAt("relative", 35), START / 1000 + 35);
  assert.equal(series.place("relative", START / 1000 + 35), 35);
});

test("a part continues the counts of the whole, and its places do not move", () => {
  const whole = taken(["train_loss"], Array.from({ length: 100 }, (_, n) => point(n, { epoch: n % 50, hidden_units: n < 50 ? 0 : 1, phase: "output", step: 10 * n, train_loss: 1 })), { exact: { method: "buckets", of: 1000 } });
  const [from, to] = [whole.timeAt("epoch", 60), whole.timeAt("epoch", 70)];
  const part = whole.part(from, to);
  assert.equal(part.within.attempts, "raw");
  part.take({ metrics: Array.from({ length: 13 }, (_, n) => point(58 + n, { epoch: (58 + n) % 50, hidden_units: 1, phase: "output", step: 10 * (58 + n), train_loss: 1 })), exact: true });
  assert.deepEqual(part.axis("epoch"), Array.from({ length: 13 }, (_, n) => 58 + n));
  assert.deepEqual(part.axis("step"), Array.from({ length: 13 }, (_, n) => 580 + 10 * n));
  assert.ok(part.covers(from, to) && !part.covers(from - 30, to));
  const many = taken(["train_loss"], Array.from({ length: 100 }, (_, n) => point(n, { epoch: Math.floor(n / 20), step: n, train_loss: 1 })), { exact: { method: "buckets", of: 1000 } });
  const close = many.part(many.time[30], many.time[34]);
  close.take({ metrics: [30, 31, 32, 33].map((n) => point(n, { epoch: 1, step: n, train_loss: 1 })), exact: true });
  close.axis("epoch").forEach((x, n) => assert.ok(Math.abs(x - (30 + n) / 20) < 1e-9, String(x)));
});

test("values that are not finite are marked, and neither newest nor best", () => {
  const series = taken(["train_loss", "f1"], [point(0, { epoch: 0, train_loss: 2, f1: 1 }), point(1, { epoch: 1, train_loss: null, f1: 3, non_finite: ["train_loss"] })]);
  series.append([row(2, { epoch: 2, extra: { f1: null }, non_finite: ["f1"] })]);
  assert.deepEqual(series.odd, [{ at: 1, name: "train_loss" }, { at: 2, name: "f1" }]);
  assert.deepEqual([series.newest("train_loss"), series.newest("f1"), series.best("f1", Math.max)], ["NaN", "NaN", 3]);
  const only = taken(["f1"], [point(0, { epoch: 0, f1: null, non_finite: ["f1"] })]);
  assert.equal(only.counts.f1, 1, "a metric that was never finite is one");
});

test("nothing, and one point", () => {
  const none = taken(["f1"], []);
  assert.deepEqual([none.axis("epoch"), none.newest("f1"), none.best("f1", Math.min), none.choose().best], [[], null, null, "relative"]);
  const one = taken(["f1"], [point(3, { epoch: 7, f1: 0.5 })]);
  assert.deepEqual([one.axis("epoch"), one.axis("relative"), one.newest("f1"), one.choose().best], [[7], [0], 0.5, "epoch"]);
});

test("a hole that a daemon recorded is not told twice, and a pause that lost nothing is none", () => {
  const gap = { started_at: at(10), ended_at: at(12), lost: 5, reason: "sequence", source: "pubsub" };
  const missing = { after: at(10), before: at(12), count: 5, from: 3, to: 7 };
  assert.equal(holes({ gaps: [gap], missing: [missing] }).length, 1);
  assert.deepEqual(holes({ gaps: [{ ...gap, lost: 0 }] }), []);
  assert.equal(holes({ gaps: [{ ...gap, lost: null }] }).length, 1, "nobody knows how many");
  assert.deepEqual(holes({ gaps: [{ ...gap, source: "control" }], missing: [missing] }).map(({ reason, lost }) => [reason, lost]), [["missing_seq", 5]]);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { better, chartsOf, extraName, isAxis, labelOf, matches, memberOf, sectionsOf, splitOf } from "../../../src/api/dashboard/charts/metrics.js";

const ids = (labels) => chartsOf(labels).map(({ id, fields }) => `${id}: ${fields.join(" ")}`);

test("training, validation and plain values of one metric are on one chart", () => {
  assert.deepEqual(ids(["val_loss", "train_loss", "f1", "val/f1", "train.f1", "bleu_val", "bleu", "eval_wer", "test_wer"]), [
    "loss: train_loss val_loss",
    "bleu: bleu bleu_val",
    "f1: train.f1 f1 val/f1",
    "wer: eval_wer test_wer",
  ]);
});

test("a metric alone keeps its name, and one whose name only looks like a part is whole", () => {
  const [chart] = chartsOf(["train_samples_per_second"]);
  assert.deepEqual([chart.id, chart.title], ["samples_per_second", "train_samples_per_second"]);
  assert.deepEqual(splitOf("training"), { base: "training", split: "" });
  assert.deepEqual(splitOf("evaluator/x"), { base: "evaluator/x", split: "" });
  assert.deepEqual(splitOf("valid/reward/mean"), { base: "reward/mean", split: "val" });
});

test("groups are prefixes, and come after the rest, in the order of numbers", () => {
  const names = ["layer.10/norm", "layer.2/norm", "reward/mean", "zeta", "val_accuracy", "train_loss", "aux_loss", "gpu.0", "gpu.1", "v1.5"];
  assert.deepEqual(sectionsOf(chartsOf(names)).map(({ name, charts }) => [name, charts.map(({ id }) => id)]), [
    ["", ["loss", "accuracy", "aux_loss", "v1.5", "zeta"]],
    ["gpu", ["gpu.0", "gpu.1"]],
    ["layer.2", ["layer.2/norm"]],
    ["layer.10", ["layer.10/norm"]],
    ["reward", ["reward/mean"]],
  ]);
});

test("what counts along an axis has no chart", () => {
  for (const name of ["epoch", "extra.epoch", "step", "seq", "train/global_step", "train/epoch", "_step", "iteration"]) assert.ok(isAxis(name), name);
  for (const name of ["steps_per_second", "epoch_time", "sequence_length", "hidden_units", "learning_rate"]) assert.ok(!isAxis(name), name);
  assert.deepEqual(ids(["epoch", "learning_rate", "hidden_units"]), ["hidden_units: hidden_units", "learning_rate: learning_rate"]);
});

test("pins come first, a search looks at every name, and all of its words count", () => {
  const charts = chartsOf(["train_loss", "val_loss", "reward/mean", "reward/max", "perplexity"]);
  const names = (options) => sectionsOf(charts, options).map(({ name, charts: of }) => `${name}=${of.map(({ id }) => id)}`);
  assert.deepEqual(names({ pins: ["reward/max", "gone", "loss"] }), ["Pinned=reward/max,loss", "=perplexity", "reward=reward/mean"]);
  assert.deepEqual(names({ find: "REW max" }), ["reward=reward/max"]);
  assert.deepEqual(names({ find: "nosuch", pins: ["loss"] }), []);
  assert.ok(matches(charts[0], "val_loss"), "a metric of the chart, too");
});

test("a number in extra that is named like a column has a label of its own", () => {
  assert.deepEqual(["epoch", "extra.epoch", "f1", "extra.f1", "phase", "loss"].map(labelOf), ["extra.epoch", "extra.extra.epoch", "f1", "extra.f1", "extra.phase", "loss"]);
  for (const name of ["epoch", "extra.epoch", "f1", "extra.f1", "from", "train_loss"]) assert.equal(extraName(labelOf(name)), name);
  assert.equal(extraName("train_loss"), null, "a column");
  assert.deepEqual(["from", "f1", "train_loss"].map(memberOf), ["extra.from", "f1", "train_loss"]);
});

test("names say which values are better", () => {
  for (const name of ["val/loss", "perplexity", "rmse", "eval_mae", "top5_err"]) assert.equal(better(name), "min", name);
  for (const name of ["val_acc", "f1", "macro_f1", "R2", "bertscore"]) assert.equal(better(name), "max", name);
  for (const name of ["reward/mean", "learning_rate", "grad_norm"]) assert.equal(better(name), null, name);
});

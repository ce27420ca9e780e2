import assert from "node:assert/strict";
import { test } from "node:test";

import { choices } from "../../../src/api/dashboard/runs/choices.js";
import { columnOf, named } from "../../../src/api/dashboard/runs/columns.js";
import { MetricCache, metrics, versionOf } from "../../../src/api/dashboard/runs/metric_cache.js";
import { headOf, metricKey, metricOf, written } from "../../../src/api/dashboard/runs/metric_keys.js";
import { MetricReader, newest } from "../../../src/api/dashboard/runs/metric_reader.js";

const run = (id, more = {}) => ({ run_id: id, run_name: id, status: "completed", tags: [], non_finite: [], config_json: null, last_event_time: "2026-11-20T10:16:00Z", end_time: "2026-11-20T10:16:00Z", restarted_at: null, ...more });

const settled = async () => {
  for (let turn = 0; turn < 30; turn += 1) await null;
};

/** A daemon with these answers, by path; what it was asked is in `asked`. Without `atOnce` each answer is kept back until `answer()`. */
function daemon(answers, { atOnce = true } = {}) {
  const asked = [];
  const waiting = [];
  const ask = (path, params, signal) => new Promise((resolve, reject) => {
    asked.push([path, params]);
    const reply = () => {
      const answer = typeof answers[path] === "function" ? answers[path](params) : answers[path];
      if (answer instanceof Error) reject(answer);
      else resolve(answer);
    };
    signal.addEventListener("abort", () => reject(new Error("aborted")));
    if (atOnce) reply();
    else waiting.push(reply);
  });
  return { ask, asked, answer: () => waiting.shift()() };
}

const readerOf = (ask, { cache = new MetricCache(), speaks = () => false, told = () => {}, clock = { now: 1e6 } } = {}) => ({ cache, clock, reader: new MetricReader({ ask, cache, speaks, told, now: () => clock.now }) });

test("a column of a metric comes back from its address", () => {
  assert.deepEqual(metricOf("metric.reward/mean"), { what: "last", label: "reward/mean" });
  assert.deepEqual(metricOf("min.a.b, c"), { what: "min", label: "a.b, c" });
  assert.deepEqual(["metric.", "metric", "mean.x", "config.min.x", "best_epoch"].map(metricOf), [null, null, null, null, null]);
  for (const what of ["last", "min", "max"]) assert.deepEqual(metricOf(metricKey(what, "metric.x")), { what, label: "metric.x" });
  assert.deepEqual(["metric.ppl", "min.ppl", "max.ppl"].map((key) => headOf(metricOf(key))), ["ppl", "ppl min", "ppl max"]);
  assert.deepEqual(named(["metric.reward/mean", "min.", "max.ppl"]), ["name", "metric.reward/mean", "max.ppl"]);
});

test("values are written as in other columns, and what is not finite by its name", () => {
  const texts = [["ppl", 12.34567], ["ppl", 0], ["ppl", "NaN"], ["ppl", "-Infinity"], ["ppl", null], ["val_accuracy", 0.93], ["hidden_units", 1200], ["tiny", 1.2e-9]].map(([label, value]) => written(label, value));
  assert.deepEqual(texts, ["12.35", "0", "NaN", "-Infinity", "", "93.0 %", "1,200", "1.2e-9"]);
});

test("the last value is in the newest row that has one", () => {
  const rows = [{ ppl: null, non_finite: [] }, { ppl: null, non_finite: ["ppl", "f1"], infinite: { f1: "-Infinity" } }, { ppl: 3, f1: 0.5, zero: 0 }];
  assert.deepEqual(["ppl", "f1", "zero", "gone"].map((label) => newest(rows, label)), ["NaN", "-Infinity", 0, undefined]);
});

test("names are read once, values of what a run has, and a run without the metric has an empty cell", async () => {
  const rows = { metrics: [{ timestamp: "t9", "reward/mean": 0.75, non_finite: [] }], next: "more" };
  const { ask, asked } = daemon({ "api/runs/a": { metric_names: ["reward/mean", "epoch"] }, "api/runs/b": { metric_names: ["other"] }, "api/metrics/range": rows });
  const { cache, reader } = readerOf(ask);
  const keys = ["metric.reward/mean"];
  reader.want([run("a"), run("b")], keys);
  await settled();
  assert.deepEqual(asked, [
    ["api/runs/a", { limit: 0, count: "none" }],
    ["api/runs/b", { limit: 0, count: "none" }],
    ["api/metrics/range", { run_id: "a", limit: 50, field: ["reward/mean"] }],
  ]);
  assert.deepEqual([cache.entry("a", keys[0]).value, cache.entry("b", keys[0]).value, cache.entry("c", keys[0])], [0.75, null, null]);
  assert.deepEqual(cache.labelsOf(["a", "b"]), ["reward/mean", "extra.epoch", "other"]);
  reader.want([run("a"), run("b")], keys);
  await settled();
  assert.equal(asked.length, 3, "what is known is not asked for again");
  reader.want([run("b")], [...keys, "min.nosuch"]);
  await settled();
  assert.equal(asked.length, 3, "nor are names, for another metric that the run does not have");
});

test("a value is read again when the row of an ended run changes, and now and then while a run goes on", () => {
  const cache = new MetricCache();
  const key = "metric.x";
  const take = (of, took = 10) => cache.take("a", [[key, { value: 1 }]], { version: versionOf(of), at: 1000, took });
  const ended = run("a");
  assert.ok(cache.isDue(ended, key, 0), "never read");
  take(ended);
  assert.ok(!cache.isDue(ended, key, 1e9));
  const changed = run("a", { last_event_time: "2026-11-20T10:17:00Z" });
  assert.deepEqual([2000, 3999, 4000].map((now) => cache.isDue(changed, key, now)), [false, false, true]);
  const running = run("a", { status: "running", last_event_time: "2026-11-20T10:18:00Z" });
  assert.deepEqual([4000, 15999, 16000].map((now) => cache.isDue(running, key, now)), [false, false, true]);
  take(ended, 1000);
  assert.deepEqual([16000, 50999, 51000].map((now) => cache.isDue(running, key, now)), [false, false, true], "what took a second is read again after fifty");
  cache.fail("a", [key], { failure: "away", at: 60000, took: 0 });
  assert.deepEqual([74999, 75000].map((now) => cache.isDue(ended, key, now)), [false, true]);
  assert.equal(cache.entry("a", key).value, 1, "what was known stays");
});

test("what was read while events came in is read once more", async () => {
  const { ask, asked } = daemon({ "api/metrics/range": { metrics: [{ timestamp: "t", learning_rate: 0.1 }], next: null } });
  let speaking = true;
  const { reader, clock } = readerOf(ask, { speaks: () => speaking });
  for (const pause of [0, 2999, 1, 1e6]) {
    clock.now += pause;
    reader.want([run("a")], ["metric.learning_rate"]);
    await settled();
    if (asked.length === 2) speaking = false;
  }
  assert.equal(asked.length, 3);
  clock.now += 1e6;
  reader.want([run("a")], ["metric.learning_rate"]);
  await settled();
  assert.equal(asked.length, 3, "then the value is that of the ended run");
});

test("lowest and highest values come behind the last ones, and one run at a time", async () => {
  const fields = { train_loss: { count: 3, min: 0.1, max: 0.9, last: 0.2 }, val_loss: { count: 2, min: null, max: null, last: "NaN" } };
  const { ask, asked, answer } = daemon({ "api/runs/a/aggregates": { fields, last_timestamp: "t" }, "api/runs/b/aggregates": { fields, last_timestamp: "t" }, "api/metrics/range": { metrics: [{ timestamp: "t", train_loss: 0.2 }], next: null } }, { atOnce: false });
  const { cache, reader } = readerOf(ask);
  const keys = ["min.train_loss", "metric.train_loss", "max.train_loss", "max.val_loss"];
  reader.want([run("a"), run("b")], keys);
  assert.deepEqual(asked.map(([path]) => path), ["api/metrics/range", "api/metrics/range"]);
  answer();
  answer();
  await settled();
  assert.deepEqual(asked.slice(2), [["api/runs/a/aggregates", { field: ["train_loss", "val_loss"], start_time: undefined }]]);
  assert.deepEqual(keys.map((key) => cache.entry("a", key)?.value), [undefined, 0.2, undefined, undefined]);
  answer();
  await settled();
  assert.equal(asked[3][0], "api/runs/b/aggregates");
  assert.deepEqual(keys.map((key) => cache.entry("a", key).value), [0.1, 0.2, 0.9, "NaN"]);
});

test("no more than three requests are under way, those of rows out of view are not begun, and all end with the page", async () => {
  const row = { metrics: [{ timestamp: "t", learning_rate: 1 }], next: null };
  const { ask, asked, answer } = daemon({ "api/metrics/range": row }, { atOnce: false });
  let told = 0;
  const { cache, reader } = readerOf(ask, { told: () => { told += 1; } });
  const key = "metric.learning_rate";
  reader.want(["a", "b", "c", "d", "e"].map((id) => run(id)), [key]);
  assert.equal(asked.length, 3);
  reader.want([run("e")], [key]);
  answer();
  await settled();
  assert.deepEqual([asked.map(([, { run_id: id }]) => id), told], [["a", "b", "c", "e"], 1]);
  reader.close();
  await settled();
  assert.deepEqual([["a", "b", "e"].map((id) => cache.entry(id, key)?.value), told], [[1, undefined, undefined], 1], "an end is no failure");
  reader.want([run("f")], [key]);
  assert.equal(asked.length, 4);
});

test("a metric that the newest rows are without is read from all rows once, then from those that are new", async () => {
  const aggregates = [{ count: 4, last: 0.5 }, { count: 0, last: null }, { count: 1, last: null, last_non_finite: "Infinity" }];
  const { ask, asked } = daemon({
    "api/runs/a": { metric_names: ["seldom", "often"] },
    "api/metrics/range": { metrics: [{ timestamp: "t1", often: 7 }], next: "more" },
    "api/runs/a/aggregates": () => ({ fields: { seldom: aggregates.shift() }, last_timestamp: `t${4 - aggregates.length}` }),
  });
  const { cache, reader, clock } = readerOf(ask);
  const running = (minute) => run("a", { status: "running", last_event_time: `2026-11-20T10:${minute}:00Z` });
  const values = [];
  for (const minute of [11, 12, 13]) {
    clock.now += 20000;
    reader.want([running(minute)], ["metric.seldom", "metric.often"]);
    await settled();
    values.push(["metric.seldom", "metric.often"].map((key) => cache.entry("a", key).value));
  }
  assert.deepEqual(values, [[0.5, 7], [0.5, 7], ["Infinity", 7]]);
  assert.deepEqual(asked.filter(([path]) => path.endsWith("aggregates")).map(([, { start_time: since }]) => since), [undefined, "t2", "t3"]);
  assert.deepEqual(asked.filter(([path]) => path.endsWith("range")).map(([, { field }]) => field), [["seldom", "often"], ["often"], ["often"]]);
});

test("a value that cannot be read says so, and is tried again", async () => {
  let away = true;
  const { ask, asked } = daemon({ "api/metrics/range": () => (away ? Object.assign(new Error("the daemon cannot be reached"), { status: 0 }) : { metrics: [{ timestamp: "t", learning_rate: 0.01 }], next: null }) });
  const { reader, clock } = readerOf(ask, { cache: metrics });
  const column = columnOf("metric.learning_rate");
  assert.equal(column.show(run("lost")), "", "before it is read");
  reader.want([run("lost")], [column.key]);
  await settled();
  assert.deepEqual([column.show(run("lost")), column.title(run("lost"))], ["?", "It cannot be read: the daemon cannot be reached. It is tried again."]);
  away = false;
  reader.want([run("lost")], [column.key]);
  await settled();
  assert.equal(asked.length, 1, "not at once");
  clock.now += 15000;
  reader.want([run("lost")], [column.key]);
  await settled();
  assert.deepEqual([column.show(run("lost")), column.title(run("lost")), column.text ?? false], ["0.01", "", false]);
});

test("a run that is deleted while its names are read is not asked for again at once", async () => {
  const { ask, asked } = daemon({ "api/runs/a": Object.assign(new Error("Run not found"), { status: 404 }) });
  const { reader, clock } = readerOf(ask);
  reader.want([], [], [run("a")]);
  await settled();
  assert.equal(asked.length, 1);
  clock.now += 15000;
  reader.want([], [], [run("a")]);
  await settled();
  assert.equal(asked.length, 2);
});

test("the choice of columns offers the metrics of the runs, and what many of them hide is found", () => {
  const runs = [run("a", { final_train_loss: 0.1, final_val_loss: null, final_train_accuracy: null, final_val_accuracy: null, total_hidden_units: null })];
  const labels = ["layer.10/norm", "layer.2/norm", "reward/mean"];
  const all = choices({ runs, chosen: ["name", "min.gone", "config.gone"], labels }, "");
  assert.deepEqual(all.metrics.rows.map(({ label }) => label), ["train_loss", "learning_rate", "gone", "layer.2/norm", "layer.10/norm", "reward/mean"]);
  assert.deepEqual(all.metrics.rows.at(-1).keys, ["metric.reward/mean", "min.reward/mean", "max.reward/mean"]);
  assert.deepEqual(all.metrics.rows[0].keys, [null, "min.train_loss", "max.train_loss"], "its last value is a column of the run");
  assert.deepEqual(all.config.keys, ["config.gone"]);
  assert.deepEqual(all.fixed.map(({ title }) => title), ["Run", "Metrics, last and best"]);
  const found = choices({ runs, chosen: [], labels }, "MEAN rew");
  assert.deepEqual([found.metrics.rows.map(({ label }) => label), found.config.keys, found.fixed.map(({ keys }) => keys)], [["reward/mean"], [], [[], []]]);
  const many = Array.from({ length: 500 }, (_, at) => `m${at}`);
  const { metrics: part } = choices({ runs: [], chosen: ["max.m499", "metric.m3"], labels: many }, "");
  assert.deepEqual([part.rows.length, part.more, part.rows.at(-1).label], [101, 399, "m499"], "the chosen ones are there to be taken back");
  assert.deepEqual(choices({ runs: [], chosen: [], labels: many }, "m499").metrics, { rows: [{ label: "m499", keys: ["metric.m499", "min.m499", "max.m499"] }], more: 0 });
});

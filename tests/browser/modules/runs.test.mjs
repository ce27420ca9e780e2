import assert from "node:assert/strict";
import { test } from "node:test";

import { differences } from "../../../src/api/dashboard/compare/differences.js";
import { parts, room } from "../../../src/api/dashboard/runs/align.js";
import { columnOf, configKeys, defaults, named, ran } from "../../../src/api/dashboard/runs/columns.js";
import { flatten, valueText } from "../../../src/api/dashboard/runs/config.js";
import * as query from "../../../src/api/dashboard/runs/query.js";
import { allShown, clicked, counted, coverage } from "../../../src/api/dashboard/runs/selection.js";
import { walk } from "../../../src/api/dashboard/runs/walk.js";

const run = (id, config = null, more = {}) => ({
  run_id: `0000000${id}-0000-4000-8000-000000000000`, run_name: `run-${id}`, display_name: null, status: "completed", tags: [], non_finite: [],
  config_json: config && JSON.stringify(config), start_time: "2026-11-20T10:15:00Z", last_event_time: "2026-11-20T10:16:00Z", duration_seconds: 60, ...more,
});

test("a number that JSON does not have is its name", () => {
  const big = run(1, null, { final_train_loss: null, final_val_loss: null, final_epoch: null, non_finite: ["final_train_loss", "final_val_loss"], infinite: { final_train_loss: "-Infinity" } });
  const shown = (key) => columnOf(key).show(big);
  assert.deepEqual(["final_train_loss", "final_val_loss", "final_epoch"].map(shown), ["-Infinity", "NaN", ""]);
});

test("a run of less than a second took as long as from its start to its end", () => {
  const took = (more) => ran(run(1, null, more));
  assert.equal(took({}), "1 min 0 s");
  assert.equal(took({ duration_seconds: 0, end_time: "2026-11-20T10:15:00.250Z" }), "250 ms");
  assert.equal(took({ duration_seconds: 0, start_time: null }), "< 1 s");
});

test("a query comes back from its address", () => {
  const asked = { q: "sweep lr=0.1", status: "failed", tags: ["a", "b,c"], dataset: "spiral", archived: "any", sort: "config.lr", order: "asc" };
  const params = Object.fromEntries(Object.entries(query.toAddress(asked)).map(([name, value]) => [name, [value].flat()]));
  assert.deepEqual(query.fromAddress(params), asked);
  assert.deepEqual(query.toRequest(asked), { q: "sweep lr=0.1", status: "failed", tag: ["a", "b,c"], dataset: "spiral", archived: "any", sort: "config.lr", order: "asc" });
});

test("a default is not in the address, and a foreign word is the default", () => {
  const plain = query.fromAddress({ status: ["nosuch"], archived: ["maybe"], order: ["up"], tag: [" "] });
  assert.deepEqual(plain, { q: "", status: "", tags: [], dataset: "", archived: "", sort: "start_time", order: "desc" });
  assert.ok(!query.isFiltered(plain) && query.isNewestFirst(plain));
  assert.deepEqual(query.toAddress(plain), { q: null, status: null, tag: [], dataset: null, archived: null, sort: null, order: null });
  assert.equal(query.toRequest(plain).sort, "");
  assert.equal(query.toAddress({ ...plain, order: "asc" }).order, "asc", "oldest first is no default");
});

test("a header sorts, then turns the order round", () => {
  const plain = query.fromAddress({});
  const loss = query.sortedBy(plain, columnOf("final_train_loss"));
  assert.deepEqual([loss.sort, loss.order], ["final_train_loss", "desc"]);
  assert.equal(query.sortedBy(loss, columnOf("final_train_loss")).order, "asc");
  assert.equal(query.sortedBy(loss, columnOf("name")).order, "asc", "texts from their first letter");
});

test("that no run matches is said only when every run was looked at", () => {
  const asked = query.fromAddress({ q: ["x"] });
  const say = (state) => query.progress(asked, { shown: 0, looked: 0, busy: false, next: null, sorted: null, ...state });
  assert.equal(say({ busy: true }), "Loading…");
  assert.equal(say({ busy: true, looked: 40000 }), "0 runs so far, looked through 40,000 runs, going on…");
  assert.match(say({ next: "cursor", looked: 900 }), /^0 runs shown, looked through 900 runs; there are more\.$/);
  assert.equal(say({}), "No run matches.");
  assert.equal(say({ shown: 1 }), "1 run matches.");
  assert.equal(query.progress(query.fromAddress({}), { shown: 0, looked: 0, busy: false, next: null, sorted: null }), "No runs yet.");
  assert.match(say({ shown: 2, sorted: { all: false, of: 10000 } }), /newest 10,000 runs only/);
  assert.doesNotMatch(say({ shown: 2, sorted: { all: true, of: 2 } }), /only/);
  assert.equal(say({ busy: true, sorted: { sorting: true, of: 1200 } }), "Sorting, read 1,200 runs so far…");
  assert.match(say({ shown: 2, sorted: { all: true, by: "config.rl", keys: ["lr", "seed"] } }), /no key rl; they have lr, seed\.$/);
});

test("a list is read on while its pages are short or empty", async () => {
  const pages = { null: { runs: [], next: "a", scanned: 100 }, a: { runs: [1, 2], next: "b", scanned: 50 }, b: { runs: [3], next: null, scanned: 7 } };
  const asked = [];
  const told = [];
  const ask = async (before, limit) => {
    asked.push([before, limit]);
    return pages[before];
  };
  const state = await walk({ ask, wanted: 10, told: ({ looked }) => told.push(looked) });
  assert.deepEqual(state, { runs: [1, 2, 3], next: null, looked: 157, sorted: null });
  assert.deepEqual([asked, told], [[[null, 10], ["a", 10], ["b", 8]], [100, 150, 157]]);
  assert.deepEqual((await walk({ ask, wanted: 2 })).next, "b", "enough is enough");
  assert.equal(await walk({ ask, wanted: 9, isWanted: () => false }), null, "nobody wants it any more");
  await assert.rejects(walk({ ask: async () => { throw new Error("away"); }, wanted: 1 }), /away/);
});

test("ranges and all that is shown are selected, and what is elsewhere stays", () => {
  const shown = ["a", "b", "c", "d"];
  assert.deepEqual([...clicked(new Set(["z"]), shown, { id: "b", yes: true })], ["z", "b"]);
  assert.deepEqual([...clicked(new Set(["b"]), shown, { id: "d", yes: true, anchor: "b", range: true })], ["b", "c", "d"]);
  assert.deepEqual([...clicked(new Set(shown), shown, { id: "a", yes: false, anchor: "c", range: true })], ["d"]);
  assert.deepEqual([...clicked(new Set(), shown, { id: "a", yes: true, anchor: "gone", range: true })], ["a"]);
  const all = allShown(new Set(["z"]), shown, true);
  assert.deepEqual([coverage(all, shown), counted(all, shown)], ["all", "5 selected, 1 of them not in this list"]);
  assert.deepEqual([coverage(new Set(["a"]), shown), coverage(new Set(["z"]), shown), coverage(new Set(), [])], ["some", "none", "none"]);
  assert.deepEqual([...allShown(all, shown, false)], ["z"]);
});

test("a nested configuration has keys with dots", () => {
  const flat = flatten('{"lr": 0.1, "net": {"hidden": [4, 8], "act": {"kind": "tanh"}, "none": {}}, "off": null}');
  assert.deepEqual([...flat].map(([key, value]) => `${key}=${valueText(value)}`), ["lr=0.1", "net.hidden=[4,8]", "net.act.kind=tanh", "net.none={}", "off=null"]);
  for (const nothing of [null, "", "{}", "no json", "7"]) assert.equal(flatten(nothing).size, 0, nothing);
  assert.deepEqual([...flatten("[1]")], [["config", [1]]]);
});

test("numbers are aligned by their points", () => {
  assert.deepEqual(["12", "-0.25", "1,024.5", "1.20e-7", "98.1 %", "NaN", "v1.2"].map(parts), [["12", ""], ["-0", ".25"], ["1,024", ".5"], ["1", ".20e-7"], ["98", ".1 %"], ["", "NaN"], ["v1.2", ""]]);
  assert.equal(room(["1", "0.25", "NaN"]), 3);
  assert.equal(room([]), 0);
});

test("without columns in the address, those with values and the keys that differ are shown", () => {
  const runs = [run(1, { lr: 0.1, seed: 1, net: { act: "tanh" } }), run(2, { lr: 0.2, seed: 1, net: { act: "relu" } }, { final_train_loss: 0.5 })];
  assert.deepEqual(defaults(runs), ["name", "status", "start_time", "duration_seconds", "final_train_loss", "config.lr", "config.net.act"]);
  assert.deepEqual(configKeys(runs), ["config.lr", "config.seed", "config.net.act"]);
  assert.deepEqual(defaults([]), ["name", "status", "start_time", "duration_seconds"]);
  assert.deepEqual([columnOf("config.lr", runs).text, columnOf("config.net.act", runs).text, columnOf("config.", runs)], [false, true, null]);
  assert.equal(columnOf("config.lr").show(runs[0]), "0.1");
  assert.equal(columnOf("final_train_loss").show(run(3, null, { final_train_loss: null, non_finite: ["final_train_loss"] })), "NaN");
});

test("the columns of an address are known ones, once, the name first", () => {
  assert.deepEqual(named(["status", "nosuch", "name", "status", "config.lr"]), ["name", "status", "config.lr"]);
  assert.equal(named(["nosuch"]), null);
  assert.equal(named(undefined), null);
});

test("keys that differ are apart from equal ones, and an absent key differs from null", () => {
  const { differ, equal } = differences([run(1, { lr: 0.1, seed: 1, off: null }), run(2, { lr: 0.2, seed: 1 }), run(3, { lr: 0.1, seed: 1 })]);
  assert.deepEqual(differ, [{ key: "lr", values: ["0.1", "0.2", "0.1"] }, { key: "off", values: ["null", null, null] }]);
  assert.deepEqual(equal, [{ key: "seed", values: ["1", "1", "1"] }]);
  assert.deepEqual(differences([run(1, { lr: 0.1 })]).differ, []);
  assert.deepEqual(differences([run(1), run(2)]), { differ: [], equal: [] });
});

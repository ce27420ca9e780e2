import assert from "node:assert/strict";
import { test } from "node:test";

import { format, one, parse } from "../../../src/api/dashboard/base/address.js";

test("an address comes back as it was", () => {
  for (const address of [
    { view: "runs", run: null, params: {} },
    { view: "runs", run: null, params: { q: ["lr=0.1 spiral & co"], sort: ["config.lr"] } },
    { view: "run", run: "a/b?c#d %", params: { axis: ["step"], smooth: ["0.6"] } },
    { view: "compare", run: null, params: { run: ["one", "two, three"], field: ["精度"] } },
  ]) {
    assert.deepEqual(parse(format(address)), address);
  }
});

test("what is empty is left out, and a list is repeated", () => {
  assert.equal(format({ view: "run", run: "x", params: { log: true, from: 0, to: null, pin: [], find: "", smooth: false } }), "#/run/x?log=yes&from=0");
  assert.equal(format({ view: "compare", params: { run: ["a", "b"] } }), "#/compare?run=a&run=b");
});

test("an address without a view, or with a foreign one, has none", () => {
  for (const hash of ["", "#", "#/", "#/nosuch/x"]) assert.equal(parse(hash).view, null, hash);
  assert.equal(parse("#/run").view, "runs");
  assert.equal(parse("#/run/%E0%A4%A").run, "%E0%A4%A");
  assert.equal(one(parse("#/runs?q=a&q=b").params, "q"), "b");
  assert.equal(one({}, "q"), null);
});

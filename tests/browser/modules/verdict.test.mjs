import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { size, time, verdict } from "../../../src/api/dashboard/base/verdict.js";

const { well, cases } = JSON.parse(readFileSync(new URL("../../fixtures/verdicts.json", import.meta.url)));

function changed(change) {
  const status = structuredClone(well);
  for (const [path, value] of Object.entries(change)) {
    const names = path.slice(1).split("/");
    const last = names.pop();
    names.reduce((inner, name) => inner[name], status)[last] = value;
  }
  return status;
}

test("the page says of a status what the command line says", () => {
  assert.ok(cases.length > 15);
  for (const { change, state, text, remedies } of cases) {
    const said = verdict(changed(change));
    assert.deepEqual([said.state, said.text, said.findings.map((one) => one.remedy), said.ok], [state, text, remedies, state === "OK"], JSON.stringify(change));
  }
});

test("what is no status is unknown", () => {
  for (const other of [null, {}, { phase: "running" }, "text"]) assert.equal(verdict(other).state, "UNKNOWN");
});

test("times and sizes are read as on the command line", () => {
  assert.deepEqual([0, 9.94, 75.4, 120, 7200].map(time), ["0.0 s", "9.9 s", "75 s", "2 min", "2.0 h"]);
  assert.deepEqual([0, 1023, 1024, 3 * 2 ** 20].map(size), ["0 B", "1023 B", "1.0 KiB", "3.0 MiB"]);
});

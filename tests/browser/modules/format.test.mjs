import assert from "node:assert/strict";
import { test } from "node:test";

import { setStaleAfter, statusOf } from "../../../src/api/dashboard/base/format.js";

const silent = (seconds, status = "running") => ({ status, last_event_time: new Date(Date.now() - seconds * 1000).toISOString() });

test("a running run is stale after the silence that the daemon tells, five minutes until it does", () => {
  assert.equal(statusOf(silent(290)), "running");
  assert.equal(statusOf(silent(310)), "stale");
  setStaleAfter(3600);
  assert.equal(statusOf(silent(310)), "running");
  // A daemon of an older version does not tell.
  setStaleAfter(undefined);
  assert.equal(statusOf(silent(3500)), "running");
  assert.equal(statusOf(silent(3700)), "stale");
  assert.equal(statusOf(silent(3700, "failed")), "failed");
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { delay } from "../../../src/api/dashboard/base/backoff.js";

test("pauses grow to a bound, so that a daemon is found within seconds however long it was away", () => {
  const pauses = [0, 1, 2, 3, 4, 5, 6, 7, 50, 1e6].map((failures) => delay(failures, 1));
  assert.deepEqual(pauses, [250, 250, 500, 1000, 2000, 4000, 5000, 5000, 5000, 5000]);
  assert.ok(delay(1, 0) < delay(1, 1) && delay(9, 0) >= 4000);
});

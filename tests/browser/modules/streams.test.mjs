import assert from "node:assert/strict";
import { test } from "node:test";

import { channels, rows } from "../../../src/api/dashboard/pipeline/streams.js";

const well = { name: "s", reading: true, error: null, lag: 0, pending: 0, recoveries: 0, last_recovery: null };

test("a stream has its lag, and says what is wrong with it", () => {
  const one = (change) => rows({ streams: [{ ...well, ...change }] })[0];
  assert.deepEqual(one({ lag: 12, pending: 3 }), { name: "s", fine: true, text: "Read", unread: 12, pending: 3 });
  assert.equal(one({ lag: null }).unread, "unknown");
  for (const [change, fine, text] of [
    [{ reading: false }, false, "Not read yet"],
    [{ reading: false, error: "the key `s` is no stream" }, false, "the key `s` is no stream"],
    [{ error: "may not run XAUTOCLAIM" }, false, "Read, but not looked after: may not run XAUTOCLAIM"],
    [{ recoveries: 1, last_recovery: "the consumer group was destroyed" }, true, "Read; was gone once, the last time because the consumer group was destroyed"],
    [{ recoveries: 2 }, true, "Read; was gone 2 times"],
  ]) {
    const shown = one(change);
    assert.deepEqual([shown.fine, shown.text], [fine, text]);
  }
  assert.deepEqual(rows({}), []);
});

test("connections and channels of streams are left to their rows", () => {
  const redis = { connections: [{ name: "training" }, { name: "stream" }, { name: "stream" }], unproven: ["s", "a"], streams: [well] };
  assert.deepEqual(channels(redis), { connections: [{ name: "training" }], unproven: ["a"] });
  assert.deepEqual(channels({}), { connections: [], unproven: [] });
});

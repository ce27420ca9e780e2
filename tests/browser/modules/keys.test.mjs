import assert from "node:assert/strict";
import { test } from "node:test";

import { HELP, action, isTyping } from "../../../src/api/dashboard/base/key_bindings.js";

test("one key, or two behind each other", () => {
  assert.deepEqual(action(null, "/"), { action: "search", first: null });
  assert.deepEqual(action(null, "g"), { action: null, first: "g" });
  for (const [key, view] of [["r", "runs"], ["c", "compare"], ["p", "pipeline"]]) {
    assert.deepEqual(action("g", key), { action: view, first: null });
    assert.equal(action(null, key).action, null, `${key} alone`);
  }
  assert.deepEqual(action("g", "g"), { action: null, first: "g" });
  assert.deepEqual(action("g", "j"), { action: "next", first: null });
  for (const key of ["toString", "constructor", "Shift", "F5"]) assert.equal(action(null, key).action, null, key);
});

test("keys are text in fields, and commands at buttons and ticks", () => {
  for (const field of [{ tagName: "INPUT", type: "search" }, { tagName: "INPUT", type: "password" }, { tagName: "TEXTAREA" }, { tagName: "SELECT" }, { tagName: "DIV", isContentEditable: true }]) {
    assert.ok(isTyping(field), JSON.stringify(field));
  }
  for (const other of [{ tagName: "INPUT", type: "checkbox" }, { tagName: "BUTTON" }, { tagName: "A" }, { tagName: "BODY" }]) {
    assert.ok(!isTyping(other), JSON.stringify(other));
  }
});

test("the dialog tells every key that does something", () => {
  const told = new Set(HELP.flatMap(([keys]) => keys));
  for (const key of ["/", "?", "j", "k", "x"]) assert.ok(told.has(key) && action(null, key).action, key);
  for (const key of ["r", "c", "p"]) assert.ok(told.has(`g ${key}`), key);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { ended, may, refusedToken, scopeOf } from "../../../src/api/dashboard/base/session_words.js";
import { COMMANDS, question, targets, withoutRight } from "../../../src/api/dashboard/pipeline/commands.js";

test("what a session may do", () => {
  for (const [answer, scope] of [
    [{ name: null, scope: null, sign_in: false }, "admin"],
    [{ name: null, scope: null, sign_in: true }, "read"],
    [{ name: null, scope: null, sign_in: true, locked: true }, "none"],
    [{ name: null, scope: null, sign_in: false, locked: true }, "none"],
    [{ name: "bob", scope: "read", sign_in: true }, "read"],
    [{ name: "ann", scope: "admin", sign_in: true }, "admin"],
  ]) assert.equal(scopeOf(answer), scope, JSON.stringify(answer));
});

test("a wrong token and an ended session have words of their own", () => {
  const wrong = refusedToken({ status: 401, message: "the token is not one of `http.tokens_file`" });
  assert.ok(wrong.startsWith("The token is not one of `http.tokens_file`.") && wrong.includes("mistyped"));
  assert.ok(refusedToken({ status: 429, message: "too many wrong tokens" }).includes("Wait"));
  assert.equal(refusedToken({ status: 503, message: "Redis is away." }), "Redis is away.");
  for (const part of ["`ann`", "removed", "expired", "Sign in again"]) assert.ok(ended("ann").includes(part), part);
  assert.ok(!ended("ann").includes("mistyped"));
  assert.ok(may("read").includes("only read") && !may("admin").includes("only"));
});

test("commands go to this daemon unless somebody chooses otherwise", () => {
  const [own, everyone, ...more] = targets("lab-1", true);
  assert.deepEqual([own.target, everyone.target, more], ["lab-1", null, []]);
  assert.ok(own.label.includes("lab-1") && /trainers/i.test(everyone.label + everyone.does));
  // A server without a pipeline has nothing to command of its own, and spares trainers.
  assert.equal(targets("web", false)[0].target, "ingest");
});

test("each command says what it does in one sentence or two, and reset asks", () => {
  for (const { command, does } of COMMANDS) assert.match(does, /^[A-Z].*\.$/, command);
  assert.deepEqual(COMMANDS.filter((one) => one.asks).map((one) => one.command), ["reset"]);
  const asked = question(COMMANDS.find((one) => one.command === "reset"), targets("lab-1", true)[0]);
  assert.ok(asked.text.includes("lab-1") && asked.text.includes("Stored rows stay"));
});

test("somebody without the right is told with what they would have it", () => {
  assert.ok(withoutRight(null, "read").includes("scope `admin`"));
  assert.ok(withoutRight("bob", "read").startsWith("You are signed in as bob (read)."));
});

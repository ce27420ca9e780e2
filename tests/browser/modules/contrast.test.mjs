// The colours of style.css: text 4.5 to 1 on whatever it stands on, controls and lines of charts 3 to 1, in both themes (WCAG 2, AA).

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

const DASHBOARD = new URL("../../../src/api/dashboard/", import.meta.url);
const css = readFileSync(new URL("style.css", DASHBOARD), "utf8");

const blocks = (selector) => css.split(selector).slice(1).map((rest) => rest.slice(rest.indexOf("{") + 1, rest.indexOf("}")));
const variables = (block) => Object.fromEntries([...block.matchAll(/--([\w-]+):\s*([^;]+);/g)].map(([, name, value]) => [name, value.trim()]));
const light = variables(blocks("\n:root ").find((block) => block.includes("--paper")));
const dark = variables(blocks('\n:root[data-theme="dark"] ')[0]);
const system = variables(blocks(':root:not([data-theme="light"]) ')[0]);

function luminance(hex) {
  const [r, g, b] = [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16) / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one, other) {
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}

const PLAIN = ["paper", "panel", "raised"];
const TEXT = [
  ["ink", [...PLAIN, "accent-soft"]], ["muted", PLAIN], ["accent", [...PLAIN, "accent-soft"]], ["unit", PLAIN],
  ["good", [...PLAIN, "good-soft"]], ["warn", [...PLAIN, "warn-soft"]], ["bad", [...PLAIN, "bad-soft"]], ["panel", ["accent"]],
];
const GRAPHICS = ["edge", "accent", "train", "val", "unit", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"];

test("the measure is that of WCAG", () => {
  assert.equal(contrast("#000000", "#ffffff"), 21);
  assert.ok(Math.abs(contrast("#777777", "#ffffff") - 4.48) < 0.01);
});

for (const [theme, colours] of Object.entries({ light, dark })) {
  test(`text and controls of the ${theme} theme can be read`, () => {
    const of = (name) => {
      assert.match(colours[name] ?? "", /^#[0-9a-f]{6}$/, name);
      return colours[name];
    };
    for (const [text, grounds] of TEXT) {
      for (const ground of grounds) assert.ok(contrast(of(text), of(ground)) >= 4.5, `--${text} on --${ground}: ${contrast(of(text), of(ground)).toFixed(2)}`);
    }
    for (const line of GRAPHICS) {
      for (const ground of PLAIN) assert.ok(contrast(of(line), of(ground)) >= 3, `--${line} on --${ground}: ${contrast(of(line), of(ground)).toFixed(2)}`);
    }
  });
}

test("the dark theme is the same, whether the system or somebody chose it", () => {
  assert.deepEqual(system, dark);
  assert.deepEqual(Object.keys(light).sort(), Object.keys(dark).sort());
});

test("sizes of text are those of the scale", () => {
  const sheets = readdirSync(DASHBOARD, { recursive: true }).map(String).filter((name) => name.endsWith(".css") && !name.startsWith("vendor"));
  assert.ok(sheets.includes("style.css") && sheets.includes("views.css"));
  for (const name of sheets) {
    for (const [, size] of readFileSync(new URL(name, DASHBOARD), "utf8").matchAll(/font(?:-size)?:\s*([^;}]+)/g)) {
      assert.ok(/^(inherit|var\(--text-(s|m|l|xl)\).*)$/.test(size) || name === "views.css" && size === "8.5px", `${name}: ${size}`);
    }
  }
});

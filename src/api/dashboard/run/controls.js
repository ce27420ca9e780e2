// What a person may choose of the curves: axis, smoothing, scale, which metrics.

import { h, say, show } from "../base/dom.js";
import { count } from "../base/format.js";
import { AXES } from "../charts/axes.js";

const LEGEND = { phase: "candidate phase", unit: "unit added", gap: "gap" };

/** Buttons of which one is pressed: `options` is a list of `[value, text]`; `press(value)` says which. They stay, and so does the focus. */
export function segments(label, options, choose) {
  const buttons = options.map(([value, text]) => h("button", { type: "button", "data-value": String(value), onclick: () => choose(value) }, text));
  const press = (current) => buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.value === String(current))));
  return { box: h("div", { class: "segments", role: "group", "aria-label": label }, buttons), press };
}

/** Which of these axes is shown. */
export const axisSegments = (kinds, choose) => segments("Horizontal axis", kinds.map((kind) => [kind, AXES[kind]]), choose);

/** Whether the vertical axis is logarithmic. */
export const scaleSegments = (choose) => segments("Vertical scale", [[false, "Linear"], [true, "Log"]], choose);

/** The slider of the smoothing, with its value. */
export function smoothing(weight, choose) {
  const output = h("output", {}, weight ? weight.toFixed(2) : "off");
  const slider = h("input", { type: "range", min: 0, max: 0.99, step: 0.01, "aria-label": "Smoothing", oninput: (event) => {
    const value = Number(event.target.value);
    say(output, value ? value.toFixed(2) : "off");
    choose(value);
  } });
  slider.value = weight;
  return { box: h("label", { class: "smoothing", title: "Debiased exponential moving average" }, h("span", {}, "Smoothing"), slider, output), slider, output };
}

export class Controls {
  /** `choice` is what is chosen at first, `choose` is told of each change. */
  constructor(choice, choose) {
    this.choose = choose;
    this.axes = h("div", {});
    this.scale = scaleSegments((log) => choose({ log }));
    this.smoothing = smoothing(choice.smooth, (smooth) => choose({ smooth }));
    this.search = h("input", { type: "search", placeholder: "Search metrics", "aria-label": "Search metrics", oninput: (event) => choose({ find: event.target.value.trim() }) });
    this.search.value = choice.find;
    this.whole = h("button", { type: "button", class: "ghost small", hidden: true, onclick: () => choose({ range: null }) }, "Whole run");
    this.legend = h("span", { class: "keys" });
    this.summary = h("span", { class: "found", role: "status" }, "");
    this.box = h("div", { class: "curve-bar" },
      h("div", { class: "card-head" }, h("h2", {}, "Curves"), this.summary, h("div", { class: "bar" }, this.whole, this.legend)),
      h("div", { class: "bar" }, this.search, this.axes, this.smoothing.box, this.scale.box));
    this.show(choice);
  }

  /** What is chosen now. */
  show({ log, range }) {
    this.scale.press(log);
    this.whole.hidden = range === null;
  }

  /** These axes are there, this one is shown, and these marks are on the curves. */
  offer(kinds, kind, has) {
    const [axes, marks] = [JSON.stringify(kinds), JSON.stringify(has)];
    if (this.kinds !== axes) {
      this.kinds = axes;
      this.axis = axisSegments(kinds, (axis) => this.choose({ axis }));
      show(this.axes, this.axis.box);
    }
    this.axis.press(kind);
    if (this.marks === marks) return;
    this.marks = marks;
    show(this.legend, Object.entries(LEGEND).filter(([name]) => has[name]).flatMap(([name, text]) => [h("i", { class: `key ${name}` }), text]));
  }

  /** How many charts the search leaves. */
  found(shown, all) {
    say(this.summary, shown === all ? `${count(all)} ${all === 1 ? "chart" : "charts"}` : `${count(shown)} of ${count(all)} charts`);
  }
}

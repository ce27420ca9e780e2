// Charts in sections: all names are on the page at once, a chart is made when it is about to be seen, and given up when it is far away.

import { h, say, show } from "../base/dom.js";
import { Chart } from "./chart.js";

/** How far from the screen a chart is made. */
const NEAR = "500px 0px";

export class Grid {
  /**
   * `options(card)` are those of the `Chart` of a card; `draw(card)` fills the chart of a card that is near; `moved()` is told
   * when other cards are near than before; `tools(chart)` are the buttons of a card.
   */
  constructor({ options, draw, moved, tools }) {
    Object.assign(this, { options, draw, moved, tools });
    this.cards = new Map();
    this.box = h("div", { class: "chart-groups" });
    this.observer = new IntersectionObserver((entries) => this.#seen(entries), { rootMargin: NEAR });
  }

  /** Shows these sections; cards that are there already stay as they are. */
  set(sections) {
    const focused = this.#focused();
    const wanted = new Set(sections.flatMap(({ charts }) => charts.map(({ id }) => id)));
    for (const [id, card] of this.cards) {
      if (wanted.has(id)) continue;
      this.#release(card);
      this.observer.unobserve(card.box);
      this.cards.delete(id);
    }
    show(this.box, sections.map(({ name, charts }) =>
      h("section", { class: `chart-group${charts.length === 1 ? " single" : ""}`, "data-group": name, "aria-label": name || "Metrics" },
        // Charts without a group have a heading, too: screen readers go from heading to heading.
        name ? h("h3", {}, name, h("span", { class: "count" }, String(charts.length))) : h("h3", { class: "off-page" }, "Metrics"),
        h("div", { class: "chart-grid" }, charts.map((chart) => this.#card(chart).box)))));
    const card = focused && this.cards.get(focused.id);
    if (card) card.tools.children[focused.at].focus({ preventScroll: true });
  }

  /** The button that has the focus: a card that moves would lose it. */
  #focused() {
    const button = document.activeElement;
    const box = this.box.contains(button) ? button.closest(".chart") : null;
    const tools = box && [...this.cards.get(box.dataset.chart).tools.children];
    return tools && tools.includes(button) ? { id: box.dataset.chart, at: tools.indexOf(button) } : null;
  }

  #card(chart) {
    const known = this.cards.get(chart.id);
    if (known) {
      const more = known.chart.fields.length !== chart.fields.length;
      known.chart = chart;
      say(known.title, chart.title);
      show(known.tools, this.tools(chart));
      if (more && known.near) this.draw(known);
      return known;
    }
    const card = { chart, near: false, plot: null };
    card.title = h("h4", {}, chart.title);
    card.tools = h("div", { class: "chart-tools" }, this.tools(chart));
    card.place = h("div", { class: "chart-place" });
    card.note = h("p", { class: "chart-note" }, "");
    card.box = h("article", { class: `chart${chart.fields.length > 1 ? " many" : ""}`, "data-chart": chart.id }, h("div", { class: "chart-head" }, card.title, card.tools), card.place, card.note);
    this.cards.set(chart.id, card);
    this.observer.observe(card.box);
    return card;
  }

  #seen(entries) {
    for (const entry of entries) {
      const card = this.cards.get(entry.target.dataset.chart);
      if (!card || card.near === entry.isIntersecting) continue;
      card.near = entry.isIntersecting;
      if (!card.near) this.#release(card);
    }
    this.moved();
  }

  /** Cards that are near the screen, from the top. */
  near() {
    return [...this.box.querySelectorAll(".chart")].map((box) => this.cards.get(box.dataset.chart)).filter((card) => card && card.near);
  }

  /** The chart of a card that is near. */
  chartOf(card) {
    if (!card.plot) {
      card.plot = new Chart({ ...this.options(card), title: card.chart.title });
      show(card.place, card.plot.box);
    }
    return card.plot;
  }

  #release(card) {
    if (card.plot) card.plot.destroy();
    card.plot = null;
    show(card.place);
  }

  close() {
    this.observer.disconnect();
    for (const card of this.cards.values()) this.#release(card);
    this.cards.clear();
  }
}

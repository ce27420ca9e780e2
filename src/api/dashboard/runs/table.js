// The rows of the table of runs. A row stays the same element while it is shown, so that nothing moves under a person who reads.

import { h, show } from "../base/dom.js";
import { runName, statusOf } from "../base/format.js";
import { parts, room } from "./align.js";
import { coverage } from "./selection.js";

/** A cell is redrawn when its text has changed. */
function fill(cell, column, run) {
  const text = column.show(run);
  const title = column.title ? column.title(run) : column.key === "notes" ? run.notes : null;
  if (title) cell.title = title;
  else if (column.title) cell.removeAttribute("title");
  const key = column.key === "tags" ? JSON.stringify(run.tags) : text;
  if (cell.dataset.text === key) return;
  cell.dataset.text = key;
  cell.classList.toggle("blank", text === "");
  if (column.key === "name") {
    show(cell, h("a", { href: `#/run/${run.run_id}`, tabindex: -1, title: text }, text));
  } else if (column.key === "status") {
    show(cell, h("span", { class: `status ${text}` }, h("i", { class: `dot ${text}` }), text));
  } else if (column.key === "tags") {
    show(cell, (run.tags || []).map((tag) => h("span", { class: "tag" }, tag)));
  } else if (column.text || column.time) {
    cell.textContent = text;
    if (column.text && text.length > 24) cell.title = text;
  } else {
    const [whole, rest] = parts(text);
    show(cell, h("span", {}, whole), h("span", { class: "rest" }, rest));
  }
}

/** Gives the rest of each number of a column as much room as the longest has. */
function alignColumn(cells) {
  const rests = cells.map((cell) => cell.querySelector(".rest")).filter(Boolean);
  const most = room(cells.map((cell) => cell.textContent));
  for (const rest of rests) rest.style.minWidth = `${most}ch`;
}

const kind = (column) => (column.key === "name" ? "name" : column.text ? "words" : column.time ? "time" : "number");

/** The table. `on` hears `sort(column)`, `pick(id, yes, withShift)`, `pickShown(yes)`, and `look()` when other rows are in view. */
export class Table {
  constructor(on) {
    this.on = on;
    this.columns = [];
    this.rows = new Map();
    this.runs = [];
    this.focused = null;
    this.inView = new Set();
    this.observer = new IntersectionObserver((changes) => this.see(changes));
    this.head = h("tr", {});
    this.body = h("tbody", { onkeydown: (event) => this.key(event), onfocusin: (event) => this.remember(event) });
    this.all = h("input", { type: "checkbox", "aria-label": "Select all runs shown", onchange: (event) => on.pickShown(event.target.checked) });
    this.element = h("table", { class: "runs-table", "aria-label": "Runs" }, h("thead", {}, this.head), this.body);
  }

  /** Shows these columns, sorted as the query says. */
  setColumns(columns, query) {
    const key = columns.map((column) => `${column.key}:${column.text}`).join("\n");
    if (key !== this.columnsKey) {
      this.columnsKey = key;
      this.columns = columns;
      this.rows.clear();
    }
    const head = `${key}\n${query.sort} ${query.order}`;
    if (head === this.headKey) return;
    this.headKey = head;
    // A person who sorts by keyboard stays at the header.
    const focused = this.head.contains(document.activeElement) && document.activeElement.closest("[data-column]");
    show(this.head, h("td", { class: "box" }, this.all), columns.map((column) => this.header(column, query)));
    const again = focused && [...this.head.children].find((cell) => cell.dataset.column === focused.dataset.column);
    if (again && again.querySelector("button")) again.querySelector("button").focus({ preventScroll: true });
  }

  header(column, query) {
    if (column.metric) return h("th", { scope: "col", class: `${kind(column)} metric`, "data-column": column.key, title: column.hint }, h("span", { class: "config-key" }, column.label));
    const sorted = query.sort === column.key;
    const arrow = sorted ? (query.order === "asc" ? "↑" : "↓") : "";
    const label = column.config ? h("span", { class: "config-key" }, column.label) : column.label;
    return h("th", { scope: "col", class: kind(column), "data-column": column.key, "aria-sort": sorted ? (query.order === "asc" ? "ascending" : "descending") : null },
      h("button", { type: "button", title: `Sort by ${column.label}`, onclick: () => this.on.sort(column) }, label, h("i", { class: "arrow", "aria-hidden": "true" }, arrow)));
  }

  row(run) {
    const id = run.run_id;
    const box = h("input", { type: "checkbox", tabindex: -1, "aria-label": `Select ${runName(run)}`, onclick: (event) => this.on.pick(id, event.target.checked, event.shiftKey) });
    const cells = this.columns.map((column) =>
      h(column.key === "name" ? "th" : "td", { class: column.metric ? `${kind(column)} metric` : kind(column), scope: column.key === "name" ? "row" : null, "data-label": column.label }));
    const row = { box, cells, element: h("tr", { "data-run": id, tabindex: -1 }, h("td", { class: "box" }, h("label", {}, box)), cells) };
    this.rows.set(id, row);
    this.observer.observe(row.element);
    return row;
  }

  see(changes) {
    for (const { target, isIntersecting } of changes) {
      if (isIntersecting) this.inView.add(target);
      else this.inView.delete(target);
      if (!target.isConnected) this.observer.unobserve(target);
    }
    this.on.look();
  }

  /** The runs whose rows are in view, from the top. */
  seen() {
    return this.runs.filter((run) => this.inView.has(this.rows.get(run.run_id)?.element));
  }

  close() {
    this.observer.disconnect();
  }

  /** Shows these runs in this order. */
  setRuns(runs, picked) {
    this.runs = runs;
    const ids = new Set(runs.map((run) => run.run_id));
    for (const id of this.rows.keys()) if (!ids.has(id)) this.rows.delete(id);
    const elements = runs.map((run) => {
      const row = this.rows.get(run.run_id) || this.row(run);
      row.cells.forEach((cell, at) => fill(cell, this.columns[at], run));
      row.element.classList.toggle("picked", picked.has(run.run_id));
      row.element.classList.toggle("archived", Boolean(run.archived));
      row.box.checked = picked.has(run.run_id);
      row.box.setAttribute("aria-label", `Select ${runName(run)}, ${statusOf(run)}`);
      return row.element;
    });
    this.place(elements);
    this.columns.forEach((column, at) => {
      if (kind(column) === "number") alignColumn(elements.map((element) => element.cells[at + 1]));
    });
    const covered = coverage(picked, [...ids]);
    [this.all.checked, this.all.indeterminate] = [covered === "all", covered === "some"];
    this.rove();
  }

  /** Puts the rows in their places; those that are there already are not touched, and keep the focus. */
  place(elements) {
    const kept = new Set(elements);
    [...this.body.children].forEach((child) => kept.has(child) || child.remove());
    elements.forEach((element, at) => {
      if (this.body.children[at] !== element) this.body.insertBefore(element, this.body.children[at] || null);
    });
  }

  /** One row is reached by the tab key; the arrow keys go on from there. */
  rove() {
    if (!this.rows.has(this.focused)) this.focused = this.runs.length ? this.runs[0].run_id : null;
    for (const [id, row] of this.rows) row.element.tabIndex = id === this.focused ? 0 : -1;
  }

  remember(event) {
    const row = event.target.closest("[data-run]");
    if (!row || row.dataset.run === this.focused) return;
    this.focused = row.dataset.run;
    this.rove();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const row = event.target.closest("[data-run]");
    const run = row.dataset.run;
    const steps = { ArrowDown: row.nextElementSibling, j: row.nextElementSibling, ArrowUp: row.previousElementSibling, k: row.previousElementSibling, Home: this.body.firstElementChild, End: this.body.lastElementChild };
    if (event.key in steps) {
      if (steps[event.key]) steps[event.key].focus();
    } else if (event.key === "Enter" && event.target === row) {
      location.hash = `#/run/${run}`;
    } else if (event.key.toLowerCase() === "x" || (event.key === " " && event.target === row)) {
      this.on.pick(run, !this.rows.get(run).box.checked, event.shiftKey);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

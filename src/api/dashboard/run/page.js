// The page of one run: its numbers, curves, network, growth and events.

import { h, show, say } from "../base/dom.js";
import { path } from "../base/api.js";
import { count, date, isolated, short, statusOf } from "../base/format.js";
import { live, stored } from "../base/stream.js";
import * as runs from "../runs/list.js";
import { Curves } from "./curves.js";
import { card } from "./details.js";
import { Events } from "./events.js";
import { Growth } from "./growth.js";
import { Tiles } from "./tiles.js";
import { title } from "./title.js";
import { trainer } from "./trainer.js";

const GROWTH_MS = 3000;

let page = null;

/** Curves may be many, and the details are below them. */
function toDetails() {
  const box = page.details.box;
  box.scrollIntoView({ block: "start" });
  box.focus({ preventScroll: true });
}

function header(id) {
  const name = title(id);
  const status = h("span", { class: "badge", role: "status", "aria-live": "polite" }, "");
  const meta = h("p", { class: "meta" }, "");
  const formats = [["CSV", "csv"], ["JSON", "json"], ["NDJSON", "ndjson"]].map(([label, format]) =>
    h("a", { href: path("api/export", { run_id: id, format }), download: `${short(id)}.${format}` }, label));
  const commands = trainer(id);
  const details = h("button", { type: "button", class: "link to-details", onclick: toDetails }, "Configuration, notes and tags ↓");
  const exports = h("div", { class: "exports" }, h("span", {}, "Export"), formats, details);
  return { name, status, meta, commands, box: h("div", { class: "head" }, h("div", { class: "title" }, name.box, status), meta, commands.box, exports) };
}

class Page {
  constructor(box, id) {
    this.id = id;
    this.head = header(id);
    this.tiles = new Tiles();
    this.curves = new Curves(id, () => this.fresh());
    this.growth = new Growth(id, () => this.curves.first && this.curves.first.series);
    this.events = new Events(id);
    this.details = card(id);
    this.renewing = null;
    /** The number of hidden units that the stream told last. */
    this.units = null;
    show(box, this.head.box, this.tiles.box, this.curves.box, this.growth.box, this.events.box, this.details.box);
    runs.select(id);
    if (runs.known.has(id)) this.showRun();
    else runs.renew(id);
    this.leave = [
      runs.changed.on(() => this.showRun()),
      live.metrics.on(({ run_id, rows, skipped }) => run_id === id && this.hear(rows, skipped)),
      live.topology.on((row) => row.run_id === id && this.growth.add(row) && this.renew()),
      live.event.on(({ run_id }) => run_id === id && this.renew()),
      live.behind.on(() => this.load()),
    ];
  }

  close() {
    this.leave.forEach((stop) => stop());
    clearTimeout(this.renewing);
    this.curves.close();
    this.head.name.close();
    this.details.close();
  }

  /** Reads everything of the run from the store; when it is asked for meanwhile, once more after that. */
  async load() {
    this.again = true;
    if (this.loading) return;
    this.loading = true;
    // A run of this moment is not in the store yet.
    const tolerate = (question) => question.catch((error) => page === this && error.status !== 404 && this.curves.fail(error));
    while (this.again && page === this) {
      this.again = false;
      await Promise.all([this.curves, this.growth, this.events].map((part) => tolerate(part.load())));
    }
    this.loading = false;
  }

  hear(rows, skipped) {
    this.curves.append(rows, skipped);
    const row = rows.findLast(({ hidden_units }) => hidden_units !== null && hidden_units !== undefined);
    if (!row || row.hidden_units === this.units) return;
    this.units = row.hidden_units;
    this.renew();
  }

  /** Soon, and not more often than that: growth, events and gaps change slowly. The store is asked once it has what changed. */
  renew() {
    this.renewing ??= setTimeout(() => {
      this.renewing = null;
      stored(() => page === this && Promise.all([this.growth.load(), this.events.load(), this.curves.renew()]).catch(() => {}));
    }, GROWTH_MS);
  }

  /** The curves have changed. */
  fresh() {
    this.tiles.set(this.curves.first.series, this.curves.charts, runs.known.get(this.id));
    this.events.setGaps(this.curves.gaps);
  }

  showRun() {
    const run = runs.known.get(this.id);
    if (!run) return;
    const { name, status, meta, commands } = this.head;
    name.set(run);
    commands.set(run);
    this.details.set(run);
    const now = statusOf(run);
    say(status, now);
    status.className = `badge ${now}`;
    const words = [
      run.dataset_name && `dataset ${isolated(run.dataset_name)}${run.dataset_size ? ` (${count(run.dataset_size)})` : ""}`,
      run.start_time && `started ${date(run.start_time)}`,
      run.archived && "archived",
    ].filter(Boolean);
    say(meta, words.join("  ·  "));
    if (this.curves.first) this.fresh();
  }
}

export function open(box, id) {
  close();
  page = new Page(box, id);
  page.load();
  page.showRun();
}

export function close() {
  if (page) page.close();
  page = null;
}

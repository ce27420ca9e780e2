// The page: which view is shown, what the stream follows, and whether the daemon is there.

import * as address from "./base/address.js";
import * as connection from "./base/connection.js";
import { h, say, show } from "./base/dom.js";
import { runName } from "./base/format.js";
import * as keys from "./base/keys.js";
import * as place from "./base/place.js";
import { follow } from "./base/stream.js";
import { recolour } from "./charts/chart.js";
import * as comparison from "./compare/page.js";
import * as pipeline from "./pipeline/page.js";
import * as run from "./run/page.js";
import * as runs from "./runs/list.js";
import * as runsPage from "./runs/page.js";
import { emptyState } from "./runs/empty.js";
import { lookUp } from "./run/lookup.js";
import * as session from "./base/session.js";

const main = document.getElementById("main");
const THEMES = ["system", "light", "dark"];

let view = null;

function route() {
  const { view: name, run: id, params } = address.current();
  if (view) view.close();
  document.body.dataset.view = name ?? "none";
  document.querySelectorAll("[data-tab]").forEach((tab) => {
    const mine = tab.dataset.tab === (name === "run" ? "runs" : name ?? "runs");
    if (mine) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  });
  view = { run: found(id), runs: table, compare, pipeline: pipelinePage }[name] ?? welcome;
  if (name === "compare") runs.fromAddress(params);
  view.open(main);
}

/** A filter that only reports who is active. */
const NOBODY = ["00000000-0000-0000-0000-000000000000"];

const titled = (text) => {
  document.title = `${text} - cascor-ingest`;
};

const compare = {
  open(box) {
    follow([...runs.picked]);
    const named = () => titled(runs.picked.size ? `Compare ${runs.picked.size} ${runs.picked.size === 1 ? "run" : "runs"}` : "Compare");
    this.stop = runs.picks.on(() => {
      follow([...runs.picked]);
      named();
    });
    named();
    comparison.open(box);
  },
  close() {
    this.stop();
    comparison.close();
  },
};

const table = {
  open(box) {
    follow(NOBODY);
    runsPage.open(box);
  },
  close: runsPage.close,
};

const pipelinePage = {
  open(box) {
    titled("Pipeline");
    follow(NOBODY);
    pipeline.open(box);
  },
  close: pipeline.close,
};

/** A run by its id, or by one of its names: several runs may have one, or none. */
function found(text) {
  return {
    open(box) {
      titled(text ?? "Run");
      this.stop = lookUp(text, {
        show: (id) => {
          this.shown = id;
          follow([id]);
          const named = () => {
            if (runs.known.has(id)) titled(runName(runs.known.get(id)));
            // Deleted while it was looked at.
            else if (runs.missing.has(id)) queueMicrotask(route);
          };
          this.unname = runs.changed.on(named);
          named();
          run.open(box, id);
        },
        tell: (...parts) => {
          runs.select(null);
          follow(NOBODY);
          show(box, ...parts);
        },
      });
    },
    close() {
      this.stop();
      if (!this.shown) return;
      this.unname();
      run.close();
    },
  };
}

/** Without a view the newest run is shown, once there is one. */
const welcome = {
  open() {
    titled("Runs");
    follow(NOBODY);
    runs.select(null);
    show(main, h("p", { class: "summary", role: "status" }, "Loading…"));
    this.stop = runs.changed.on(() => this.jump());
    this.jump();
  },
  jump() {
    const first = runs.newest();
    if (first) location.replace(`#/run/${first.run_id}`);
    else if (runs.isEmpty()) show(main, emptyState());
    else if (runs.failure()) show(main, h("p", { class: "summary failed", role: "status" }, `The list of runs cannot be read: ${runs.failure()}.`));
  },
  close() {
    this.stop();
  },
};

function theme() {
  const button = document.getElementById("theme");
  let current = localStorage.getItem("theme") || "system";
  const apply = () => {
    if (current === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = current;
    button.setAttribute("aria-label", `Colours: ${current === "system" ? "as the system" : current}`);
    button.title = button.getAttribute("aria-label");
    recolour();
  };
  button.addEventListener("click", () => {
    current = THEMES[(THEMES.indexOf(current) + 1) % THEMES.length];
    localStorage.setItem("theme", current);
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  apply();
}

function counts() {
  const badge = document.getElementById("compare-count");
  const draw = () => {
    badge.hidden = runs.picked.size === 0;
    say(badge, String(runs.picked.size));
  };
  runs.picks.on(draw);
  draw();
}

theme();
connection.mount();
counts();
runs.mount(document.getElementById("runs"));
session.mount();
pipeline.listen();
keys.mount();
place.mount();
window.addEventListener("hashchange", route);
route();
runs.refresh();
document.documentElement.dataset.ready = "yes";

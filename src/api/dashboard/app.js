// The page: which view is shown, what the stream follows, and whether the daemon is there.

import { h, say, show } from "./dom.js";
import { follow, live } from "./stream.js";
import { recolour } from "./chart.js";
import * as compare from "./compare.js";
import * as pipeline from "./pipeline.js";
import * as run from "./run.js";
import * as runs from "./runs.js";
import * as session from "./session.js";

const main = document.getElementById("main");
const THEMES = ["system", "light", "dark"];

let view = null;

function route() {
  const [, name = "runs", id] = location.hash.split(/[/?]/);
  if (view) view.close();
  document.body.dataset.view = name === "run" ? "run" : name;
  document.querySelectorAll("[data-tab]").forEach((tab) => {
    const mine = tab.dataset.tab === (name === "run" ? "runs" : name);
    if (mine) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  });
  if (name === "run" && /^[0-9a-f-]{36}$/i.test(id || "")) {
    view = run;
    follow([id]);
    run.open(main, id.toLowerCase());
  } else if (name === "compare") {
    view = compare;
    follow([...runs.picked]);
    compare.open(main);
  } else if (name === "pipeline") {
    view = pipeline;
    follow(NOBODY);
    pipeline.open(main);
  } else {
    view = welcome;
    follow(NOBODY);
    welcome.open();
  }
}

/** A filter that only reports who is active. */
const NOBODY = ["00000000-0000-0000-0000-000000000000"];

/** On a wide page the newest run is shown beside the list; on a small one the list is the page. */
const welcome = {
  open() {
    runs.select(null);
    show(main, h("div", { class: "welcome" }, h("h1", {}, "Waiting for a run"), h("p", {}, "Runs appear here by themselves as soon as a trainer publishes. To see one now:"), h("pre", {}, "cascor-ingest demo")));
    this.stop = runs.changed.on(() => this.jump());
    this.jump();
  },
  jump() {
    const first = runs.newest();
    if (first && matchMedia("(min-width: 860px)").matches) location.replace(`#/run/${first.run_id}`);
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

function connection() {
  const pill = document.getElementById("connection");
  const text = pill.querySelector("span");
  const notice = document.getElementById("notice");
  let status = null;
  let state = "connecting";
  const draw = () => {
    const words = { connecting: "reconnecting", offline: "not connected" };
    const now = state === "live" && status ? (status.paused ? "paused" : status.ready ? "live" : "degraded") : words[state] || state;
    pill.className = `pill ${now.replace(" ", "-")}`;
    say(text, now);
    pill.title = status ? `${status.instance}, version ${status.version}` : "";
    const missing = state === "live" && status && !status.ready && status.missing && status.missing.length ? `Not ready: ${status.missing.join("; ")}.` : "";
    const locked = document.documentElement.hasAttribute("data-locked");
    const why = locked ? "Reading needs a token here: sign in." : "The daemon does not answer. This page goes on by itself when it does.";
    const lost = state === "offline" ? why : "";
    say(notice, missing || lost);
    notice.hidden = !(missing || lost);
  };
  live.state.on((now) => {
    state = now;
    draw();
  });
  live.status.on((now) => {
    status = now;
    draw();
  });
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
connection();
counts();
runs.mount(document.getElementById("runs"));
session.mount();
pipeline.listen();
window.addEventListener("hashchange", route);
route();
runs.refresh();
document.documentElement.dataset.ready = "yes";

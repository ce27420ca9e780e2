// The pill in the head and the bar below it: whether the daemon answers, and what is wrong with it, in the words of `status`.

import { h, say, show } from "./dom.js";
import { setStaleAfter } from "./format.js";
import { changed, scope } from "./session.js";
import { live } from "./stream.js";
import { verdict } from "./verdict.js";

const CONNECTION = { connecting: "connecting", offline: "not connected" };

const pill = document.getElementById("connection");
const notice = document.getElementById("notice");

let state = "connecting";
let status = null;
let refusal = null;
/** The daemon's version when this page was loaded. */
let version = null;
let shown = null;
/** Whether all events are live: of streams that cannot be read they are not. */
let isLive = true;

/** `{word, tone, lines}`: what the pill says, how grave it is, and what the bar says. */
function now() {
  if (state === "offline" && scope() === "none") return { word: "locked", tone: "", lines: [{ lead: "Reading needs a token here: sign in." }] };
  if (state !== "live") return { word: CONNECTION[state], tone: state === "offline" ? "bad" : "", lines: state === "offline" ? [lost()] : [] };
  if (!status) return { word: "connecting", tone: "", lines: [] };
  const { ok, state: word, findings } = verdict(status);
  const tone = ok ? "good" : word === "PAUSED" ? "" : "bad";
  return { word: isLive ? word.toLowerCase() : `${word.toLowerCase()}, not live`, tone, lines: findings.map((one) => ({ lead: `${capital(one.state)}: ${one.text}.`, remedy: one.remedy })) };
}

function lost() {
  if (refusal) return { lead: `The live stream is refused: ${refusal}. This page tries again by itself.` };
  return { lead: "The daemon does not answer. This page goes on by itself when it does." };
}

const capital = (text) => text.charAt(0) + text.slice(1).toLowerCase();

const line = ({ lead, remedy }) => h("span", {}, lead, remedy && [" To mend it: ", h("code", {}, remedy)]);

function draw() {
  const { word, tone, lines } = now();
  pill.className = `pill ${tone}`;
  say(pill.querySelector("span"), word);
  const why = isLive ? "" : ". Not all events are live, so this page asks for rows every few seconds; the log of the daemon says why";
  pill.title = status && state === "live" ? `${status.instance}, version ${status.version}: ${verdict(status).text}${why}` : lines.map((one) => one.lead).join(" ");
  const isOld = status && version && status.version !== version;
  // Told again only when it differs.
  const key = JSON.stringify([lines, tone, isOld && status.version]);
  if (key === shown) return;
  shown = key;
  notice.className = `notice ${tone === "bad" ? "" : "warn"}`;
  notice.hidden = lines.length === 0 && !isOld;
  show(notice, lines.map(line), isOld && [
    h("span", {}, `The daemon is now version ${status.version}; this page is of version ${version}.`),
    h("button", { type: "button", class: "small", onclick: () => location.reload() }, "Reload the page"),
  ]);
}

export function mount() {
  live.state.on((to) => {
    state = to;
    if (to === "live") refusal = null;
    draw();
  });
  live.hello.on((hello) => {
    isLive = hello.live;
    setStaleAfter(hello.stale_after_seconds);
    draw();
  });
  live.refused.on((why) => {
    refusal = why;
    draw();
  });
  live.status.on((to) => {
    status = to;
    version ??= to.version;
    draw();
  });
  changed.on(draw);
  draw();
}

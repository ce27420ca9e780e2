// The network as it grows: inputs at the left, each hidden unit a layer of its own, outputs at the right.

import { s, h, show } from "../base/dom.js";
import { counted, number } from "../base/format.js";

const [WIDTH, HEIGHT, MARGIN] = [640, 300, 34];
const UNITS_MAX = 60;
const LINKS_MAX = 900;

const size = (value, fallback) => (Array.isArray(value) ? value.length : Number.isFinite(value) ? value : fallback);

/** Numbers of units and weighted links of a snapshot, in whichever of the usual shapes it is. */
export function parse(row) {
  let raw = {};
  try {
    raw = row.topology_json ? JSON.parse(row.topology_json) : {};
  } catch {
    raw = {};
  }
  const data = { ...raw, ...(raw.network_topology || {}), ...(raw.data || {}) };
  const inputs = row.input_size ?? size(data.input_size ?? data.input_units, 0);
  const outputs = row.output_size ?? size(data.output_size ?? data.output_units, 0);
  const hidden = row.hidden_units ?? size(data.hidden_units, 0);
  const order = nodes(data, inputs, hidden, outputs);
  const links = (Array.isArray(data.connections) ? data.connections : [])
    .map((link) => ({
      from: order(link.from ?? link.source ?? link.from_node ?? (Array.isArray(link) ? link[0] : undefined)),
      to: order(link.to ?? link.target ?? link.to_node ?? (Array.isArray(link) ? link[1] : undefined)),
      weight: Number(link.weight ?? link.w ?? (Array.isArray(link) ? link[2] : 0)) || 0,
    }))
    .filter((link) => link.from && link.to);
  return { inputs, hidden, outputs, links, epoch: row.epoch, timestamp: row.timestamp, parameters: row.total_parameters };
}

/** Finds a unit by whatever names it: `input_0`, `hidden_3`, `i0`, `h3`, or a number through all layers. */
function nodes(data, inputs, hidden, outputs) {
  const total = inputs + hidden + outputs;
  const layers = { i: ["input", inputs], h: ["hidden", hidden], o: ["output", outputs], b: ["bias", 1] };
  // With a bias as a unit the numbers begin with it.
  const numbered = (at) => {
    if (at < inputs) return { layer: "input", at };
    if (at < inputs + hidden) return { layer: "hidden", at: at - inputs };
    return at < total ? { layer: "output", at: at - inputs - hidden } : null;
  };
  const listed = new Map();
  (Array.isArray(data.nodes) ? data.nodes : []).forEach((node, place) => {
    const kind = layers[String(node.type ?? node.layer_type ?? "")[0]];
    if (kind && node.id !== undefined) {
      const before = [...listed.values()].filter((known) => known.layer === kind[0]).length;
      listed.set(String(node.id), { layer: kind[0], at: before });
    } else if (node.id !== undefined) {
      const found = numbered(place);
      if (found) listed.set(String(node.id), found);
    }
  });
  return (name) => {
    if (name === undefined || name === null) return null;
    if (listed.has(String(name))) return listed.get(String(name));
    if (typeof name === "number") return numbered(name);
    const found = /^([ihob])[a-z]*[_-]?(\d*)$/i.exec(String(name));
    const layer = found && layers[found[1].toLowerCase()];
    return layer ? { layer: layer[0], at: Number(found[2] || 0) } : null;
  };
}

/** Where each unit stands: hidden units climb from left to right, so that every link to a later one can be seen. */
function layout({ inputs, hidden, outputs }) {
  const column = (n, x) => (at) => ({ x, y: HEIGHT / 2 + (at - (n - 1) / 2) * Math.min(46, (HEIGHT - 2 * MARGIN) / Math.max(1, n)) });
  const span = WIDTH - 2 * MARGIN - 150;
  const step = span / Math.max(1, hidden);
  return {
    input: column(inputs, MARGIN),
    output: column(outputs, WIDTH - MARGIN),
    bias: () => ({ x: MARGIN, y: HEIGHT - MARGIN / 2 }),
    hidden: (at) => ({ x: MARGIN + 75 + step * (at + 0.5), y: HEIGHT / 2 + ((at % 2 ? 1 : -1) * (34 + 26 * (Math.floor(at / 2) % 3))) }),
  };
}

/** Without listed weights: every earlier unit feeds every later one, as in any cascade. */
function assumed({ inputs, hidden, outputs }) {
  const links = [];
  const before = (n) => [
    ...Array.from({ length: inputs }, (_, at) => ({ layer: "input", at })),
    ...Array.from({ length: n }, (_, at) => ({ layer: "hidden", at })),
  ];
  for (let at = 0; at < hidden; at += 1) before(at).forEach((from) => links.push({ from, to: { layer: "hidden", at }, weight: 0 }));
  for (let at = 0; at < outputs; at += 1) before(hidden).forEach((from) => links.push({ from, to: { layer: "output", at }, weight: 0 }));
  return links;
}

/** Draws a snapshot into `box`. */
export function draw(box, network) {
  const { inputs, hidden, outputs } = network;
  if (inputs + hidden + outputs === 0) return show(box, h("p", { class: "empty" }, "No snapshot of the network yet."));
  const words = [counted(inputs, "input"), counted(hidden, "hidden unit"), counted(outputs, "output")].join(", ");
  if (inputs + hidden + outputs > UNITS_MAX) {
    return show(box, h("p", { class: "empty" }, `${words}: too many to draw.`));
  }
  const place = layout(network);
  const listed = network.links.length > 0;
  const links = (listed ? network.links : assumed(network)).slice().sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).slice(0, LINKS_MAX);
  const top = Math.max(1e-9, ...links.map((link) => Math.abs(link.weight)));
  const lines = links.map(({ from, to, weight }) => {
    const [a, b] = [place[from.layer](from.at), place[to.layer](to.at)];
    const strength = listed ? Math.abs(weight) / top : 0.3;
    const bend = (b.x - a.x) * 0.45;
    return s(
      "path",
      {
        d: `M${a.x} ${a.y}C${a.x + bend} ${a.y} ${b.x - bend} ${b.y} ${b.x} ${b.y}`,
        class: `link ${listed ? (weight < 0 ? "minus" : "plus") : ""}`,
        "stroke-width": (0.6 + 2.2 * strength).toFixed(2),
        "stroke-opacity": (0.12 + 0.6 * strength).toFixed(2),
      },
      listed ? s("title", {}, `${from.layer} ${from.at} → ${to.layer} ${to.at}: ${number(weight)}`) : null,
    );
  });
  const units = [["input", inputs], ["hidden", hidden], ["output", outputs]].flatMap(([layer, n]) =>
    Array.from({ length: n }, (_, at) => {
      const { x, y } = place[layer](at);
      const newest = layer === "hidden" && at === hidden - 1;
      return s(
        "g",
        { class: `unit ${layer} ${newest ? "newest" : ""}` },
        s("circle", { cx: x, cy: y, r: layer === "hidden" ? 8 : 7 }, s("title", {}, `${layer} ${at}`)),
        layer === "hidden" && hidden <= 32 ? s("text", { x, y: y + 3.2 }, at + 1) : null,
      );
    }),
  );
  show(
    box,
    s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Network: ${words}`, class: "network" }, s("g", {}, lines), units),
  );
}

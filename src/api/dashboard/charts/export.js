// A chart as a picture or as a table.

import { get } from "../base/api.js";
import { colour, h } from "../base/dom.js";
import { fieldOf } from "../base/format.js";

const PAGE = 10000;
const MARGIN = 14;

function save(name, blob) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const fileName = (title, ending) => `${title.replace(/[^\p{L}\p{N}._-]+/gu, "-")}.${ending}`;

/** The chart with its name and what its lines are, as a PNG. */
export function png(plot, title) {
  const from = plot.plot.ctx.canvas;
  const ratio = devicePixelRatio || 1;
  const canvas = h("canvas", { width: from.width + 2 * MARGIN * ratio, height: from.height + 62 * ratio });
  const ctx = canvas.getContext("2d");
  ctx.fillStyle = colour("--panel");
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.fillStyle = colour("--ink");
  ctx.font = `600 ${14 * ratio}px system-ui, sans-serif`;
  ctx.textBaseline = "middle";
  ctx.fillText(title, MARGIN * ratio, 18 * ratio);
  ctx.drawImage(from, MARGIN * ratio, 32 * ratio);
  let x = MARGIN * ratio;
  const y = 46 * ratio + from.height;
  ctx.font = `${12 * ratio}px system-ui, sans-serif`;
  for (const { label, stroke } of plot.content.lines) {
    ctx.fillStyle = colour(stroke);
    ctx.fillRect(x, y - ratio, 14 * ratio, 2.5 * ratio);
    ctx.fillStyle = colour("--ink");
    ctx.fillText(label, x + 20 * ratio, y);
    x += 36 * ratio + ctx.measureText(label).width;
  }
  canvas.toBlob((blob) => save(fileName(title, "png"), blob));
}

const cell = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

/** Every stored row that has one of these metrics, page by page, as lines of a CSV file. JSON has no NaN: rows name such fields. */
async function rowsOf(runId, fields, progress) {
  const head = ["timestamp", "epoch", "step"];
  const lines = [[...head, ...fields].map(cell).join(",")];
  let cursor = null;
  do {
    const answer = await get("api/metrics/range", { run_id: runId, order: "asc", limit: PAGE, cursor, field: [...head.slice(1), ...fields] });
    for (const row of answer.metrics) {
      const values = fields.map((name) => fieldOf(row, name));
      if (values.some((value) => value !== null)) lines.push([...head.map((name) => row[name]), ...values].map(cell).join(","));
    }
    cursor = answer.next;
    progress(lines.length - 1);
  } while (cursor);
  return `${lines.join("\r\n")}\r\n`;
}

/** Buttons for the picture and for the rows. `plot()` is the chart, while it is made. */
export function exportButtons({ runId, chart, plot, fail }) {
  const button = (text, title, act) => h("button", { type: "button", class: "ghost small", title, "aria-label": `${chart.title}: ${title}`, onclick: act }, text);
  const csv = async ({ currentTarget: mine }) => {
    mine.disabled = true;
    try {
      save(fileName(chart.title, "csv"), new Blob([await rowsOf(runId, chart.fields, (rows) => (mine.textContent = `${Math.floor(rows / 1000)}k`))], { type: "text/csv" }));
    } catch (error) {
      fail(error);
    }
    mine.textContent = "CSV";
    mine.disabled = false;
  };
  return [
    button("PNG", "picture of the chart", () => plot() && plot().plot && png(plot(), chart.title)),
    button("CSV", "all stored rows of these metrics, exact", csv),
  ];
}

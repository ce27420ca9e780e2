// What is drawn behind and over a curve: phases, arrivals of units, gaps, values that are no numbers.

import { colour } from "../base/dom.js";

const LABEL_PX = 22;

function clip(u, draw) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  draw(ctx, bbox, devicePixelRatio || 1);
  ctx.restore();
}

/** Phases and gaps, behind the lines. */
export function behind(u, series, { kind, gaps }) {
  const axis = series.axis(kind);
  clip(u, (ctx, box) => {
    ctx.fillStyle = colour("--phase");
    for (const { name, from, to } of series.phases()) {
      // The common phase is the paper; the others are tinted.
      if (!name || name === "output") continue;
      const left = u.valToPos(axis[from], "x", true);
      const right = u.valToPos(axis[Math.min(to + 1, axis.length - 1)], "x", true);
      ctx.fillRect(left, box.top, Math.max(1, right - left), box.height);
    }
    // Of a part, a gap outside it would be drawn at its edge.
    const [first, last] = [series.time[0], series.time[series.time.length - 1]];
    const seen = series.within ? gaps.filter((gap) => gap.to >= first && gap.from <= last) : gaps;
    for (const gap of seen) hatch(u, ctx, box, [series.place(kind, gap.from), series.place(kind, gap.to)]);
  });
}

function hatch(u, ctx, box, [from, to]) {
  let left = u.valToPos(from, "x", true);
  const width = Math.max(3, u.valToPos(to, "x", true) - left);
  if (!(left + width >= box.left && left <= box.left + box.width)) return;
  left = Math.max(left, box.left - 2);
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, box.top, Math.min(width, box.width + 4), box.height);
  ctx.clip();
  ctx.fillStyle = colour("--gap-fill");
  ctx.fillRect(left, box.top, width, box.height);
  // A gap of a few pixels has no room for its hatching: its beginning is a line.
  ctx.fillStyle = colour("--gap");
  ctx.fillRect(Math.ceil(left), box.top, 1, box.height);
  ctx.strokeStyle = colour("--gap");
  ctx.lineWidth = 1;
  ctx.beginPath();
  const end = Math.min(left + width, box.left + box.width);
  for (let x = left - box.height; x < end; x += 9) {
    ctx.moveTo(x, box.top + box.height);
    ctx.lineTo(x + box.height, box.top);
  }
  ctx.stroke();
  ctx.restore();
}

/** Arrivals and odd values, over the lines. */
export function above(u, series, { kind, fields }) {
  const axis = series.axis(kind);
  clip(u, (ctx, box, ratio) => {
    ctx.font = `${10.5 * ratio}px system-ui, sans-serif`;
    ctx.textBaseline = "top";
    let free = -Infinity;
    for (const { at, units } of series.arrivals()) {
      const x = Math.round(u.valToPos(axis[at], "x", true));
      ctx.strokeStyle = colour("--unit");
      ctx.globalAlpha = 0.55;
      ctx.lineWidth = ratio;
      ctx.setLineDash([3 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, box.top);
      ctx.lineTo(x, box.top + box.height);
      ctx.stroke();
      if (x - free >= LABEL_PX * ratio) {
        ctx.globalAlpha = 1;
        ctx.fillStyle = colour("--unit");
        ctx.fillText(`h${units}`, x + 3 * ratio, box.top + 2 * ratio);
        free = x;
      }
    }
    ctx.setLineDash([]);
    ctx.globalAlpha = 1;
    ctx.fillStyle = colour("--bad");
    for (const { at, name } of series.odd) {
      if (!fields.includes(name)) continue;
      const [x, y, size] = [u.valToPos(axis[at], "x", true), box.top + box.height - 2 * ratio, 5 * ratio];
      ctx.beginPath();
      ctx.moveTo(x - size, y);
      ctx.lineTo(x + size, y);
      ctx.lineTo(x, y - 1.7 * size);
      ctx.fill();
    }
  });
}

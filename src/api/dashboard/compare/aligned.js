// Curves of several runs on one axis. No requests are made here.

/** `x` and, for each curve, its values at each place of `x`, null where it has none: `curves` is a list of `{x, columns}`. */
export function aligned(curves) {
  const x = [...new Set(curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
  const at = new Map(x.map((value, place) => [value, place]));
  const columns = curves.map((curve) => curve.columns.map((values) => {
    const column = new Array(x.length).fill(null);
    values.forEach((value, n) => (column[at.get(curve.x[n])] = value));
    return column;
  }));
  return { x, columns };
}

/** An answer of the daemon as places of the axis: of the time of day, each run begins at its own start (`starts`, in seconds). */
export function placed(answer, starts) {
  return answer.curves.map((curve) => {
    const kept = answer.x.map((_, at) => at).filter((at) => curve.last[at] !== null || curve.min[at] !== null);
    const start = starts ? starts.get(curve.run_id) ?? 0 : 0;
    return { x: kept.map((at) => answer.x[at] + start), columns: [curve.last, curve.min, curve.max].map((column) => kept.map((at) => column[at])) };
  });
}

/** Whether points stand for several values. */
export const isReduced = (answer) => answer.curves.some((curve) => curve.last.some((value, at) => value !== curve.min[at] || value !== curve.max[at]));

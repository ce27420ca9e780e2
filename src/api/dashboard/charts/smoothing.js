// Smoothing of a curve: a debiased exponential moving average, as TensorBoard has it.

/** A pause of this many usual distances, or a longer one, counts as this many. */
const PAUSE_MOST = 1000;

/** The usual distance of neighbours that have a value; 0: they are all at one place. */
function usualDistance(x, values) {
  const distances = [];
  let before = null;
  for (let at = 0; at < values.length; at += 1) {
    if (!Number.isFinite(values[at])) continue;
    if (before !== null && x[at] > before) distances.push(x[at] - before);
    before = x[at];
  }
  distances.sort((a, b) => a - b);
  return distances.length ? distances[(distances.length - 1) >> 1] : 0;
}

/**
 * The smoothed values: each is the average of all values until then, whose weights fall by `weight` (0 to below 1) with each value.
 * Where there is no finite value there is none in the answer, and the average is unchanged. After a pause the past weighs less, by
 * as many usual distances of values as it lasted: values far apart do not draw each other.
 */
export function smooth(x, values, weight) {
  if (!(weight > 0)) return values.slice();
  const usual = usualDistance(x, values);
  const kept = Math.min(weight, 0.9999);
  let [sum, weights, before] = [0, 0, null];
  return Array.from(values, (value, at) => {
    if (!Number.isFinite(value)) return null;
    const distance = before === null || usual === 0 ? 1 : (x[at] - before) / usual;
    // Values closer than usual count one each: rows of one epoch do not overrule each other.
    const fade = kept ** Math.min(Math.max(distance, 1), PAUSE_MOST);
    before = x[at];
    sum = sum * fade + value;
    weights = weights * fade + 1;
    return sum / weights;
  });
}

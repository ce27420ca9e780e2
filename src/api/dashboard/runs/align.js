// Numbers of a column under each other, by their decimal points.

/** A number as text, in what is before its point (or exponent) and the rest: `["-12", ".5"]`. NaN is where fractions are; other text has no rest. */
export function parts(text) {
  const found = /^([-+−]?[\d,]+)((?:\.\d+)?(?:e[-+]?\d+)?(?:\s?%)?)$/.exec(text);
  if (text === "NaN") return ["", text];
  return found ? [found[1], found[2]] : [text, ""];
}

/** How many characters the longest rest of these numbers has: each rest gets this much room. */
export const room = (texts) => texts.reduce((most, text) => Math.max(most, parts(text)[1].length), 0);

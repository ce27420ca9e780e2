// In what the configurations of runs differ.

import { configOf, valueText } from "../runs/config.js";

/**
 * The configuration keys of these runs: `{differ, equal}`, each a list of `{key, values}` with one text for each run (null where a
 * run does not have the key), in the order in which the keys are met. Of one run, everything is equal.
 */
export function differences(runs) {
  const configs = runs.map(configOf);
  const keys = new Set(configs.flatMap((config) => [...config.keys()]));
  const rows = [...keys].map((key) => ({ key, values: configs.map((config) => (config.has(key) ? valueText(config.get(key)) : null)) }));
  const same = ({ values }) => values.every((value) => value === values[0]);
  return { differ: rows.filter((row) => !same(row)), equal: rows.filter(same) };
}

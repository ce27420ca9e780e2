// Which runs are selected: one by one, from here to there, all that are shown. Selected runs stay selected when the list goes on.

/** The ids after a click on `id`: a click with shift gives what the range from `anchor` gets. */
export function clicked(selected, shown, { id, yes, anchor = null, range = false }) {
  const after = new Set(selected);
  const ends = [shown.indexOf(anchor), shown.indexOf(id)];
  const ids = range && !ends.includes(-1) ? shown.slice(Math.min(...ends), Math.max(...ends) + 1) : [id];
  for (const one of ids) {
    if (yes) after.add(one);
    else after.delete(one);
  }
  return after;
}

/** The ids after a click on the box above the list. */
export function allShown(selected, shown, yes) {
  const after = new Set(selected);
  for (const id of shown) {
    if (yes) after.add(id);
    else after.delete(id);
  }
  return after;
}

/** The state of the box above the list: `all`, `some` or `none` of what is shown. */
export function coverage(selected, shown) {
  const count = shown.filter((id) => selected.has(id)).length;
  if (count === 0) return "none";
  return count === shown.length ? "all" : "some";
}

/** `3 selected`, and how many of them the list does not show. */
export function counted(selected, shown) {
  const elsewhere = [...selected].filter((id) => !shown.includes(id)).length;
  const count = `${selected.size.toLocaleString("en")} selected`;
  return elsewhere ? `${count}, ${elsewhere.toLocaleString("en")} of them not in this list` : count;
}

// Changes to runs: one, or many with what became of each.

import { ApiError, patch, path, post, remove } from "../base/api.js";
import * as session from "../base/session.js";
import { forget, take } from "./known.js";

/** Requests under way at once. */
const AT_ONCE = 4;

const refused = (error) => error.status === 401 || error.status === 403;

/** Asks for a token when the daemon wants another one; the error goes on to the caller. */
async function permitted(question) {
  try {
    return await question;
  } catch (error) {
    if (error.status === 401) session.ask(`Changing a run needs a token with the scope admin (${error.message}). If you were signed in, your token has expired or was removed.`);
    if (error.status === 403) session.ask(`Changing a run needs a token with the scope admin: ${error.message}`);
    throw error;
  }
}

/** Changes `name`, `notes`, `add_tags`, `remove_tags` or `archived` of a run. */
export async function edit(id, changes) {
  const { run } = await permitted(patch(`api/runs/${id}`, changes));
  take([run]);
  return run;
}

/** Sends a command to the trainer of a run. The run's id is the target, so that daemons and other trainers do not obey. */
export const command = (id, name) => permitted(post("api/control", { command: name, target: id }));

/** Deletes a run with all its rows; one that is running only with `force`. */
export async function destroy(id, force) {
  try {
    await permitted(remove(path(`api/runs/${id}`, force ? { force: "true" } : {})));
  } catch (error) {
    if (error.status === 409 && !force) throw new ApiError(409, "the run is running; to delete it all the same, tick that in the question");
    throw error;
  }
  forget(id);
}

/**
 * Does `act(id)` for each of these runs, a few at a time; `told(count)` after each. Returns the ids that are `done`, and those that
 * `failed` with the reason; of these, a run that is not in the store any more is `gone`. A missing permission ends it: it would be missing for all.
 */
export async function each(ids, act, told = () => {}) {
  const [done, failed] = [[], []];
  const waiting = [...ids];
  let stop = null;
  const work = async () => {
    while (waiting.length) {
      const id = waiting.shift();
      if (stop) {
        failed.push({ id, why: stop });
        continue;
      }
      try {
        await act(id);
        done.push(id);
      } catch (error) {
        if (refused(error)) stop = error.message;
        const gone = error.status === 404;
        if (gone) forget(id);
        failed.push({ id, why: error.message, gone });
      }
      told(done.length + failed.length);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return { done, failed };
}

// The streams that a daemon reads, in words.

const UNKNOWN = "unknown";

function description({ reading, error, recoveries, last_recovery: last }) {
  if (error) return reading ? `Read, but not looked after: ${error}` : error;
  if (!reading) return "Not read yet";
  if (!recoveries) return "Read";
  return `Read; was gone ${recoveries === 1 ? "once" : `${recoveries} times`}${last ? `, the last time because ${last}` : ""}`;
}

/** Of each stream: its name, whether all is well, what is to be said, and the entries that are not read or not acknowledged yet. */
export function rows(redis) {
  return (redis.streams || []).map((stream) => ({
    name: stream.name,
    fine: Boolean(stream.reading) && !stream.error,
    text: description(stream),
    unread: stream.lag ?? UNKNOWN,
    pending: stream.pending ?? UNKNOWN,
  }));
}

/** The connections and the unsubscribed channels without those of streams, which have rows of their own. */
export function channels({ connections, streams, unproven }) {
  const names = new Set((streams || []).map(({ name }) => name));
  return {
    connections: (connections || []).filter(({ name }) => name !== "stream"),
    unproven: (unproven || []).filter((name) => !names.has(name)),
  };
}

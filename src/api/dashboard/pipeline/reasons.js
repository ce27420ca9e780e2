// Why messages were lost, in words. Every reason of `GapReason` in src/gaps/gap.rs is here; a test compares.

export const REASONS = {
  not_listening: "The daemon was not running, or not yet subscribed",
  disconnected: "The connection to Redis was lost",
  cut_by_redis: "Redis cut the connection: its output buffer was full",
  client_lag: "The receive buffer of a former release overflowed",
  queue_full: "The queue before intake was full",
  spool_full: "Disk and memory segment were full",
  process_paused: "The process was stopped, or the machine asleep",
  trimmed: "Entries of a stream were trimmed before they were read",
  trimmed_at_most: "The same; the number is a bound",
  stream_reset: "A stream was deleted or replaced",
  sequence: "The producer's numbers have a hole",
};

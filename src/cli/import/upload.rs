//! Sends messages to a daemon, in requests of bounded size, as fast as it takes them.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::report::Report;
use crate::cli::{CliError, ask::QueryClient};

/// Messages of a request.
const REQUEST_MESSAGES: usize = 1_000;
/// A request ends with the message that reaches this size.
const REQUEST_BYTES: usize = 256 << 10;
/// How long a daemon may have no room before the import gives up.
const NO_ROOM_TIMEOUT: Duration = Duration::from_secs(600);
/// Shortest wait for room.
const RETRY_MIN: Duration = Duration::from_millis(200);

/// A message and its line.
pub struct Message {
    /// The line of the file on which it begins.
    pub line: u64,
    /// Its bytes.
    pub json: String,
}

/// Gathers messages, and sends them.
pub struct Uploader<'c> {
    client: &'c QueryClient,
    pending: Vec<Message>,
    bytes: usize,
    /// Most messages that the daemon takes at once.
    at_once: usize,
}

impl<'c> Uploader<'c> {
    /// Sends by this client.
    pub fn new(client: &'c QueryClient) -> Self {
        Self { client, pending: Vec::new(), bytes: 0, at_once: REQUEST_MESSAGES }
    }

    /// Adds a message; sends those gathered when they are enough for a request. Returns whether it did.
    ///
    /// # Errors
    /// When the daemon does not answer, or has no room for too long.
    pub async fn push(&mut self, message: Message, report: &mut Report) -> Result<bool, CliError> {
        self.bytes += message.json.len();
        self.pending.push(message);
        let is_full = self.pending.len() >= self.at_once || self.bytes >= REQUEST_BYTES;
        if is_full {
            self.flush(report).await?;
        }
        Ok(is_full)
    }

    /// Sends what is gathered.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub async fn flush(&mut self, report: &mut Report) -> Result<(), CliError> {
        let mut progress = Instant::now();
        while !self.pending.is_empty() {
            let count = self.pending.len().min(self.at_once);
            let lines: Vec<_> = self.pending[..count].iter().map(|message| message.json.as_str()).collect();
            let published = self.client.publish(lines.join("\n")).await?;
            let answer = &published.answer;
            let detail = answer["detail"].as_str().unwrap_or("it gives no reason");
            let taken = match published.status {
                413 if count > 1 => {
                    self.at_once = count / 2;
                    continue;
                }
                413 => {
                    report.refuse(self.pending[0].line, detail);
                    1
                }
                200 if answer["accepted"].is_u64() => self.settle(answer, count, report),
                503 => self.settle(answer, index(&answer["taken"]).min(count), report),
                _ => return Err(CliError::failed("the answer is not that of a daemon", answer.to_string())),
            };
            self.pending.drain(..taken);
            if taken > 0 {
                progress = Instant::now();
            }
            if published.status == 503 {
                if progress.elapsed() > NO_ROOM_TIMEOUT {
                    return Err(CliError::failed("the daemon has no room for more messages", detail));
                }
                sleep(published.retry_after.max(RETRY_MIN)).await;
            }
        }
        self.bytes = 0;
        Ok(())
    }

    /// Counts the first `taken` messages, by the answer. Returns their number.
    fn settle(&self, answer: &Value, taken: usize, report: &mut Report) -> usize {
        let rejected = answer["rejected"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut refused = 0;
        for one in rejected {
            let Some(message) = self.pending[..taken].get(index(&one["index"])) else { continue };
            let word = |name: &str| one[name].as_str().unwrap_or_default();
            report.refuse(message.line, &format!("{}: {}", word("reason"), word("detail")));
            refused += 1;
        }
        report.accepted += (taken - refused) as u64;
        taken
    }
}

fn index(value: &Value) -> usize {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}

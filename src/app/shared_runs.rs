//! Open runs that instances share: what intake decides is told to Redis beside it, and asked for at the first message of a channel.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify};
use tracing::debug;

use crate::{intake::RunSharing, lifecycle::Signal, redis::RunShare, runs::OpenRun};

/// How long Redis may take for news of an open run.
const PATIENCE: Duration = Duration::from_secs(1);
/// Channels whose news may wait for Redis.
const NEWS_MAX: usize = 16_384;

/// Open runs of other instances, for the intake thread. What it says is sent beside it: a slow Redis must not hold up intake,
/// however many runs are opened.
pub struct SharedRuns {
    share: RunShare,
    runtime: Handle,
    news: Arc<News>,
}

/// What is not sent yet.
#[derive(Default)]
struct News {
    queue: Mutex<NewsQueue>,
    changed: Notify,
}

/// The newest of each channel. Bounded: runs are queued while fewer than [`NEWS_MAX`] channels wait, and each of them makes room for
/// one deletion. So a key that was set is deleted when its channel is forgotten, however many channels there are.
#[derive(Default)]
struct NewsQueue {
    /// The open run; `None`: its key is to be deleted.
    waiting: HashMap<String, Option<String>>,
    /// Channels whose run was queued, and not forgotten since.
    shared: HashSet<String>,
}

impl SharedRuns {
    /// Over this connection, which `runtime` drives; and the task that sends.
    pub fn new(
        share: RunShare,
        runtime: Handle,
        stop: Signal,
    ) -> (Self, impl Future<Output = Result<(), Infallible>> + Send) {
        let news = Arc::new(News::default());
        let task = send_news(share.clone(), Arc::clone(&news), stop);
        (Self { share, runtime, news }, task)
    }
}

impl News {
    fn lock(&self) -> MutexGuard<'_, NewsQueue> {
        // Whoever panicked left plain values behind.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NewsQueue {
    fn publish(&mut self, channel: &str, json: String) {
        if self.waiting.len() < NEWS_MAX || self.waiting.contains_key(channel) {
            self.waiting.insert(channel.to_owned(), Some(json));
            self.shared.insert(channel.to_owned());
        }
    }

    fn forget(&mut self, channel: &str) {
        if self.shared.remove(channel) || self.waiting.len() < NEWS_MAX {
            self.waiting.insert(channel.to_owned(), None);
        }
    }
}

/// Sends what waits; a last time when stopping.
async fn send_news(share: RunShare, news: Arc<News>, mut stop: Signal) -> Result<(), Infallible> {
    loop {
        let stopping = tokio::select! {
            biased;
            () = stop.stopped() => true,
            () = news.changed.notified() => false,
        };
        let waiting = mem::take(&mut news.lock().waiting);
        for (channel, json) in waiting {
            let sent = async {
                match json {
                    Some(json) => share.publish(&channel, json).await,
                    None => share.forget(&channel).await,
                }
            };
            // What Redis does not take is told again with the next change.
            if tokio::time::timeout(PATIENCE, sent).await.is_err() && stopping {
                break;
            }
        }
        if stopping {
            return Ok(());
        }
    }
}

impl RunSharing for SharedRuns {
    fn fetch(&mut self, channel: &str) -> Option<OpenRun> {
        read_open_run(&self.runtime.block_on(self.share.fetch(channel))?)
    }

    fn publish(&mut self, channel: &str, open: &OpenRun) {
        if let Ok(json) = serde_json::to_string(open) {
            self.news.lock().publish(channel, json);
            self.news.changed.notify_one();
        }
    }

    fn forget(&mut self, channel: &str) {
        self.news.lock().forget(channel);
        self.news.changed.notify_one();
    }
}

/// A run as another instance shares it.
pub fn read_open_run(json: &str) -> Option<OpenRun> {
    serde_json::from_str(json)
        .inspect_err(|error| debug!(%error, "the shared run of a channel cannot be read"))
        .ok()
        .map(OpenRun::within_bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_bounded_and_each_shared_key_is_deleted() {
        let mut news = NewsQueue::default();
        let name = |n: usize| format!("lab:{n}:training");
        for n in 0..NEWS_MAX + 100 {
            news.publish(&name(n), "{}".into());
        }
        assert_eq!(news.waiting.len(), NEWS_MAX);
        // They are sent, and as many others wait: the keys of the first are deleted all the same.
        news.waiting.clear();
        for n in NEWS_MAX..2 * NEWS_MAX {
            news.publish(&name(n), "{}".into());
        }
        for n in 0..2 * NEWS_MAX + 100 {
            news.forget(&name(n));
        }
        assert!((0..2 * NEWS_MAX).all(|n| news.waiting.get(&name(n)) == Some(&None)));
        assert_eq!((news.waiting.len(), news.shared.len()), (2 * NEWS_MAX, 0));
        // One that has begun again before its deletion was sent is not deleted.
        news.publish(&name(0), "{}".into());
        assert_eq!(news.waiting.get(&name(0)), Some(&Some("{}".into())));
    }
}

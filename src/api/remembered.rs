//! Answers that are expensive to make, because all rows of a run are read for them: kept for ten times as long as they took.
//!
//! Requests for the same run meanwhile share one reading. So however often it is asked for, at most a tenth of the time goes into it. What is
//! made fast is never kept: it is always of this moment.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::units::{self, Micros};

/// What takes less is made anew each time.
const EXPENSIVE: Duration = Duration::from_millis(500);
/// How long an answer is kept, in the time that it took.
const TIMES: u32 = 10;
/// Runs whose answers are kept: few, because an answer may be as large as two MiB, and no budget counts it.
const RUNS_MAX: usize = 8;

/// The answers for each run.
#[derive(Debug)]
pub struct Remembered<T>(Mutex<HashMap<Uuid, Arc<Slot<T>>>>);

#[derive(Debug)]
struct Slot<T>(tokio::sync::Mutex<Option<Answer<T>>>);

/// An answer, and the moment that it is of.
#[derive(Debug)]
pub struct Answer<T> {
    /// The answer.
    pub value: Arc<T>,
    /// When its reading began, where it was kept; absent: it was read for this request.
    pub as_of: Option<Micros>,
    keep_until: Instant,
}

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), ..*self }
    }
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Remembered<T> {
    /// The answer for a run: the one that is kept, or a new one.
    ///
    /// # Errors
    /// Those of `make`.
    pub async fn get<E>(&self, run_id: Uuid, make: impl Future<Output = Result<T, E>>) -> Result<Answer<T>, E> {
        let slot = self.slot(run_id);
        let mut kept = slot.0.lock().await;
        let (began, as_of) = (Instant::now(), units::now());
        if let Some(answer) = kept.as_ref().filter(|answer| began < answer.keep_until) {
            return Ok(answer.clone());
        }
        *kept = None;
        let value = Arc::new(make.await?);
        let took = began.elapsed();
        let answer = Answer { value, as_of: Some(as_of), keep_until: Instant::now() + TIMES * took };
        if took >= EXPENSIVE {
            *kept = Some(answer.clone());
        }
        Ok(Answer { as_of: None, ..answer })
    }

    fn slot(&self, run_id: Uuid) -> Arc<Slot<T>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= RUNS_MAX && !slots.contains_key(&run_id) {
            let now = Instant::now();
            // One that is in use stays with its requests.
            let is_kept = |slot: &Slot<T>| match slot.0.try_lock() {
                Ok(answer) => answer.as_ref().is_some_and(|answer| now < answer.keep_until),
                Err(_) => true,
            };
            slots.retain(|_, slot| is_kept(slot));
            if slots.len() >= RUNS_MAX {
                slots.clear();
            }
        }
        Arc::clone(slots.entry(run_id).or_insert_with(|| Arc::new(Slot(tokio::sync::Mutex::default()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(answers: &Remembered<u64>, run: u128, takes: Duration, value: u64) -> u64 {
        let make = async {
            tokio::time::sleep(takes).await;
            Ok::<_, ()>(value)
        };
        *answers.get(Uuid::from_u128(run), make).await.unwrap().value
    }

    #[tokio::test(start_paused = true)]
    async fn an_expensive_answer_is_kept_for_ten_times_its_time_and_a_cheap_one_never() {
        let (answers, slow, fast) = (Remembered::default(), Duration::from_secs(2), Duration::from_millis(400));
        assert_eq!(read(&answers, 1, slow, 10).await, 10);
        tokio::time::advance(Duration::from_secs(19)).await;
        assert_eq!(read(&answers, 1, slow, 11).await, 10);
        let kept = answers.get(Uuid::from_u128(1), async { Ok::<u64, ()>(0) }).await.unwrap();
        assert!(kept.as_of.is_some(), "and says of when it is");
        assert_eq!(read(&answers, 2, slow, 12).await, 12, "of another run");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(read(&answers, 1, fast, 13).await, 13);
        assert_eq!(read(&answers, 1, fast, 14).await, 14);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_at_the_same_time_share_a_reading_and_a_failed_one_is_not_kept() {
        let answers = Remembered::default();
        let failed: Result<_, &str> = answers
            .get(Uuid::nil(), async {
                tokio::time::sleep(Duration::from_secs(9)).await;
                Err("no store")
            })
            .await;
        assert_eq!(failed.unwrap_err(), "no store");
        let began = Instant::now();
        let slow = Duration::from_secs(3);
        let both = tokio::join!(read(&answers, 0, slow, 1), read(&answers, 0, slow, 2));
        assert_eq!((both, began.elapsed()), ((1, 1), slow));
    }

    #[tokio::test(start_paused = true)]
    async fn few_answers_are_kept() {
        let answers = Remembered::default();
        for run in 0..RUNS_MAX as u128 * 3 {
            read(&answers, run, Duration::from_secs(1), 0).await;
            assert!(answers.0.lock().unwrap().len() <= RUNS_MAX);
        }
    }
}

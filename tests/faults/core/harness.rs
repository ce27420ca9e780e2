//! Runs cases on every core and prints a line for each.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use tokio::time::Instant;

/// Name, what it does, and the function.
pub type Case = (&'static str, &'static str, fn(&Budget) -> Tried);

/// The amount of work of a case.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Multiplies the numbers of the short tier.
    pub times: u64,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Runs only this try and prints its steps.
    pub only: Option<u64>,
}

/// Result of a case.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    pub count: u64,
    /// Further facts on what was reached.
    pub notes: String,
}

pub fn main_of(cases: &[Case]) -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let budget = Budget {
        times: number("CASCOR_FAULTS_TIMES").unwrap_or(1),
        seed: number("CASCOR_FAULTS_SEED").unwrap_or(1),
        only: number("CASCOR_FAULTS_ONLY"),
    };
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut failed = false;
    for (name, about, run) in cases {
        if !wanted.is_empty() && !wanted.iter().any(|prefix| name.starts_with(prefix.as_str())) {
            continue;
        }
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| run(&budget)));
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(tried) => {
                println!("{name:<16} {:>8} tried, all survived  {seconds:6.1} s  {about}{}", tried.count, tried.notes)
            }
            Err(_) => {
                failed = true;
                println!("{name:<16} FAILED  {seconds:6.1} s  {about}");
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Calls `try_one` with every number below `count`, on every core. Panics with the first number that fails, after saying how to
/// repeat it; ends the program when one of them hangs.
pub fn each(budget: &Budget, count: u64, try_one: impl Fn(u64) + Sync) -> u64 {
    if let Some(only) = budget.only {
        try_one(only);
        return 1;
    }
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let current: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        let workers: Vec<_> = current
            .iter()
            .map(|current| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count || failed.load(Ordering::Relaxed) != u64::MAX {
                            return;
                        }
                        current.store(number, Ordering::Relaxed);
                        if catch_unwind(AssertUnwindSafe(|| try_one(number))).is_err() {
                            failed.fetch_min(number, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        let mut seen = vec![(u64::MAX, 0); threads];
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(PAUSE);
            for ((worker, current), (number, pauses)) in workers.iter().zip(&current).zip(&mut seen) {
                let now = current.load(Ordering::Relaxed);
                *pauses = if now == *number && !worker.is_finished() { *pauses + 1 } else { 0 };
                *number = now;
                if *pauses > HANGS {
                    eprintln!(
                        "number {now} hangs; again with CASCOR_FAULTS_SEED={} CASCOR_FAULTS_ONLY={now}",
                        budget.seed
                    );
                    std::process::exit(1);
                }
            }
        }
    });
    let failed = failed.into_inner();
    assert!(failed == u64::MAX, "again with CASCOR_FAULTS_SEED={} CASCOR_FAULTS_ONLY={failed}", budget.seed);
    count
}

/// Interval between checks of the workers, and the number of checks at the same try that counts as a hang.
const PAUSE: Duration = Duration::from_millis(10);
const HANGS: u32 = 3_000;

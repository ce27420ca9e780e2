//! One line a run on a terminal.

use std::{cell::Cell, io::IsTerminal, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::demo::trainer::Progress;

/// How often the lines are drawn, at most.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// The lines; none when standard error is no terminal.
pub struct ProgressLines {
    bars: Vec<ProgressBar>,
    drawn: Cell<Option<Instant>>,
}

impl ProgressLines {
    /// A line for each run, at most 16.
    pub fn new(runs: u16, json: bool) -> Self {
        let all = MultiProgress::new();
        let shown = if json || !std::io::stderr().is_terminal() { 0 } else { runs.min(16) };
        let style = ProgressStyle::with_template("{prefix} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = |n| all.add(ProgressBar::new_spinner()).with_style(style.clone()).with_prefix(format!("run {n}"));
        Self { bars: (1..=shown).map(bar).collect(), drawn: Cell::new(None) }
    }

    /// Draws where each run is.
    pub fn show(&self, runs: impl Iterator<Item = Progress>, paused: bool, published: u64) {
        let now = Instant::now();
        if self.bars.is_empty() || self.drawn.get().is_some_and(|drawn| now.duration_since(drawn) < REDRAW_INTERVAL) {
            return;
        }
        self.drawn.set(Some(now));
        for (bar, run) in self.bars.iter().zip(runs) {
            let Progress { epoch, hidden_units, score, phase } = run;
            let phase = if paused { "paused" } else { phase };
            bar.set_message(format!(
                "{phase:<9}  epoch {epoch:>5}  units {hidden_units:>2}  loss {:.4}  accuracy {:>5.1} %  published {published}",
                score.train_loss,
                100.0 * score.train_accuracy,
            ));
        }
    }

    /// Leaves the lines as they are.
    pub fn finish(&self) {
        self.bars.iter().for_each(ProgressBar::abandon);
    }
}

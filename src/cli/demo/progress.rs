//! One line a run on a terminal.

use std::{cell::Cell, io::IsTerminal, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::{demo::trainer::Progress, terminal};

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
        let columns = terminal::stderr_columns().unwrap_or(usize::MAX);
        for (bar, run) in self.bars.iter().zip(runs) {
            let Progress { epoch, hidden_units, score, phase } = run;
            let phase = if paused { "paused" } else { phase };
            let parts = [
                (0, format!("epoch {epoch:>5}")),
                (0, format!("loss {:.4}", score.train_loss)),
                (1, format!("accuracy {:>5.1} %", 100.0 * score.train_accuracy)),
                (3, format!("units {hidden_units:>2}")),
                (2, format!("{phase:<9}")),
                (4, format!("published {published}")),
            ];
            let room = columns.saturating_sub(bar.prefix().len() + 1);
            bar.set_message(fitting(&parts, room));
        }
    }

    /// Leaves the lines as they are.
    pub fn finish(&self) {
        self.bars.iter().for_each(ProgressBar::abandon);
    }
}

/// The parts that fit in a line; those with the highest rank are left out first.
fn fitting(parts: &[(u8, String)], room: usize) -> String {
    let line = |rank| {
        let shown = parts.iter().filter(|(part, _)| *part <= rank).map(|(_, text)| text.as_str());
        shown.collect::<Vec<_>>().join("  ")
    };
    (0..=u8::MAX).take(parts.len()).map(line).take_while(|line| line.len() <= room).last().unwrap_or_else(|| line(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_parts_for_which_there_is_room() {
        let parts = [(0, "epoch 1".to_owned()), (2, "units 3".into()), (1, "accuracy 99 %".into())];
        for (room, line) in
            [(50, "epoch 1  units 3  accuracy 99 %"), (30, "epoch 1  accuracy 99 %"), (10, "epoch 1"), (3, "epoch 1")]
        {
            assert_eq!(fitting(&parts, room), line);
        }
    }
}

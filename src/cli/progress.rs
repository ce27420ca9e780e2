//! A progress bar on standard error.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a long operation.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar; hidden when standard error is no terminal.
    pub fn new(what: &'static str) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{prefix} {bar:40} {human_pos}/{human_len} {per_sec} eta {eta}");
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_prefix(what))
    }

    /// Draws the progress.
    pub fn show(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

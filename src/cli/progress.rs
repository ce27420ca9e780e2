//! Progress on standard error, in one line that fits the terminal.

use std::io::IsTerminal;

use indicatif::{HumanCount, ProgressBar, ProgressFinish, ProgressStyle};

use crate::terminal;

/// What a bar shows, and the columns from which there is room for it. The bar takes what is left.
const TEMPLATES: [(usize, &str); 3] = [
    (80, "{prefix} {wide_bar} {human_pos}/{human_len} {per_sec} eta {eta}"),
    (50, "{prefix} {wide_bar} {human_pos}/{human_len}"),
    (0, "{prefix} {wide_bar} {percent} %"),
];

/// The progress of a long operation.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar; hidden when standard error is no terminal.
    pub fn new(what: &'static str) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        Self(bar.with_style(bar_style()).with_prefix(what).with_finish(ProgressFinish::AndClear))
    }

    /// Draws the progress.
    pub fn show(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

/// The style of a bar on this terminal.
pub fn bar_style() -> ProgressStyle {
    style(template(terminal::stderr_columns().unwrap_or(usize::MAX)))
}

/// A style; the template is one of ours.
pub fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The template for so many columns.
fn template(columns: usize) -> &'static str {
    TEMPLATES.iter().find(|(from, _)| *from <= columns).map_or("", |(_, template)| *template)
}

/// The progress of a search, whose end is unknown.
pub struct SearchLine(ProgressBar);

impl SearchLine {
    /// A line; hidden when standard error is no terminal.
    pub fn new() -> Self {
        let line = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        Self(line.with_style(style("{msg}")).with_finish(ProgressFinish::AndClear))
    }

    /// Draws the progress.
    pub fn show(&self, searched: u64, found: usize) {
        self.0.set_message(format!("searched {} runs, found {found}", HumanCount(searched)));
        self.0.tick();
    }

    /// Draws how many runs were read, to sort them.
    pub fn show_sorting(&self, read: u64) {
        self.0.set_message(format!("sorting: {} runs read", HumanCount(read)));
        self.0.tick();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;

    /// What is written to a terminal of so many columns.
    #[derive(Clone, Debug)]
    struct Recorder(u16, Arc<Mutex<String>>);

    impl TermLike for Recorder {
        fn width(&self) -> u16 {
            self.0
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.1.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.1.lock().unwrap().clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_takes_one_line_of_any_terminal() {
        for columns in [40, 49, 50, 79, 80, 200] {
            let shown = Arc::new(Mutex::new(String::new()));
            let target = ProgressDrawTarget::term_like(Box::new(Recorder(columns, Arc::clone(&shown))));
            let bar = ProgressBar::with_draw_target(Some(1_234_567_890), target);
            let bar = bar.with_style(style(template(columns.into()))).with_prefix("replayed");
            bar.set_position(1_034_567_890);
            bar.force_draw();
            let shown = shown.lock().unwrap().clone();
            assert!(shown.starts_with("replayed ") && shown.chars().count() <= columns.into(), "{columns}: {shown}");
            assert!(shown.contains(if columns < 50 { "84 %" } else { "1,034,567,890/1,234,567,890" }), "{shown}");
        }
    }
}

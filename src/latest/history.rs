//! The newest metrics objects, rendered once each, bounded in number and in bytes.

use std::collections::VecDeque;

use tokio::time::Instant;

/// An object larger than this is kept with its canonical fields only.
pub(super) const OBJECT_BYTES: usize = 4 << 10;

/// Oldest first.
#[derive(Debug)]
pub(super) struct History {
    objects: VecDeque<String>,
    bytes: usize,
    objects_max: usize,
    bytes_max: usize,
    /// When the newest was received: the lifetime of the whole counts from here.
    pub(super) newest: Option<Instant>,
}

impl History {
    pub(super) fn new(objects_max: usize, bytes_max: usize) -> Self {
        Self { objects: VecDeque::new(), bytes: 0, objects_max, bytes_max, newest: None }
    }

    pub(super) fn push(&mut self, object: String, received: Instant) {
        // The comma counts, too; and the brackets of the whole.
        self.bytes += object.len() + 1;
        self.objects.push_back(object);
        self.newest = Some(received);
        while self.objects.len() > self.objects_max || self.bytes + 1 > self.bytes_max {
            let Some(oldest) = self.objects.pop_front() else { break };
            self.bytes -= oldest.len() + 1;
        }
    }

    pub(super) fn clear(&mut self) {
        self.objects.clear();
        (self.bytes, self.newest) = (0, None);
    }

    /// The JSON array.
    pub(super) fn render(&self) -> String {
        let mut array = String::with_capacity(self.bytes + 2);
        array.push('[');
        for (n, object) in self.objects.iter().enumerate() {
            if n > 0 {
                array.push(',');
            }
            array.push_str(object);
        }
        array.push(']');
        array
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        for (name, objects_max, bytes_max, expected) in [
            ("number", 2, 1_000, "[{\"n\":2},{\"n\":3}]"),
            ("bytes", 100, 10, "[{\"n\":3}]"),
            ("nothing fits", 100, 3, "[]"),
        ] {
            let mut history = History::new(objects_max, bytes_max);
            for n in 1..=3 {
                history.push(format!("{{\"n\":{n}}}"), Instant::now());
            }
            let array = history.render();
            assert_eq!(array, expected, "{name}");
            assert!(array.len() <= bytes_max, "{name}");
        }
    }
}

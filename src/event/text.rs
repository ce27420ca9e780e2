//! Text of a row, shared by all holders of the row.

use std::{any::Any, fmt, ops::Deref, sync::Arc};

use serde::{Serialize, Serializer};

/// Text that may be as long as a message. Clones share it: a batch copied for the writing thread, a run's summary and a dead
/// letter refer to the same bytes.
#[derive(Clone, Default)]
pub struct SharedText(Arc<Inner>);

#[derive(Default)]
struct Inner {
    text: String,
    /// Memory reservation, dropped with the text.
    guard: Option<Guard>,
}

/// A guard held for the lifetime of a text.
pub type Guard = Arc<dyn Any + Send + Sync>;

impl SharedText {
    /// Attaches `guard` until the text is dropped. Must be called before the text is shared; otherwise it has no effect.
    pub fn attach(&mut self, guard: Guard) {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.guard = Some(guard);
        }
    }
}

impl Deref for SharedText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.text
    }
}

impl From<String> for SharedText {
    fn from(text: String) -> Self {
        Self(Arc::new(Inner { text, guard: None }))
    }
}

impl From<&str> for SharedText {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl PartialEq for SharedText {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedText {}

impl PartialEq<str> for SharedText {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for SharedText {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl fmt::Debug for SharedText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, out)
    }
}

impl fmt::Display for SharedText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self)
    }
}

impl Serialize for SharedText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

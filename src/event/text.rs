//! Text of a row, shared by all who hold the row.

use std::{any::Any, fmt, ops::Deref, sync::Arc};

use serde::{Serialize, Serializer};

/// Text that may be as long as a message. Cloning shares it: a batch that is copied for the thread that writes it, a run's summary
/// and a dead letter hold the same bytes.
#[derive(Clone, Default)]
pub struct SharedText(Arc<Inner>);

#[derive(Default)]
struct Inner {
    text: String,
    /// Dropped with the text: memory that was reserved for it.
    guard: Option<Guard>,
}

/// Something that is held for as long as a text is.
pub type Guard = Arc<dyn Any + Send + Sync>;

impl SharedText {
    /// Keeps `guard` until the text is dropped. To be called before the text is shared; does nothing afterwards.
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

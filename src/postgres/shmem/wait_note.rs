//! What a process waits for, shown where the views have the last error, until it has it.

use super::{Text, own_text, update};

/// A note that a mirror waits. Dropped, it gives way to the error that it has covered, unless another one has come since.
pub(crate) struct WaitNote {
    mirror: String,
    covers: Option<Covered>,
}

struct Covered {
    note: Text<500>,
    error: Text<500>,
    at: i64,
}

impl WaitNote {
    /// Nothing is shown yet.
    pub(crate) fn of(mirror: &str) -> Self {
        Self { mirror: mirror.to_owned(), covers: None }
    }

    /// Shows why, from now on.
    pub(crate) fn say(&mut self, reason: &str) {
        let reason = own_text(reason);
        update(&self.mirror, |slot| {
            let (error, at) = match self.covers.take() {
                Some(Covered { note, error, at }) if note.as_str() == slot.last_error.as_str() => (error, at),
                _ => (slot.last_error, slot.last_error_at),
            };
            slot.note_error(&reason);
            self.covers = Some(Covered { note: slot.last_error, error, at });
        });
    }
}

impl Drop for WaitNote {
    fn drop(&mut self) {
        let Some(Covered { note, error, at }) = self.covers.take() else { return };
        update(&self.mirror, |slot| {
            if slot.last_error.as_str() == note.as_str() {
                (slot.last_error, slot.last_error_at) = (error, at);
            }
        });
    }
}

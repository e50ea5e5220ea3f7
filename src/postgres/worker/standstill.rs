//! A mirror that may not go on by itself: state, reason and advice where an administrator looks.

use pgrx::prelude::*;

use super::super::catalog;
use super::super::catalog::event::{Event, Severity};
use super::super::shmem::{self, MirrorState};
use crate::identity::{Standstill, Trouble};
use crate::owner::OwnerTrouble;

/// A reason not to go on.
pub(super) struct Stop {
    standstill: Standstill,
    reason: String,
    detail: Option<String>,
    hint: &'static str,
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        let (reason, detail, hint) = (trouble.to_string(), trouble.detail(), trouble.hint());
        Self { standstill: trouble.standstill(), reason, detail, hint }
    }
}

impl From<OwnerTrouble> for Stop {
    fn from(trouble: OwnerTrouble) -> Self {
        let (reason, detail, hint) = (trouble.to_string(), trouble.detail(), trouble.hint());
        Self { standstill: trouble.standstill(), reason, detail, hint }
    }
}

impl Stop {
    /// Writes it down, into tables, shared memory and log. A mirror that is paused goes on when somebody resumes it, who
    /// then has read why it was. Not inside a transaction.
    pub(super) fn write_down(self, mirror: &str) {
        let state = match self.standstill {
            Standstill::Paused => MirrorState::Paused,
            Standstill::NeedsResync => MirrorState::NeedsResync,
            Standstill::Error => MirrorState::Error,
        };
        let message = format!("mirror \"{mirror}\" has been stopped: {}", self.reason);
        warning!("{message}");
        catalog::mirror::transaction(mirror, || {
            catalog::mirror::write_state(mirror, state, Some(&self.reason));
            if self.standstill == Standstill::Paused {
                catalog::identity::contest(mirror);
            }
            let (detail, hint) = (self.detail.as_deref(), Some(self.hint));
            Event { detail, hint, ..Event::of(mirror, Severity::Error, &message) }.record();
        });
        shmem::update(mirror, |slot| {
            slot.state = state;
            slot.note_error(&self.reason);
        });
    }
}

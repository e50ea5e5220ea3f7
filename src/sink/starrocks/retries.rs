//! The waits of one call of the sink: what happened so far decides how long the next one is.

use std::time::{Duration, Instant};

use super::label_state::Untold;
use crate::sink::retry::{Backoff, Stopped};
use crate::sink::{LoadError, Pace, Watch};

/// The waits of one call, and what it remembers from attempt to attempt.
pub(super) struct Retries<'a> {
    pub(super) watch: &'a dyn Watch,
    trouble: Backoff,
    credentials: Backoff,
    /// When an answer that nobody knows counts as a refusal; set by the first one.
    patience_ends: Option<Instant>,
    riddle_patience: Duration,
    /// Whether a backend may know the label from an earlier attempt of this call.
    pub(super) label_is_ours: bool,
}

impl<'a> Retries<'a> {
    pub(super) fn new(pace: &Pace, watch: &'a dyn Watch) -> Self {
        let trouble = Backoff::new(pace.trouble);
        let credentials = Backoff::new(pace.credentials);
        Self {
            watch,
            trouble,
            credentials,
            patience_ends: None,
            riddle_patience: pace.riddle_patience,
            label_is_ours: false,
        }
    }

    /// Reports trouble and waits.
    pub(super) fn trouble(&mut self, reason: &str) -> Result<(), LoadError> {
        self.watch.retrying(reason);
        self.wait()
    }

    /// Waits after trouble that was reported before.
    pub(super) fn wait(&mut self) -> Result<(), LoadError> {
        Ok(self.trouble.wait(self.watch)?)
    }

    /// Reports that the login was refused and waits, longer.
    pub(super) fn credentials(&mut self, reason: &str) -> Result<(), LoadError> {
        self.watch.retrying(reason);
        Ok(self.credentials.wait(self.watch)?)
    }

    /// Reports that nobody told of a label and waits.
    pub(super) fn untold(&mut self, untold: Untold) -> Result<(), LoadError> {
        match untold {
            Untold::NoFrontend => Err(LoadError::NoFrontend),
            Untold::Credentials(reason) => self.credentials(&reason),
            Untold::Trouble(reason) => self.trouble(&reason),
        }
    }

    /// Whether answers that nobody knows have come for too long.
    pub(super) fn is_out_of_patience(&mut self) -> bool {
        let now = Instant::now();
        now >= *self.patience_ends.get_or_insert(now + self.riddle_patience)
    }
}

impl From<Stopped> for LoadError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

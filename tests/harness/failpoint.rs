//! Points in the extension's code at which a test makes a process fail.
//!
//! They are in builds with the cargo feature `failpoints` only, which `make test-server` makes for its own copy of
//! the server; `src/postgres/failpoint.rs` says what the files mean.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::account::Account;
use super::{Failure, Outcome, PATIENCE, wait_until};

/// What becomes of the process that reaches a point.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// It raises an ERROR.
    Error,
    /// It kills itself.
    Kill,
    /// It ends as by SIGTERM.
    Terminate,
    /// It waits until it is let go on.
    Wait,
}

impl Action {
    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Kill => "kill",
            Self::Terminate => "term",
            Self::Wait => "wait",
        }
    }
}

/// A point that was armed. When dropped it is disarmed, and a process that waits there goes on.
pub(crate) struct Failpoint {
    point: String,
    turn: PathBuf,
    armed: PathBuf,
    reached: PathBuf,
}

impl Failpoint {
    pub(super) fn arm(
        account: Account,
        data: &Path,
        point: &str,
        action: Action,
        passes: u64,
    ) -> Outcome<Self> {
        let directory = data.join("dbmazz_failpoints");
        let turn = directory.join("turn");
        if !directory.exists() {
            fs::create_dir_all(&directory)?;
            account.own(&directory)?;
            File::create(&turn)?;
            account.own(&turn)?;
        }
        let armed = directory.join(point);
        let reached = armed.with_extension("hit");
        let written = directory.join(format!("{point}.new"));
        fs::write(&written, format!("{} {passes}", action.word()))?;
        account.own(&written)?;
        // In one step: a process must not read half of an order.
        fs::rename(&written, &armed)?;
        Ok(Self { point: point.to_owned(), turn, armed, reached })
    }

    /// Whether a process has come by.
    pub(crate) fn is_reached(&self) -> bool {
        self.reached.exists()
    }

    /// Waits until a process comes by.
    ///
    /// # Errors
    ///
    /// When none does.
    pub(crate) fn wait_until_reached(&self) -> Outcome {
        let what = format!("a process reaches failpoint \"{}\"", self.point);
        wait_until(&what, PATIENCE, || Ok(self.is_reached()))
            .map_err(|failure| Failure::new(failure.message()))
    }
}

impl Drop for Failpoint {
    fn drop(&mut self) {
        // A process that counts its pass would arm it again.
        let turn = File::open(&self.turn).and_then(|turn| turn.lock().map(|()| turn));
        // Either is there, or neither when the cluster is gone.
        let _ = fs::remove_file(&self.armed);
        let _ = fs::remove_file(&self.reached);
        drop(turn);
    }
}

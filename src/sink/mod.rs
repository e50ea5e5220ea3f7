//! Where loads go.
//!
//! A [`Sink`] settles the fate of one load at a time: when [`Sink::load`] returns `Ok`, the rows are visible at the
//! target; when it returns an error other than [`LoadError::Stopped`], they are not and never will be under that
//! label ([`LoadError::CountMismatch`] says what arrived instead). There is no third answer: an unknown outcome is
//! asked for, by label, until it is known or the worker has to stop. After `Stopped` the next start settles the label.
//!
//! The worker's main thread does not call a sink: it hands jobs to [`LoadThreads`] and collects events.
//!
//! ```text
//! main thread ── Job ──► bounded channel ──► load thread: Sink ──► target
//!      ▲                                          │
//!      └── waker ◄── Event: Done, Retrying, Recovered, Panicked
//! ```

mod counting;
#[cfg(feature = "discard")]
mod discard;
mod error;
mod load;
mod pack;
mod retry;
pub mod starrocks;
mod threads;

use std::time::Duration;

pub use counting::{CountingSink, Counts};
pub use error::{LoadError, Refusal, StatementError};
pub use load::{Label, Load, LoadShape};
pub use pack::Compression;
pub use retry::Pace;
pub use threads::{Event, Job, JobId, LoadThreads, Outcome, Prepared, StartError, SubmitError, Waker};

use crate::definition::AlterStep;
use crate::owner::{OwnerRow, OwnerStep};
use crate::table::{TableSpec, TargetTable};

/// What a load thread does, one call at a time.
///
/// Every method may take as long as the target is away: it reports each attempt that failed through
/// [`Watch::retrying`] and gives up only when [`Watch::stopped`] says so.
pub trait Sink: Send {
    /// Brings the rows of one load to the target, under its label, exactly once.
    ///
    /// # Errors
    /// See [`LoadError`]: each one is final, no error means "try again".
    fn load(&mut self, load: &Load, watch: &dyn Watch) -> Result<Loaded, LoadError>;

    /// Finds out what became of a label that an earlier worker may have used, and makes the answer final: a load that
    /// is still running is awaited, then cancelled.
    ///
    /// # Errors
    /// [`LoadError::Stopped`], or [`LoadError::NoFrontend`] when there is nobody to ask.
    fn settle(&mut self, database: &str, label: &Label, watch: &dyn Watch) -> Result<LabelFate, LoadError>;

    /// Uses a label up, by a load that changes nothing. A load that the target has received under it and not begun yet, of a
    /// worker that is gone, is refused when its turn comes.
    ///
    /// # Errors
    /// As [`Sink::load`] and [`Sink::settle`].
    fn occupy(&mut self, database: &str, label: &Label, watch: &dyn Watch) -> Result<(), LoadError>;

    /// Empties a table. No load of it may be in flight.
    ///
    /// # Errors
    /// When the target refuses, or the worker has to stop.
    fn truncate(&mut self, target: &TargetTable, watch: &dyn Watch) -> Result<(), StatementError>;

    /// Creates the database and the table where they are missing, and compares a table that is there.
    ///
    /// # Errors
    /// When the target refuses, or the worker has to stop.
    fn prepare(&mut self, spec: &TableSpec, watch: &dyn Watch) -> Result<TableMatch, StatementError>;

    /// Drops a table that a mirror made for other columns, and creates it anew. No load of it may be in flight.
    ///
    /// # Errors
    /// When the target refuses, or the worker has to stop.
    fn replace(&mut self, spec: &TableSpec, watch: &dyn Watch) -> Result<TableMatch, StatementError>;

    /// Changes columns of a table, one step after another, and waits until each is done. A step that was done before is
    /// passed over. No load of the table may be in flight.
    ///
    /// # Errors
    /// When the target refuses, or the worker has to stop.
    fn alter(
        &mut self,
        target: &TargetTable,
        steps: &[AlterStep],
        watch: &dyn Watch,
    ) -> Result<(), StatementError>;

    /// Does a step with the row of a mirror in `dbmazz_owner`, in a database of the target; returns the row that was there
    /// before.
    ///
    /// # Errors
    /// When the target refuses, or the worker has to stop.
    fn own(
        &mut self,
        database: &str,
        step: &OwnerStep,
        watch: &dyn Watch,
    ) -> Result<Option<OwnerRow>, StatementError>;

    /// What another thread calls to end a request in flight. The sink is of no use afterwards.
    fn interrupter(&self) -> Interrupter {
        Box::new(|| ())
    }
}

/// Ends the requests in flight of one sink, from another thread.
pub type Interrupter = Box<dyn Fn() + Send + Sync>;

/// The sink's view of the worker that it works for.
pub trait Watch {
    /// Whether the worker is going down: give up at once.
    fn stopped(&self) -> bool;

    /// An attempt failed and will be repeated; the mirror is in state `retrying` from here on.
    fn retrying(&self, reason: &str);
}

/// A load that is visible at the target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loaded {
    /// Rows of the load.
    pub rows: u64,
    /// Bytes of the body as it was sent, after compression, of the last attempt.
    pub bytes_sent: u64,
    /// Bytes of the body before compression.
    pub body_bytes: u64,
    /// From the first attempt until the rows were known to be visible.
    pub elapsed: Duration,
}

/// What became of a label, finally.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LabelFate {
    /// Its rows are in the table.
    Visible,
    /// It was used, and its rows will never be in the table.
    Aborted,
    /// The target knows nothing of it: never used, or forgotten.
    Unknown,
}

/// How a table of the target compares with what the mirror needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TableMatch {
    /// It was missing and has been created.
    Created,
    /// It was there, and loads of the mirror fit into it. It is empty, or may have been made by a mirror.
    Fits,
    /// It was there, a mirror has made it, and it has no other columns: another one may take its place.
    Replaceable,
    /// The same, but it has these columns besides: some that the source had before, or that somebody has added.
    Wider(Vec<String>),
    /// It was there and fits, but it has rows, and no mirror made it: a copy must not empty it.
    Occupied,
    /// It was there, and is another table; the text says how it differs.
    Differs(String),
    /// The same, but a mirror has made it.
    Outdated(String),
    /// The same, a mirror has made it, and it has no rows.
    Unused(String),
}

//! Tables that join the running stream, as the mirror worker sees it: it starts who copies them, stands still for a moment
//! when they are near, and takes them over. See [`super::sync`].

use std::time::{Duration, Instant};

use super::super::shmem::{self, Handover};
use super::start::Mirror;
use super::{Child, WorkerKind, start_helper};

/// The longest pause before a copy that failed is begun anew.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What there is to do about tables that are not in the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Nothing.
    GoOn,
    /// The list of tables must be read again.
    ReadTables,
    /// Nothing may be decoded for a moment.
    StandStill,
}

/// The process that copies tables beside the stream, if there is one.
pub(super) struct Joining {
    sync: Option<Child>,
    /// It has handed its tables over, and is about to end.
    is_done: bool,
    /// This worker stands still for it.
    stands: bool,
    failures: u32,
    not_before: Instant,
}

impl Joining {
    pub(super) fn new(mirror: &str) -> Self {
        shmem::update(mirror, |slot| slot.sync = shmem::Sync::default());
        Self { sync: None, is_done: false, stands: false, failures: 0, not_before: Instant::now() }
    }

    /// Looks around; `position` is how far the worker has decoded.
    pub(super) fn look(&mut self, mirror: &Mirror, position: crate::lsn::Lsn) -> Next {
        let Some(slot) = shmem::find(&mirror.name) else { return Next::GoOn };
        if slot.sync.handover == Handover::Done {
            shmem::update(&mirror.name, |slot| slot.sync = shmem::Sync::default());
            (self.is_done, self.stands) = (true, false);
            return Next::ReadTables;
        }
        if slot.tables_version != mirror.tables_version {
            return Next::ReadTables;
        }
        if self.stands && slot.sync.handover == Handover::None {
            // Whoever was waited for has ended, and may have written the tables down before: until that is known nothing
            // may be decoded that they would miss.
            self.stands = false;
            return Next::ReadTables;
        }
        if self.sync.as_ref().is_some_and(Child::is_gone) {
            self.sync = None;
            self.failures = if std::mem::take(&mut self.is_done) { 0 } else { self.failures + 1 };
            let pause = Duration::from_millis(250) * 2u32.saturating_pow(self.failures.min(10));
            self.not_before = Instant::now() + pause.min(LONGEST_PAUSE);
            return Next::ReadTables;
        }
        self.stands = matches!(slot.sync.handover, Handover::Asked | Handover::Standing);
        match slot.sync.handover {
            Handover::Asked => {
                shmem::update(&mirror.name, |slot| {
                    // Whoever asked may have ended since.
                    if slot.sync.handover == Handover::Asked {
                        slot.sync.handover = Handover::Standing;
                        slot.sync.position = position;
                    }
                });
                Next::StandStill
            }
            Handover::Standing => Next::StandStill,
            Handover::None | Handover::Done => Next::GoOn,
        }
    }

    /// Has tables copied that want it, and dropped what earlier copies have left, unless that is being done. Loads of theirs
    /// must not be on their way.
    pub(super) fn start_copy(&mut self, mirror: &Mirror) {
        let is_wanted =
            mirror.has_abandoned_copies || mirror.tables.iter().any(|table| mirror.can_be_copied(table));
        if !is_wanted || self.sync.is_some() || Instant::now() < self.not_before {
            return;
        }
        let helpers: Vec<i32> =
            shmem::find(&mirror.name).map(|slot| slot.helpers.pids().collect()).unwrap_or_default();
        if helpers.is_empty() {
            self.sync = start_helper(WorkerKind::Sync, mirror.database, &mirror.name).ok();
        }
        for pid in helpers {
            // SAFETY: a helper takes its number out of shared memory before its process ends.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        if self.sync.is_none() {
            self.not_before = Instant::now() + Duration::from_millis(200);
        }
    }
}

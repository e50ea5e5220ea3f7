//! What the processes of dbmazz tell each other: one slot of shared memory per mirror.
//!
//! Who writes what:
//!
//! * a **backend** that commits `dbmazz_start_mirror`, `dbmazz_pause_mirror` and the like writes what is *wanted*
//!   ([`want`]) and wakes the launcher;
//! * the **launcher** writes when a worker was started and why it will not be started again;
//! * the **mirror worker** writes everything else about its mirror: state, positions, counters, the last error;
//! * the **holder** writes the name of the exported snapshot.
//!
//! Tables hold what must survive; this holds what is true right now. Nothing waits or raises an error while the
//! lock is held, and every text has a fixed room.

mod helpers;
mod text;
mod wait_note;

use std::fmt;

use pgrx::pg_sys;
use pgrx::{PGRXSharedMemory, PgLwLock};

use super::clock;
use super::encoding::own_text;
use crate::lsn::Lsn;
use crate::options::SlotGuardAction;

pub(crate) use self::helpers::{Helpers, join_helpers, leave_helpers};
pub(crate) use self::text::Text;
pub(crate) use self::wait_note::WaitNote;

/// Mirrors that one server can run. Fixed, because shared memory is.
pub(crate) const MAX_MIRRORS: usize = 32;

/// The lock around everything here.
pub(super) static SHARED: PgLwLock<Shared> =
    // SAFETY: no other lock of this name is registered; `_PG_init` initializes it before anyone can use it.
    unsafe { PgLwLock::new(c"dbmazz mirrors") };

/// What an administrator wants a mirror to do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Wanted {
    /// Have a worker.
    #[default]
    Run,
    /// Have none. The place in shared memory is given back once the worker is gone, unless the slot is guarded.
    Stop,
    /// Have none, and no replication slot either: it has been dropped.
    Gone,
}

/// The states of `dbmazz_stat_mirror.state`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum MirrorState {
    /// The worker prepares slot and target.
    #[default]
    Starting,
    /// Tables are being copied.
    Snapshot,
    /// Changes are applied as they come.
    Streaming,
    /// An administrator stopped it, or it found itself on a copy of its server.
    Paused,
    /// The target does not take loads at the moment; nothing is lost.
    Retrying,
    /// It does not go on by itself.
    Error,
    /// The slot no longer holds what the target lacks.
    NeedsResync,
}

impl MirrorState {
    /// The word of the view.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Snapshot => "snapshot",
            Self::Streaming => "streaming",
            Self::Paused => "paused",
            Self::Retrying => "retrying",
            Self::Error => "error",
            Self::NeedsResync => "needs_resync",
        }
    }
}

impl fmt::Display for MirrorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far the holder of a snapshot has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum HolderPhase {
    /// There is none, or it has not created the slot yet.
    #[default]
    Absent,
    /// Slot and snapshot exist; the holder keeps the snapshot until it is told to leave.
    Holding,
}

/// What a holder is for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum HolderTask {
    /// It creates the mirror's slot, with the snapshot that belongs to it.
    #[default]
    Slot,
    /// It takes a snapshot of now, for a copy that lost its own.
    Snapshot,
    /// It creates a slot of its own for tables that are copied while the others stream, with its snapshot, and decodes it
    /// when they are copied.
    Tables,
}

/// The snapshot that the copy reads, and who holds it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Holder {
    /// Process of the holder; 0 when there is none.
    pub(crate) pid: i32,
    /// What it is for.
    pub(crate) task: HolderTask,
    /// How far it has come.
    pub(crate) phase: HolderPhase,
    /// What `SET TRANSACTION SNAPSHOT` would take; empty when no copy was wanted.
    pub(crate) snapshot: Text<64>,
    /// Everything that committed before is in the snapshot, everything after comes from the slot.
    pub(crate) consistent_lsn: Lsn,
    /// Set by whoever leads the copy: the snapshot is no longer needed.
    pub(crate) leave: bool,
}

/// How far the tables that are copied while the others stream have come towards the stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Handover {
    /// None is near.
    #[default]
    None,
    /// Their decoder is about as far as the mirror worker, which is asked to stop for a moment.
    Asked,
    /// The mirror worker stands at [`Sync::position`] until they are there too.
    Standing,
    /// They are; the mirror worker takes them over from there.
    Done,
}

/// What the mirror worker and the processes tell each other that bring tables into the running stream.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sync {
    /// How far it has come.
    pub(crate) handover: Handover,
    /// Where the mirror worker stands.
    pub(crate) position: Lsn,
    /// The decoder's incarnation, and the numbers that are reserved for it or that it wants.
    pub(crate) labels: LabelRoom,
}

/// Numbers of labels for a process that sits in a callback and cannot reserve them itself. The launcher has that done for
/// the mirror worker, whoever leads the copy does it for the other decoder.
#[derive(Clone, Copy, Default)]
pub(crate) struct LabelRoom {
    /// Whose numbers.
    pub(crate) incarnation: u64,
    /// Numbers up to this one may be used.
    pub(crate) reserved_until: u64,
    /// Numbers up to this one are wanted.
    pub(crate) wanted_until: u64,
}

/// Figures of a running mirror, for the views. Totals count since the worker's start.
#[derive(Clone, Copy, Default)]
pub(crate) struct Progress {
    /// Decoded up to here.
    pub(crate) received_lsn: Lsn,
    /// Everything that committed before is visible at the target. `dbmazz_wait_mirror` waits for this.
    pub(crate) durable_lsn: Lsn,
    /// The checkpoint, and what the slot was told.
    pub(crate) confirmed_lsn: Lsn,
    /// Source time (microseconds since 2000) of the last commit that is visible at the target; 0 for none yet.
    pub(crate) durable_commit_time: i64,
    /// Source time of the last commit that was decoded.
    pub(crate) received_commit_time: i64,
    /// Rows loaded by the stream and the copy.
    pub(crate) rows_total: u64,
    /// Bytes of rows before compression.
    pub(crate) bytes_total: u64,
    /// Finished loads.
    pub(crate) loads_total: u64,
    /// Rows loaded during the last measured second.
    pub(crate) rows_per_second: f64,
    /// Bytes encoded or queued and not yet acknowledged.
    pub(crate) queued_bytes: u64,
}

/// What the guard of a replication slot watches for, and what it has done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Guard {
    /// Retained log at which it acts; zero for never.
    pub(crate) bytes: u64,
    /// What it does.
    pub(crate) action: SlotGuardAction,
    /// It has acted, and the slot has not let go of the log since.
    pub(crate) is_raised: bool,
    /// Snapshot workers pause between loads.
    pub(crate) slows_copy: bool,
}

/// One mirror.
#[derive(Clone, Copy, Default)]
pub(crate) struct MirrorSlot {
    /// Whether the slot belongs to a mirror.
    pub(crate) in_use: bool,
    /// Its name.
    pub(crate) mirror: Text<40>,
    /// Its database.
    pub(crate) database: u32,
    /// What is wanted.
    pub(crate) wanted: Wanted,
    /// The mirror worker; 0 when there is none.
    pub(crate) pid: i32,
    /// Where the worker's latch is (`PGPROC` number), valid while `pid` is set.
    pub(crate) proc_number: i32,
    /// Counts the workers that the mirror has had. A helper belongs to the one that started it.
    pub(crate) generation: u64,
    /// Workers up to this generation have been told to stop. They stop even if a worker is wanted again by now: who
    /// pauses and resumes wants the definition to be read anew.
    pub(crate) dismissed: u64,
    /// Holder and snapshot workers.
    pub(crate) helpers: Helpers,
    /// How often one of them has ended by an error that nobody had asked for.
    pub(crate) helper_failures: u64,
    /// Where the worker is in its life.
    pub(crate) state: MirrorState,
    /// Why it is in trouble, or was last.
    pub(crate) last_error: Text<500>,
    /// When that was (microseconds since 2000).
    pub(crate) last_error_at: i64,
    /// When the running worker started.
    pub(crate) started_at: i64,
    /// Figures.
    pub(crate) progress: Progress,
    /// Somebody waits for everything up to here: open batches are loaded at once.
    pub(crate) flush_requested: Lsn,
    /// How often somebody wanted the rejected rows to be tried again, and up to which wish that was done.
    pub(crate) retries_wanted: u64,
    pub(crate) retries_done: u64,
    /// The copy's snapshot.
    pub(crate) holder: Holder,
    /// Until when bytes that the copy has read are booked at its rate (microseconds since 2000).
    pub(crate) copy_booked_until: i64,
    /// Tables that come into the running stream.
    pub(crate) sync: Sync,
    /// Counts the changes of the list of tables: the worker reads it again when it has moved.
    pub(crate) tables_version: u64,
    /// The worker's incarnation, and its numbers; in a long transaction it asks the launcher for more.
    pub(crate) labels: LabelRoom,
    /// Times of the last three failures without progress, newest first; 0 for none.
    pub(crate) crashes: [i64; 3],
    /// The worker that runs, or ran last, ended by an error that nobody had asked for.
    pub(crate) worker_failed: bool,
    /// It had moved the checkpoint before.
    pub(crate) made_progress: bool,
    /// It ended because its definition changed and goes on at once.
    pub(crate) restart_at_once: bool,
    /// The launcher does not start the worker before this time.
    pub(crate) not_before: i64,
    /// Watches the replication slot.
    pub(crate) guard: Guard,
}

/// Who decodes for a mirror.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// The mirror worker, whose figures the views show.
    Mirror,
    /// The holder of a slot for tables that come into the running stream.
    Tables,
}

impl LabelRoom {
    /// Up to which number more are to be reserved, if they are.
    pub(crate) fn wanted(&self) -> Option<u64> {
        (self.wanted_until > self.reserved_until).then_some(self.wanted_until)
    }
}

impl MirrorSlot {
    /// Shows why the mirror is in trouble.
    pub(crate) fn note_error(&mut self, reason: &str) {
        self.last_error = Text::new(reason);
        self.last_error_at = clock::now();
    }

    /// The label numbers of a decoder.
    pub(crate) const fn labels_of(&mut self, role: Role) -> &mut LabelRoom {
        match role {
            Role::Mirror => &mut self.labels,
            Role::Tables => &mut self.sync.labels,
        }
    }

    /// How many failures there were after a time.
    pub(crate) fn crashes_since(&self, time: i64) -> usize {
        self.crashes.iter().filter(|&&crash| crash > time).count()
    }
}

/// Everything that is shared.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shared {
    /// The launcher's process and where its latch is.
    pub(crate) launcher_pid: i32,
    /// `PGPROC` number of the launcher, valid while `launcher_pid` is set.
    pub(crate) launcher_proc_number: i32,
    /// The mirrors.
    pub(crate) mirrors: [MirrorSlot; MAX_MIRRORS],
}

// SAFETY: plain data of fixed size, no pointers, no heap; every bit pattern that is stored was written by this code.
unsafe impl PGRXSharedMemory for Shared {}

/// Whether the library was loaded by `shared_preload_libraries`, so that there is shared memory at all.
pub(crate) fn is_available() -> bool {
    super::preloaded()
}

/// A copy of the slot of a mirror.
pub(crate) fn find(mirror: &str) -> Option<MirrorSlot> {
    SHARED.share().mirrors.iter().find(|slot| slot.in_use && slot.mirror.as_str() == mirror).copied()
}

/// Copies of all mirrors of the server.
pub(crate) fn all() -> Vec<MirrorSlot> {
    let mut slots = Vec::with_capacity(MAX_MIRRORS);
    slots.extend(SHARED.share().mirrors.iter().filter(|slot| slot.in_use));
    slots
}

/// Changes the slot of a mirror, when there is one. `change` must neither raise an error nor wait.
pub(crate) fn update<T>(mirror: &str, change: impl FnOnce(&mut MirrorSlot) -> T) -> Option<T> {
    let mut shared = SHARED.exclusive();
    shared.mirrors.iter_mut().find(|slot| slot.in_use && slot.mirror.as_str() == mirror).map(change)
}

/// Shows why a mirror does not get on.
pub(crate) fn note_error(mirror: &str, reason: &str) {
    let reason = own_text(reason);
    update(mirror, |slot| slot.note_error(&reason));
}

/// Counts a load of a snapshot worker.
pub(crate) fn add_loaded(mirror: &str, rows: u64, bytes: u64) {
    update(mirror, |slot| {
        slot.progress.rows_total += rows;
        slot.progress.bytes_total += bytes;
        slot.progress.loads_total += 1;
    });
}

/// Wakes the launcher.
pub(crate) fn wake_launcher() {
    let (pid, proc_number) = {
        let shared = SHARED.share();
        (shared.launcher_pid, shared.launcher_proc_number)
    };
    if pid != 0 {
        super::latch::wake(proc_number);
    }
}

/// Wakes the worker of a mirror, if there is one.
pub(crate) fn wake_worker(mirror: &str) {
    if let Some(slot) = find(mirror).filter(|slot| slot.pid != 0) {
        super::latch::wake(slot.proc_number);
    }
}

/// Tells the worker of a mirror that its list of tables has changed. Called after commit.
pub(crate) fn tables_changed(mirror: &str) {
    update(mirror, |slot| slot.tables_version += 1);
    wake_worker(mirror);
}

/// Where the slot of a mirror is. It stays there for as long as a worker of the mirror runs.
pub(crate) fn place_of(mirror: &str) -> Option<usize> {
    SHARED.share().mirrors.iter().position(|slot| slot.in_use && slot.mirror.as_str() == mirror)
}

/// Changes the slot at a place, when it belongs to a mirror. For callbacks at a process' end.
pub(crate) fn update_at<T>(place: usize, change: impl FnOnce(&mut MirrorSlot) -> T) -> Option<T> {
    SHARED.exclusive().mirrors.get_mut(place).filter(|slot| slot.in_use).map(change)
}

/// Has the replication slot of a mirror guarded from now on. A mirror that nobody wants to run gets a place for that.
pub(crate) fn set_guard(
    mirror: &str,
    database: pg_sys::Oid,
    bytes: u64,
    action: SlotGuardAction,
) -> Result<(), NoFreeSlot> {
    let mut shared = SHARED.exclusive();
    let slots = &mut shared.mirrors;
    let known = slots.iter().position(|slot| slot.in_use && slot.mirror.as_str() == mirror);
    let place = match known {
        Some(at) => &mut slots[at],
        None if bytes == 0 => return Ok(()),
        None => {
            let free = slots.iter_mut().find(|slot| !slot.in_use).ok_or(NoFreeSlot)?;
            *free = MirrorSlot {
                in_use: true,
                mirror: Text::new(mirror),
                database: database.to_u32(),
                wanted: Wanted::Stop,
                state: MirrorState::Paused,
                ..MirrorSlot::default()
            };
            free
        }
    };
    place.guard = Guard { bytes, action, ..place.guard };
    Ok(())
}

/// No slot of shared memory is free for another mirror.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NoFreeSlot;

/// Writes down what is wanted of a mirror and wakes whoever makes it so. Called after commit, so it cannot fail on
/// anything but a full table.
pub(crate) fn want(mirror: &str, database: pg_sys::Oid, wanted: Wanted) -> Result<(), NoFreeSlot> {
    let wake = {
        let mut shared = SHARED.exclusive();
        let launcher = (shared.launcher_pid, shared.launcher_proc_number);
        let slots = &mut shared.mirrors;
        let known = slots.iter().position(|slot| slot.in_use && slot.mirror.as_str() == mirror);
        let worker = match (known, wanted) {
            (Some(at), _) => {
                let slot = &mut slots[at];
                slot.wanted = wanted;
                if wanted == Wanted::Stop {
                    slot.dismissed = slot.generation;
                } else if slot.generation <= slot.dismissed {
                    slot.restart_at_once = true;
                }
                if wanted == Wanted::Run && slot.pid == 0 {
                    slot.state = MirrorState::Starting;
                }
                slot.not_before = 0;
                slot.crashes = [0; 3];
                (slot.pid, slot.proc_number)
            }
            (None, Wanted::Stop | Wanted::Gone) => (0, 0),
            (None, Wanted::Run) => {
                let free = slots.iter_mut().find(|slot| !slot.in_use).ok_or(NoFreeSlot)?;
                *free = MirrorSlot {
                    in_use: true,
                    mirror: Text::new(mirror),
                    database: database.to_u32(),
                    wanted,
                    ..MirrorSlot::default()
                };
                (0, 0)
            }
        };
        [launcher, worker]
    };
    for (pid, proc_number) in wake {
        if pid != 0 {
            super::latch::wake(proc_number);
        }
    }
    Ok(())
}

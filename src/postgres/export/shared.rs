//! What the processes of an export tell each other: one place of shared memory per export that runs.
//!
//! A place is taken by the backend that commits the start and given back when the last process of the export has
//! ended. A process belongs to the generation of its leader: an export that is resumed does nothing before all processes
//! of the earlier generation are gone, since they might still write its files.

use pgrx::{PGRXSharedMemory, PgLwLock, pg_sys};

use super::super::clock;
use super::super::encoding::own_text;
use super::super::shmem::Text;
use crate::export::destination::Identity;
use crate::lsn::Lsn;

/// Exports that one server can run at a time.
pub(in super::super) const MAX_EXPORTS: usize = 16;

/// Processes of one export but for its leader: the holder, and the most workers that an option allows.
const MAX_HELPERS: usize = 34;

/// A leader that has not come after so many microseconds will not.
const PATIENCE: i64 = 60_000_000;

/// The lock around everything here.
pub(in super::super) static EXPORTS: PgLwLock<Exports> =
    // SAFETY: no other lock of this name is registered; `_PG_init` initializes it before anyone can use it.
    unsafe { PgLwLock::new(c"dbmazz exports") };

/// A process that helps.
#[derive(Clone, Copy, Default)]
pub(super) struct Helper {
    pub(super) pid: i32,
    /// Of the chunk that it is writing.
    pub(super) figures: Figures,
}

/// What has been written of chunks that are not done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) rows: u64,
    /// Before compression.
    pub(super) bytes: u64,
    /// After it, as far as that is known.
    pub(super) written: u64,
}

/// The snapshot, and who holds it.
#[derive(Clone, Copy, Default)]
pub(super) struct Held {
    pub(super) pid: i32,
    /// The snapshot can be imported.
    pub(super) is_there: bool,
    pub(super) snapshot: Text<64>,
    /// All that committed before is in the snapshot, and nothing else.
    pub(super) lsn: Lsn,
    /// It is no longer needed.
    pub(super) leave: bool,
}

/// One export.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Zero for a place that is free.
    pub(super) id: i64,
    pub(super) database: u32,
    /// When the leader was asked for, while it has not come; microseconds since 2000.
    pub(super) launched_at: i64,
    pub(super) leader_pid: i32,
    pub(super) leader_proc_number: i32,
    /// Counts the leaders.
    pub(super) generation: u64,
    pub(super) helpers: [Helper; MAX_HELPERS],
    pub(super) held: Held,
    /// The directory that is written to, once it is known.
    pub(super) directory: Option<Identity>,
    /// Somebody wants it to stop.
    pub(super) cancel: bool,
    /// What a process ended by.
    pub(super) error: Text<800>,
    /// When the next byte may be written, if there is a rate to keep; microseconds since 2000.
    pub(super) next_free: i64,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            id: 0,
            database: 0,
            launched_at: 0,
            leader_pid: 0,
            leader_proc_number: 0,
            generation: 0,
            helpers: [Helper::default(); MAX_HELPERS],
            held: Held::default(),
            directory: None,
            cancel: false,
            error: Text::default(),
            next_free: 0,
        }
    }
}

impl Place {
    /// Whether no process has anything to do with it.
    fn is_deserted(&self) -> bool {
        let is_awaited = self.launched_at != 0 && clock::now() - self.launched_at < PATIENCE;
        !is_awaited && self.leader_pid == 0 && self.helper_pids().next().is_none()
    }

    fn writes_to(&self, directory: Identity) -> bool {
        self.id != 0 && self.directory == Some(directory) && !self.is_deserted()
    }

    /// Its processes but for the leader.
    pub(super) fn helper_pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.helpers.iter().map(|helper| helper.pid).filter(|pid| *pid != 0)
    }

    /// Figures of all workers.
    pub(super) fn figures(&self) -> Figures {
        self.helpers.iter().fold(Figures::default(), |sum, helper| Figures {
            rows: sum.rows + helper.figures.rows,
            bytes: sum.bytes + helper.figures.bytes,
            written: sum.written + helper.figures.written,
        })
    }
}

/// Everything that is shared.
#[derive(Clone, Copy, Default)]
pub(in super::super) struct Exports {
    places: [Place; MAX_EXPORTS],
}

// SAFETY: plain data of fixed size, no pointers, no heap; every bit pattern that is stored was written by this code.
unsafe impl PGRXSharedMemory for Exports {}

/// No place is free.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoPlace;

/// Takes a place for an export whose leader is about to be started.
pub(super) fn take(id: i64, database: u32) -> Result<(), NoPlace> {
    let now = clock::now();
    let mut exports = EXPORTS.exclusive();
    if let Some(place) = exports.places.iter_mut().find(|place| place.id == id && place.database == database)
    {
        (place.launched_at, place.cancel) = (now, false);
        return Ok(());
    }
    let free = exports.places.iter_mut().find(|place| place.id == 0 || place.is_deserted()).ok_or(NoPlace)?;
    *free = Place { id, database, launched_at: now, ..Place::default() };
    Ok(())
}

/// The leader that was asked for will not come.
pub(super) fn give_up_launch(id: i64, database: u32) {
    update(id, database, |place| place.launched_at = 0);
}

/// A copy of the place of an export that has a process, or is about to.
pub(super) fn find(id: i64, database: u32) -> Option<Place> {
    let exports = EXPORTS.share();
    exports.places.iter().find(|it| it.id == id && it.database == database && !it.is_deserted()).copied()
}

/// Copies of all places of a database.
pub(super) fn all_of(database: u32) -> Vec<Place> {
    let mut places = Vec::with_capacity(MAX_EXPORTS);
    let exports = EXPORTS.share();
    places.extend(
        exports.places.iter().filter(|it| it.id != 0 && it.database == database && !it.is_deserted()),
    );
    places
}

/// Changes the place of an export. `change` must neither raise an error nor wait.
pub(super) fn update<T>(id: i64, database: u32, change: impl FnOnce(&mut Place) -> T) -> Option<T> {
    let mut exports = EXPORTS.exclusive();
    exports.places.iter_mut().find(|place| place.id == id && place.database == database).map(change)
}

/// The export that has processes which write to a directory, by its number and database.
pub(super) fn writer_to(directory: Identity) -> Option<(i64, u32)> {
    let exports = EXPORTS.share();
    exports.places.iter().find(|place| place.writes_to(directory)).map(|place| (place.id, place.database))
}

/// Writes down where an export writes to, unless another one does: then that one's number and database.
pub(super) fn take_directory(id: i64, database: u32, directory: Identity) -> Option<(i64, u32)> {
    let mut exports = EXPORTS.exclusive();
    let is_mine = |place: &Place| place.id == id && place.database == database;
    let other = exports.places.iter().find(|place| place.writes_to(directory) && !is_mine(place));
    let other = other.map(|place| (place.id, place.database));
    if other.is_none()
        && let Some(mine) = exports.places.iter_mut().find(|place| is_mine(place))
    {
        mine.directory = Some(directory);
    }
    other
}

/// A leader has come. Returns its generation; none when there is another leader.
pub(super) fn lead(id: i64, database: u32, pid: i32, proc_number: i32) -> Option<u64> {
    update(id, database, |place| {
        if place.leader_pid != 0 {
            return None;
        }
        place.launched_at = 0;
        place.leader_pid = pid;
        place.leader_proc_number = proc_number;
        place.generation += 1;
        place.held = Held { pid: place.held.pid, ..Held::default() };
        place.error = Text::default();
        Some(place.generation)
    })
    .flatten()
}

/// A helper has come. None when its leader is gone; otherwise its number.
pub(super) fn join(id: i64, database: u32, generation: u64, pid: i32) -> Option<usize> {
    update(id, database, |place| {
        if place.generation != generation || place.leader_pid == 0 {
            return None;
        }
        let at = place.helpers.iter().position(|helper| helper.pid == 0)?;
        place.helpers[at] = Helper { pid, figures: Figures::default() };
        Some(at)
    })
    .flatten()
}

/// A process of an export ends. Raises nothing.
pub(super) fn leave(pid: i32) {
    let mut exports = EXPORTS.exclusive();
    for place in &mut exports.places {
        if place.leader_pid == pid {
            place.leader_pid = 0;
        }
        if place.held.pid == pid {
            place.held = Held::default();
        }
        for helper in &mut place.helpers {
            if helper.pid == pid {
                *helper = Helper::default();
            }
        }
    }
}

/// Keeps the first reason for which an export fails.
pub(super) fn note_error(id: i64, database: u32, reason: &str) {
    let reason = Text::new(&own_text(reason));
    update(id, database, |place| {
        if place.error.is_empty() {
            place.error = reason;
        }
    });
}

/// The database of this process.
pub(super) fn my_database() -> u32 {
    // SAFETY: set before a backend runs its first statement or a worker its body, and not changed afterwards.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

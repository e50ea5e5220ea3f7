//! The facts that [`crate::identity`] judges, and what follows from its verdict.
//!
//! Called once by the mirror worker, before it settles a label, touches a slot or writes to the target: on a copy of the
//! server all three belong to somebody else.

use std::ffi::CStr;
use std::time::Duration;

use pgrx::pg_sys;

use super::super::catalog::checkpoint::{self, Checkpoint};
use super::super::catalog::identity::{self as record, Identity, Standing};
use super::super::shmem::{self, MirrorState};
use super::super::{compat, ffi, latch, session, slot, wal};
use super::standstill::Stop;
use super::start::Mirror;
use crate::identity::{Log, Place, Reached, Slot, Switch, Use, judge_log, judge_place, judge_slot};
use crate::lsn::Lsn;

/// A mirror that may run here, as far as this server can tell.
pub(super) struct Checked {
    /// Where this is.
    pub(super) here: Place,
    /// Where the mirror ran last, and who claimed the target.
    pub(super) last: Option<Identity>,
    /// The checkpoint; none before the first.
    pub(super) checkpoint: Option<Checkpoint>,
    /// The end of what this server has of the checkpoint's log.
    pub(super) log_end: Lsn,
}

/// Collects the facts and has them judged; waits for a slot that another process has.
///
/// # Errors
///
/// Why the mirror may not go on by itself.
pub(super) fn check(mirror: &Mirror) -> Result<Checked, Stop> {
    let here = place(mirror.database);
    let (last, checkpoint) =
        session::transaction(|| (record::read(&mirror.name), checkpoint::read(&mirror.name)));
    let log = session::transaction(log);
    let reached =
        checkpoint.map(|last| Reached { confirmed_lsn: last.confirmed_lsn, timeline: last.timeline });
    match &last {
        // Somebody has said that this is the place.
        Some(last) if last.standing == Standing::Confirmed => {
            reached.map_or(Ok(()), |reached| judge_log(&log, reached))?;
        }
        Some(last) => judge_place(&last.place, &here, &log, reached)?,
        None => {}
    }
    loop {
        let found = slot::find(&mirror.slot_name()).map(|slot| with_its_log(slot, &mirror.slot_name()));
        match judge_slot(found.as_ref(), here.database_oid, reached)? {
            Use::Free => break,
            Use::Taken { pid } => wait_for_slot(mirror, pid),
        }
    }
    let log_end = reached.and_then(|reached| log.end_of(reached.timeline)).unwrap_or(log.end);
    Ok(Checked { here, last, checkpoint, log_end })
}

/// A slot that was copied here as a file may need log that was never here; the server itself finds out when it reads.
fn with_its_log(slot: Slot, name: &str) -> Slot {
    let is_there = slot::kept_from(name).is_none_or(wal::is_there);
    let missing = (!is_there).then_some("the log that it needs is not on this server");
    Slot { invalidation: slot.invalidation.or(missing), ..slot }
}

/// Another process has the slot: a client that streams from it, or an earlier worker that is about to end.
fn wait_for_slot(mirror: &Mirror, pid: i32) {
    let reason = format!("replication slot \"{}\" is in use by process {pid}", mirror.slot_name());
    shmem::note_error(&mirror.name, &reason);
    shmem::update(&mirror.name, |slot| slot.state = MirrorState::Retrying);
    latch::wait(None, Duration::from_millis(500));
    session::leave_if_unwanted(&mirror.name);
}

/// Where this process runs. Any process.
pub(in super::super) fn place(database: pg_sys::Oid) -> Place {
    let mut host = [0_u8; 256];
    // SAFETY: the room is as long as it says, and the name is read only up to its end within it.
    let told = unsafe { libc::gethostname(host.as_mut_ptr().cast(), host.len() - 1) };
    let host = if told == 0 { CStr::from_bytes_until_nul(&host).ok() } else { None };
    // SAFETY: both are set before a process runs anything of ours, and never changed.
    let (system_identifier, directory) =
        unsafe { (pg_sys::GetSystemIdentifier(), CStr::from_ptr(pg_sys::DataDir)) };
    Place {
        system_identifier,
        database_oid: database.to_u32(),
        data_directory: directory.to_string_lossy().into_owned(),
        host: host.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
    }
}

/// The log of this server. Inside a transaction, whose memory it uses.
fn log() -> Log {
    let timeline = compat::timeline();
    let switches = ffi::timeline_history(timeline).into_iter();
    let switches = switches.map(|(timeline, end)| Switch { timeline, end: Lsn(end) }).collect();
    Log { timeline, end: compat::flush_position(), switches }
}

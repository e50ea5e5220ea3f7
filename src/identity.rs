//! Whether a mirror, the server that it runs on and its slot still belong together.
//!
//! A slot carries no identity of its own, and a directory can be copied, so a worker collects facts before it does
//! anything at all, and this module judges them. Nothing here asks anybody: `postgres::worker::identity` does.
//!
//! ```text
//! place: same system and database? ──no──► paused: a copy must not write to the target of its original
//!   │ yes
//! timeline: the same, or grown with the checkpoint at or before the switch? ──no──► needs_resync
//!   │ yes, and a timeline that has grown makes another directory or host a promoted standby
//! directory and host as before? ──no──► paused
//!   │ yes
//! slot: there, ours, its log kept, not ahead of the checkpoint? ──no──► needs_resync
//!   │ yes
//! slot free? ──no──► wait
//! ```
//!
//! No disagreement is ever ended by taking the later position.

use std::fmt;

use crate::lsn::Lsn;

/// Where a mirror runs. Two copies of a server differ in something of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// `pg_control_system().system_identifier`; the same in every copy of a data directory.
    pub system_identifier: u64,
    /// The database.
    pub database_oid: u32,
    /// The data directory.
    pub data_directory: String,
    /// Name of the machine.
    pub host: String,
}

/// Where the log left a timeline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Switch {
    /// The timeline that was left.
    pub timeline: u32,
    /// What the server has of it ends here.
    pub end: Lsn,
}

/// The log of the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    /// The timeline that it writes.
    pub timeline: u32,
    /// Its end, on disk.
    pub end: Lsn,
    /// The timelines that lead to this one.
    pub switches: Vec<Switch>,
}

impl Log {
    /// Where what this server has of a timeline ends; none when it does not come from that timeline.
    pub fn end_of(&self, timeline: u32) -> Option<Lsn> {
        if timeline == self.timeline {
            return Some(self.end);
        }
        self.switches.iter().find(|switch| switch.timeline == timeline).map(|switch| switch.end)
    }
}

/// The checkpoint, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reached {
    /// Everything that committed before is at the target.
    pub confirmed_lsn: Lsn,
    /// The timeline that this is a position of.
    pub timeline: u32,
}

/// A replication slot that has the name of the mirror's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Slot {
    /// What its consumer confirmed last.
    pub confirmed_lsn: Lsn,
    /// Its database; zero for a physical slot.
    pub database_oid: u32,
    /// Its output plugin.
    pub plugin: String,
    /// Whether it goes with the session that made it.
    pub is_temporary: bool,
    /// Whether it decodes transactions when they are prepared.
    pub is_two_phase: bool,
    /// Why its log is gone; none as long as it is there.
    pub invalidation: Option<&'static str>,
    /// The process that has it.
    pub active_pid: Option<i32>,
}

/// Where a mirror is, compared with where it ran last: whether it may go on here.
///
/// # Errors
///
/// Why not. Nothing may be asked of the target then, and no slot touched: both may be another server's.
pub fn judge_place(last: &Place, here: &Place, log: &Log, reached: Option<Reached>) -> Result<(), Trouble> {
    if last.system_identifier != here.system_identifier {
        return Err(Trouble::OtherServer { last: last.clone() });
    }
    if last.database_oid != here.database_oid {
        return Err(Trouble::OtherDatabase { last: last.clone() });
    }
    let has_grown = reached.is_some_and(|reached| reached.timeline != log.timeline);
    if let Some(reached) = reached {
        judge_log(log, reached)?;
    }
    let is_elsewhere = last.data_directory != here.data_directory || last.host != here.host;
    if is_elsewhere && !has_grown {
        return Err(Trouble::Copied { last: last.clone() });
    }
    Ok(())
}

/// Whether the log of the server has all that the checkpoint promises.
///
/// # Errors
///
/// When the target has what this server never had.
pub fn judge_log(log: &Log, reached: Reached) -> Result<(), Trouble> {
    let Reached { confirmed_lsn, timeline } = reached;
    match log.end_of(timeline) {
        None => Err(Trouble::OtherTimeline { timeline, here: log.timeline }),
        Some(end) if end < confirmed_lsn => Err(Trouble::LogEndsBefore { end, confirmed_lsn }),
        Some(_) => Ok(()),
    }
}

/// Whether a slot is the one that the checkpoint was written for. `reached` is none before the first checkpoint; then
/// a slot is one that an unfinished start left behind.
///
/// # Errors
///
/// Why not.
pub fn judge_slot(slot: Option<&Slot>, database_oid: u32, reached: Option<Reached>) -> Result<Use, Trouble> {
    let Some(reached) = reached else { return judge_leftover(slot, database_oid) };
    let slot = slot.ok_or(Trouble::SlotMissing)?;
    if let Some(difference) = difference(slot, database_oid) {
        return Err(Trouble::SlotReplaced { difference });
    }
    if let Some(reason) = slot.invalidation {
        return Err(Trouble::SlotInvalidated { reason });
    }
    let (slot_lsn, confirmed_lsn) = (slot.confirmed_lsn, reached.confirmed_lsn);
    if slot_lsn > confirmed_lsn {
        return Err(Trouble::SlotAhead { slot_lsn, confirmed_lsn });
    }
    Ok(slot.active_pid.map_or(Use::Free, |pid| Use::Taken { pid }))
}

fn judge_leftover(slot: Option<&Slot>, database_oid: u32) -> Result<Use, Trouble> {
    let Some(slot) = slot else { return Ok(Use::Free) };
    match difference(slot, database_oid) {
        Some(difference) => Err(Trouble::NameTaken { difference }),
        None => Ok(slot.active_pid.map_or(Use::Free, |pid| Use::Taken { pid })),
    }
}

/// What tells a slot from one that a mirror makes.
fn difference(slot: &Slot, database_oid: u32) -> Option<String> {
    if slot.database_oid == 0 {
        return Some("it is a physical slot".to_owned());
    }
    if slot.database_oid != database_oid {
        return Some("it is a slot of another database".to_owned());
    }
    if slot.plugin != "pgoutput" {
        return Some(format!("its output plugin is \"{}\", not \"pgoutput\"", slot.plugin));
    }
    if slot.is_temporary {
        return Some("it is a temporary slot".to_owned());
    }
    slot.is_two_phase.then(|| "it decodes prepared transactions".to_owned())
}

/// Whether the slot can be used at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// Nobody has it.
    Free,
    /// Another process has it, and may give it back as it is.
    Taken {
        /// Its number.
        pid: i32,
    },
}

/// The state that a mirror goes into which may not go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standstill {
    /// Nothing is lost; somebody has to say whether it may go on.
    Paused,
    /// The target lacks changes, or has some that this server never made.
    NeedsResync,
    /// Something has to be mended first.
    Error,
}

/// Why a mirror may not go on. The text follows `mirror "…" has been stopped: `.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// It ran on a server of another system identifier.
    OtherServer {
        /// Where it ran.
        last: Place,
    },
    /// It ran in another database of this server: this one was made from it.
    OtherDatabase {
        /// Where it ran.
        last: Place,
    },
    /// It ran in another directory or on another host, and this is no promoted standby.
    Copied {
        /// Where it ran.
        last: Place,
    },
    /// The server does not come from the timeline of the checkpoint.
    OtherTimeline {
        /// Of the checkpoint.
        timeline: u32,
        /// Of the server.
        here: u32,
    },
    /// The server was restored to a time before the checkpoint.
    LogEndsBefore {
        /// Where the timeline of the checkpoint ends here.
        end: Lsn,
        /// The checkpoint.
        confirmed_lsn: Lsn,
    },
    /// There is no slot.
    SlotMissing,
    /// A slot has the name, but is none that a mirror makes.
    SlotReplaced {
        /// What is different.
        difference: String,
    },
    /// The same before the first checkpoint: it was there before the mirror.
    NameTaken {
        /// What is different.
        difference: String,
    },
    /// The log or the catalog rows that the slot needs are gone.
    SlotInvalidated {
        /// Why.
        reason: &'static str,
    },
    /// The slot was advanced, or made again.
    SlotAhead {
        /// Where the slot is.
        slot_lsn: Lsn,
        /// The checkpoint.
        confirmed_lsn: Lsn,
    },
}

impl Trouble {
    /// The state that follows.
    pub const fn standstill(&self) -> Standstill {
        match self {
            Self::OtherServer { .. } | Self::OtherDatabase { .. } | Self::Copied { .. } => Standstill::Paused,
            Self::NameTaken { .. } => Standstill::Error,
            _ => Standstill::NeedsResync,
        }
    }

    /// Facts, as sentences.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::OtherServer { last } | Self::OtherDatabase { last } | Self::Copied { last } => {
                Some(format!(
                    "It last ran in directory \"{}\" on host \"{}\", in the database with OID {} of system {}.",
                    last.data_directory, last.host, last.database_oid, last.system_identifier
                ))
            }
            _ => None,
        }
    }

    /// What to do, as sentences.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::OtherServer { .. } | Self::Copied { .. } => {
                "If the other server is gone or must no longer write to the target, call dbmazz_resume_mirror here to \
                 go on from here.  Otherwise drop the mirror here, which leaves the other one alone."
            }
            Self::OtherDatabase { .. } => {
                "Drop the mirror here; that leaves the mirror of the other database alone.  If this database takes its \
                 place, call dbmazz_resume_mirror instead."
            }
            Self::NameTaken { .. } => {
                "Drop that slot if nobody needs it and call dbmazz_resume_mirror, or drop the mirror and start one of \
                 another name."
            }
            Self::OtherTimeline { .. } | Self::LogEndsBefore { .. } => {
                "The target may have changes that this server never made.  Drop the mirror and start it again to copy \
                 the tables anew."
            }
            _ => {
                "Changes are missing at the target.  Drop the mirror and start it again to copy the tables anew."
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherServer { .. } => {
                f.write_str("this server is a copy: the mirror ran on one of another system identifier")
            }
            Self::OtherDatabase { .. } => {
                f.write_str("this database is a copy: the mirror ran in another database")
            }
            Self::Copied { .. } => {
                f.write_str("this server is a copy: the mirror ran in another directory or on another host")
            }
            Self::OtherTimeline { timeline, here } => write!(
                f,
                "the checkpoint is of timeline {timeline}, which the timeline {here} of this server does not come from"
            ),
            Self::LogEndsBefore { end, confirmed_lsn } => {
                write!(f, "this server has been restored to {end}, before the checkpoint at {confirmed_lsn}")
            }
            Self::SlotMissing => f.write_str("its replication slot does not exist"),
            Self::SlotReplaced { difference } => {
                write!(f, "its replication slot has been replaced: {difference}")
            }
            Self::NameTaken { difference } => {
                write!(f, "the name of its replication slot is taken: {difference}")
            }
            Self::SlotInvalidated { reason } => {
                write!(f, "its replication slot has been invalidated: {reason}")
            }
            Self::SlotAhead { slot_lsn, confirmed_lsn } => write!(
                f,
                "its replication slot is at {slot_lsn}, ahead of the checkpoint at {confirmed_lsn}: it was advanced or \
                 created again"
            ),
        }
    }
}

impl std::error::Error for Trouble {}

#[cfg(test)]
mod tests;

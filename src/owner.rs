//! Who owns a mirror's tables at the target: the row of the mirror in `dbmazz_owner`, in the target database.
//!
//! The row keeps two promises. **One writer**: a worker claims it before its first load, and whoever finds it claimed by
//! another server stops. **Nothing was taken back**: `commit_lsn` tells how far the target had come, so a target that was
//! restored to an older state is noticed.
//!
//! ```text
//! loads up to C visible ─► row says C, read back ─► checkpoint committed: confirmed C, owner_lsn C ─► slot told
//! ```
//!
//! Why `commit_lsn < owner_lsn` means that the target lost something, and nothing less does: the row gets C only after
//! all loads up to C are visible, so every state of the target (as a whole: a backup of one moment) whose row says C or
//! more has them. The checkpoint is committed only after the row was read back with C. So a target that never went back
//! says `owner_lsn` or more, always; one that went back behind a load of the checkpoint went back behind the row as
//! well. A checkpoint that moves while nothing is loaded keeps the `owner_lsn` that it has: the target is what it was,
//! and an idle mirror writes nothing. Rows are not compared: a single table that somebody changes or restores by hand
//! is not noticed.
//!
//! The other way round: a row that is further than the log of this server has rows that this server never had. It was
//! restored to an earlier time. The row is at most one checkpoint behind the loads, so a server that lost no more than
//! that is not told apart; `synchronized_standby_slots` keeps standbys from losing anything.
//!
//! An incarnation in the row that no worker of this mirror drew here is one that a copy of this server drew: the copy
//! has written to the target since.

use std::fmt;

use crate::identity::Standstill;
use crate::lsn::Lsn;

/// The row of a mirror.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnerRow {
    /// The mirror.
    pub mirror: String,
    /// Of the worker that claimed it.
    pub incarnation: u64,
    /// System identifier and database of the source: [`server_name`].
    pub server: String,
    /// All that committed before was visible when this was written.
    pub commit_lsn: Lsn,
}

/// How a source is called in the row.
pub fn server_name(system_identifier: u64, database_oid: u32) -> String {
    format!("{system_identifier}/{database_oid}")
}

/// What is done with the row. Each step first reads it, and answers with what it found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OwnerStep {
    /// Makes database and table where they are missing.
    Look {
        /// The mirror.
        mirror: String,
    },
    /// Writes the row, whoever had it.
    Claim(OwnerRow),
    /// Writes the row if this server still has it.
    Advance {
        /// The row.
        row: OwnerRow,
        /// Incarnations that workers of this mirror have drawn here.
        known: Vec<u64>,
    },
    /// Deletes the row if this server has it.
    Release {
        /// The mirror.
        mirror: String,
        /// The server.
        server: String,
    },
}

/// Whether a row was written by a worker of this server.
pub fn is_own(found: &OwnerRow, server: &str, known: &[u64]) -> bool {
    found.server == server && known.contains(&found.incarnation)
}

/// Who claims.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// This server.
    pub server: String,
    /// What this server was called when the mirror last ran.
    pub last_server: String,
    /// Incarnations that workers of this mirror have drawn here.
    pub known: Vec<u64>,
    /// What the checkpoint remembers of the row; none before the first checkpoint.
    pub owner_lsn: Option<Lsn>,
    /// The end of what this server has of the checkpoint's log.
    pub log_end: Lsn,
    /// Somebody said that the mirror may take over.
    pub is_confirmed: bool,
}

/// Whether a worker may claim, from what it found at the target.
///
/// # Errors
///
/// Why not.
pub fn judge(found: Option<&OwnerRow>, me: &Claimant) -> Result<(), OwnerTrouble> {
    let Some(found) = found else {
        return match me.owner_lsn.filter(|lsn| lsn.is_valid()) {
            Some(expected) => Err(OwnerTrouble::Gone { expected }),
            None => Ok(()),
        };
    };
    let was_ours = found.server == me.server || (me.is_confirmed && found.server == me.last_server);
    if !was_ours && !me.is_confirmed {
        return Err(OwnerTrouble::Foreign { found: found.clone() });
    }
    // Before the first checkpoint there is nothing that the target could lack: all tables are copied.
    let Some(owner_lsn) = me.owner_lsn else { return Ok(()) };
    if !was_ours || !me.known.contains(&found.incarnation) {
        return Err(OwnerTrouble::WrittenByOther { found: found.clone() });
    }
    if found.commit_lsn < owner_lsn {
        return Err(OwnerTrouble::Behind { found: found.commit_lsn, expected: owner_lsn });
    }
    if found.commit_lsn > me.log_end {
        return Err(OwnerTrouble::Ahead { found: found.commit_lsn, log_end: me.log_end });
    }
    Ok(())
}

/// Why a mirror may not write to the target. The text follows `mirror "…" has been stopped: `.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OwnerTrouble {
    /// Another server has the row.
    Foreign {
        /// The row.
        found: OwnerRow,
    },
    /// The claim was taken while the worker ran.
    Taken {
        /// The row; none when it is gone.
        found: Option<OwnerRow>,
    },
    /// Another server, or a copy of this one, has written to the target since this one did.
    WrittenByOther {
        /// The row.
        found: OwnerRow,
    },
    /// The row is gone.
    Gone {
        /// What it said.
        expected: Lsn,
    },
    /// The target went back.
    Behind {
        /// What the row says.
        found: Lsn,
        /// What it said.
        expected: Lsn,
    },
    /// The source went back.
    Ahead {
        /// What the row says.
        found: Lsn,
        /// Where the log ends.
        log_end: Lsn,
    },
}

impl OwnerTrouble {
    /// The state that follows.
    pub const fn standstill(&self) -> Standstill {
        match self {
            Self::Foreign { .. } | Self::Taken { .. } => Standstill::Paused,
            _ => Standstill::NeedsResync,
        }
    }

    /// Facts, as sentences.
    pub fn detail(&self) -> Option<String> {
        let found = match self {
            Self::Foreign { found } | Self::WrittenByOther { found } | Self::Taken { found: Some(found) } => {
                found
            }
            _ => return None,
        };
        let whose = match self {
            Self::WrittenByOther { .. } => {
                "  It may be a copy of this server, or this server before it was restored."
            }
            _ => "",
        };
        let (system, database) = found.server.split_once('/').unwrap_or((&found.server, "unknown"));
        Some(format!(
            "Its row of \"dbmazz_owner\" belongs to the database with OID {database} of system {system}, incarnation \
             {:016x}, position {}.{whose}",
            found.incarnation, found.commit_lsn
        ))
    }

    /// What to do, as sentences.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Foreign { .. } | Self::Taken { .. } => {
                "Drop the mirror on one of the two servers, or use another mirror name or target database.  If the other \
                 server is gone for good, call dbmazz_resume_mirror here to take over."
            }
            Self::WrittenByOther { .. } | Self::Ahead { .. } => {
                "The target has changes that this server never made.  Drop the mirror and start it again to copy the \
                 tables anew."
            }
            Self::Gone { .. } | Self::Behind { .. } => {
                "Changes are missing at the target.  Drop the mirror and start it again to copy the tables anew."
            }
        }
    }
}

impl fmt::Display for OwnerTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { .. } => f.write_str("the target is claimed by another server"),
            Self::Taken { found: Some(_) } => f.write_str("the target has been claimed by another server"),
            Self::Taken { found: None } => f.write_str("its claim to the target has been removed"),
            Self::WrittenByOther { .. } => {
                f.write_str("the target was claimed by a worker that this server does not know")
            }
            Self::Gone { expected } => {
                write!(f, "the target has lost the mark that it had reached {expected}")
            }
            Self::Behind { found, expected } => {
                write!(f, "the target is at {found}, but had reached {expected}: it has been restored")
            }
            Self::Ahead { found, log_end } => {
                write!(f, "the target is at {found}, beyond the log of this server, which ends at {log_end}")
            }
        }
    }
}

impl std::error::Error for OwnerTrouble {}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(incarnation: u64, server: &str, commit_lsn: u64) -> OwnerRow {
        let (mirror, server) = ("shop".to_owned(), server.to_owned());
        OwnerRow { mirror, incarnation, server, commit_lsn: Lsn(commit_lsn) }
    }

    /// Has written 100, and has log up to 500.
    fn claimant() -> Claimant {
        Claimant {
            server: "7/5".to_owned(),
            last_server: "7/5".to_owned(),
            known: vec![1, 2],
            owner_lsn: Some(Lsn(100)),
            log_end: Lsn(500),
            is_confirmed: false,
        }
    }

    fn state(found: Option<&OwnerRow>, me: &Claimant) -> Option<Standstill> {
        judge(found, me).err().map(|trouble| trouble.standstill())
    }

    #[test]
    fn own_claim_is_taken_up_where_it_was_or_further() {
        for commit_lsn in [100, 101, 500] {
            assert_eq!(judge(Some(&row(2, "7/5", commit_lsn)), &claimant()), Ok(()));
        }
    }

    #[test]
    fn target_that_went_back_needs_a_resync() {
        assert_eq!(state(Some(&row(2, "7/5", 99)), &claimant()), Some(Standstill::NeedsResync));
        assert_eq!(state(None, &claimant()), Some(Standstill::NeedsResync));
    }

    #[test]
    fn source_that_went_back_needs_a_resync() {
        assert_eq!(state(Some(&row(2, "7/5", 501)), &claimant()), Some(Standstill::NeedsResync));
    }

    #[test]
    fn foreign_claim_stops_the_mirror_until_somebody_says_that_it_may_take_over() {
        let foreign = row(9, "8/5", 300);
        let first = Claimant { owner_lsn: None, ..claimant() };
        assert_eq!(state(Some(&foreign), &first), Some(Standstill::Paused));
        assert_eq!(state(Some(&foreign), &claimant()), Some(Standstill::Paused));
        assert_eq!(judge(Some(&foreign), &Claimant { is_confirmed: true, ..first }), Ok(()));
        // What the other one wrote is not known here.
        let going_on = Claimant { is_confirmed: true, ..claimant() };
        assert_eq!(state(Some(&foreign), &going_on), Some(Standstill::NeedsResync));
    }

    #[test]
    fn copy_of_this_server_that_wrote_is_noticed_by_its_incarnation() {
        assert_eq!(state(Some(&row(9, "7/5", 300)), &claimant()), Some(Standstill::NeedsResync));
    }

    #[test]
    fn server_that_was_renamed_keeps_its_claim() {
        let renamed = Claimant { server: "8/5".to_owned(), is_confirmed: true, ..claimant() };
        assert_eq!(judge(Some(&row(2, "7/5", 100)), &renamed), Ok(()));
    }

    #[test]
    fn new_start_takes_over_what_an_earlier_mirror_of_this_server_left() {
        let first = Claimant { owner_lsn: None, known: vec![], ..claimant() };
        assert_eq!(judge(Some(&row(9, "7/5", 900)), &first), Ok(()));
        assert_eq!(judge(None, &first), Ok(()));
    }
}

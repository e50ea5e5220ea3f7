//! How the stream brings a copied table into step.
//!
//! The slot is older than the copy of a table when the copy was interrupted, begun again, or made later than the others.
//! Up to one position, behind which no commit is that the copy has seen, the changes of such a table are treated apart:
//!
//! | the copy of the table | of the stream up to there |
//! |---|---|
//! | was begun anew under a later snapshot, into an empty target | only what that snapshot does not see ([`Replay::seen_by`]) |
//! | was made under several snapshots, chunk by chunk | what the first of them does not see, and values that the log does not have come from the source ([`Replay::completing`]) |
//! | was brought up to there by a decoder of its own | nothing ([`CatchUp::Behind`]) |
//!
//! Why chunks of several snapshots converge: none of them is older than the slot, or than the snapshot that the copy was
//! begun anew under, so every change that separates them is in the stream. Replayed in their order, upserts and deletes by key leave each key as its last change left it, and
//! a key that was not changed has been read by exactly one chunk, whichever snapshot that had. The one hole: a row that
//! moved from a chunk that was read later into one that had been read already is in no chunk, and the UPDATE that moved it
//! does not carry its unchanged TOAST values. Those are read from the source, which has them as they are by now: later
//! changes of the row are still to come in the stream, and a row that is not there any more is deleted by one of them.
//!
//! `model` runs this against random schedules. Called by the mirror worker: [`Resumed::of`] when a copy goes on,
//! [`CatchUp::treat`] once per transaction.

use std::fmt;

use super::{NoSnapshot, VisibleIn};
use crate::lsn::Lsn;

/// What is to become of a table whose copy was interrupted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resumed {
    /// All chunks are done: nothing is left to copy, whatever has become of the table since.
    Whole,
    /// Its finished chunks count, the others are read under the new snapshot.
    Kept,
    /// It is copied anew, into an emptied target.
    Restarted,
}

impl Resumed {
    /// Decides by the chunks, and whether the table still has the file and the columns that they were planned for.
    pub const fn of(chunks_done: usize, chunks: usize, is_unchanged: bool) -> Self {
        if chunks > 0 && chunks_done == chunks {
            Self::Whole
        } else if chunks_done > 0 && is_unchanged {
            Self::Kept
        } else {
            Self::Restarted
        }
    }
}

/// What the stream does for a table up to a position.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CatchUp {
    /// Nothing: all that committed up to there is at the target.
    Behind,
    /// It replays.
    Replay(Replay),
}

/// What is replayed of the stream, and how.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Replay {
    /// The snapshot that the copy was begun anew under: what it sees is skipped.
    pub seen_by: Option<VisibleIn>,
    /// Chunks were read under more than one snapshot: values that the log does not have come from the source.
    pub completing: bool,
}

/// What is done with the changes of one transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Treatment {
    /// They are at the target already.
    Skip,
    /// As always.
    Apply,
    /// A row with unchanged values is read from the source instead.
    Complete,
}

impl CatchUp {
    /// For a table of which some chunks were finished under an earlier snapshot, with what was true of it before.
    pub fn completing(before: Option<Self>) -> Self {
        let seen_by = match before {
            Some(Self::Replay(replay)) => replay.seen_by,
            _ => None,
        };
        Self::Replay(Replay { seen_by, completing: true })
    }

    /// For a table that is copied anew under a snapshot.
    pub const fn not_seen_by(snapshot: VisibleIn) -> Self {
        Self::Replay(Replay { seen_by: Some(snapshot), completing: false })
    }

    /// How to treat a transaction whose commit ends at `end`, when the table is in step at `until`.
    pub fn treat(&self, until: Lsn, end: Lsn, xid: u32) -> Treatment {
        match self {
            _ if end > until => Treatment::Apply,
            Self::Behind => Treatment::Skip,
            Self::Replay(replay) if replay.seen_by.as_ref().is_some_and(|seen_by| seen_by.sees(xid)) => {
                Treatment::Skip
            }
            Self::Replay(replay) if replay.completing => Treatment::Complete,
            Self::Replay(_) => Treatment::Apply,
        }
    }

    /// Reads what [`fmt::Display`] wrote.
    ///
    /// # Errors
    ///
    /// When it is none of its texts.
    pub fn parse(text: &str) -> Result<Self, NoSnapshot> {
        if text == BEHIND {
            return Ok(Self::Behind);
        }
        let (snapshot, completing) = match text.strip_prefix(COMPLETING) {
            Some(rest) => (rest.trim_start(), true),
            None => (text, false),
        };
        let seen_by =
            if completing && snapshot.is_empty() { None } else { Some(VisibleIn::parse(snapshot)?) };
        Ok(Self::Replay(Replay { seen_by, completing }))
    }
}

const BEHIND: &str = "behind";
const COMPLETING: &str = "completing";

impl fmt::Display for CatchUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind => f.write_str(BEHIND),
            Self::Replay(Replay { seen_by: None, .. }) => f.write_str(COMPLETING),
            Self::Replay(Replay { seen_by: Some(seen_by), completing: false }) => seen_by.fmt(f),
            Self::Replay(Replay { seen_by: Some(seen_by), completing: true }) => {
                write!(f, "{COMPLETING} {seen_by}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_behind_the_position_are_applied_whatever_the_copy() {
        for text in ["behind", "completing", "5:7:6", "completing 5:7:6"] {
            let catch_up = CatchUp::parse(text).unwrap();
            assert_eq!(catch_up.to_string(), text);
            assert_eq!(catch_up.treat(Lsn(10), Lsn(11), 5), Treatment::Apply, "{text}");
        }
    }

    #[test]
    fn commits_up_to_the_position_are_treated_as_the_copy_was_made() {
        let treat = |text, xid| CatchUp::parse(text).unwrap().treat(Lsn(10), Lsn(10), xid);
        assert_eq!(treat("behind", 5), Treatment::Skip);
        assert_eq!(treat("completing", 5), Treatment::Complete);
        assert_eq!(treat("completing 5:7:6", 5), Treatment::Skip);
        assert_eq!(treat("completing 5:7:6", 6), Treatment::Complete);
        assert_eq!(treat("5:7:6", 5), Treatment::Skip);
        assert_eq!(treat("5:7:6", 6), Treatment::Apply);
    }

    #[test]
    fn table_begun_anew_keeps_its_snapshot_when_it_is_interrupted_again() {
        let before = CatchUp::parse("5:7:6").ok();
        assert_eq!(CatchUp::completing(before).to_string(), "completing 5:7:6");
        assert_eq!(CatchUp::completing(None).to_string(), "completing");
    }

    #[test]
    fn chunks_count_only_while_file_and_columns_are_the_same() {
        assert_eq!(Resumed::of(3, 3, false), Resumed::Whole);
        assert_eq!(Resumed::of(2, 3, true), Resumed::Kept);
        assert_eq!(Resumed::of(2, 3, false), Resumed::Restarted);
        assert_eq!(Resumed::of(0, 3, true), Resumed::Restarted);
        assert_eq!(Resumed::of(0, 0, true), Resumed::Restarted);
    }
}

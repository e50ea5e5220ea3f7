//! Options that are one word of a few: what to do in a case.

use crate::encode::OutOfRange;

/// A word of an option.
pub trait Choice: Copy + PartialEq + Sized + 'static {
    /// All words, the default first.
    const WORDS: &'static [(&'static str, Self)];

    /// The word of this choice.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, choice)| *choice == self).map_or("", |(word, _)| word)
    }
}

/// What a DELETE does at the target.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnDelete {
    /// The row goes.
    #[default]
    Delete,
    /// The row stays and is marked.
    Mark,
}

/// What becomes of a TRUNCATE, or of a changed definition.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnStatement {
    /// It is done at the target.
    #[default]
    Apply,
    /// The target stays as it is.
    Ignore,
    /// The table goes to state `e`.
    Error,
}

/// What becomes of a table with a row that the target refuses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnReject {
    /// The table goes to state `e`.
    #[default]
    Stop,
    /// The row is parked, the table goes on.
    Continue,
}

impl OnReject {
    /// So many bad rows of one load are looked for. With more of them the table goes to state `e` either way: the cause is
    /// hardly a row.
    pub const fn most_rows(self) -> usize {
        match self {
            Self::Stop => 100,
            Self::Continue => 1000,
        }
    }
}

/// What becomes of tables that are created later.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NewTables {
    /// Nothing.
    #[default]
    Ignore,
    /// They join a mirror of all tables.
    Add,
}

/// What the guard of the slot does when too much log is retained.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SlotGuardAction {
    /// Says so.
    #[default]
    Warn,
    /// Slows the copy.
    Throttle,
    /// Lets go of the slot.
    Release,
}

impl Choice for OnDelete {
    const WORDS: &'static [(&'static str, Self)] = &[("delete", Self::Delete), ("mark", Self::Mark)];
}

impl Choice for OnStatement {
    const WORDS: &'static [(&'static str, Self)] =
        &[("apply", Self::Apply), ("ignore", Self::Ignore), ("error", Self::Error)];
}

impl Choice for OutOfRange {
    const WORDS: &'static [(&'static str, Self)] =
        &[("error", Self::Error), ("null", Self::Null), ("clamp", Self::Clamp)];
}

impl Choice for OnReject {
    const WORDS: &'static [(&'static str, Self)] = &[("stop", Self::Stop), ("continue", Self::Continue)];
}

impl Choice for NewTables {
    const WORDS: &'static [(&'static str, Self)] = &[("ignore", Self::Ignore), ("add", Self::Add)];
}

impl Choice for SlotGuardAction {
    const WORDS: &'static [(&'static str, Self)] =
        &[("warn", Self::Warn), ("throttle", Self::Throttle), ("release", Self::Release)];
}

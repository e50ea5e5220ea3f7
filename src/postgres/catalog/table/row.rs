//! A row of `dbmazz.mirror_table`, and what else is read and written of a table.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::definition::AlterStep;
use crate::lsn::Lsn;
use crate::postgres::catalog::query::Row;
use crate::postgres::lsn_datum::LsnDatum;
use crate::snapshot::CatchUp;
use crate::table::TargetTable;

/// How far a table has come, in letters of `pg_subscription_rel`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum TableState {
    /// `i`: known, nothing done.
    Known,
    /// `d`: its rows are being copied.
    Copying,
    /// `s`: copied, catching up.
    CatchingUp,
    /// `r`: in step.
    Ready,
    /// `e`: in error; it keeps no changes.
    Error,
}

impl TableState {
    const ALL: [Self; 5] = [Self::Known, Self::Copying, Self::CatchingUp, Self::Ready, Self::Error];

    /// The letter of the table.
    pub(in crate::postgres) const fn letter(self) -> char {
        match self {
            Self::Known => 'i',
            Self::Copying => 'd',
            Self::CatchingUp => 's',
            Self::Ready => 'r',
            Self::Error => 'e',
        }
    }

    /// The state of a letter. The table allows no others than these.
    fn of(letter: i8) -> Self {
        Self::ALL.into_iter().find(|state| state.as_char() == letter).unwrap_or(Self::Error)
    }

    /// PostgreSQL's `"char"`.
    pub(super) const fn as_char(self) -> i8 {
        self.letter() as i8
    }
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct MirrorTableRow {
    /// The source.
    pub(in crate::postgres) relid: pg_sys::Oid,
    /// `schema.table` of the source, as far as the stream has come.
    pub(in crate::postgres) source_name: String,
    /// The same when it joined: the options of the mirror mean it by this name.
    pub(in crate::postgres) known_as: String,
    /// Where its rows go.
    pub(in crate::postgres) target: TargetTable,
    /// Whether pgoutput decodes it: row filter, column list, or operations left out.
    pub(in crate::postgres) filtered: bool,
    /// Whether its rows are those of its partitions.
    pub(in crate::postgres) is_partitioned: bool,
    /// What the publication said of it when its copy was wanted; none without one.
    pub(in crate::postgres) published: Option<String>,
    /// What the target was made for, by [`super::relation::definition`].
    pub(in crate::postgres) definition: Option<String>,
    /// How far it has come.
    pub(in crate::postgres) state: TableState,
    /// What the stream has to do for it, and up to where.
    pub(in crate::postgres) catch_up: Option<(Lsn, CatchUp)>,
    /// Where the definition begins.
    pub(in crate::postgres) defined_at: DefinedAt,
    /// How the relation was laid out there.
    pub(in crate::postgres) layout: Layout,
    /// What may not have been done at the target yet.
    pub(in crate::postgres) altering: Vec<AlterStep>,
    /// Where its rows are copied to, if not into the target.
    pub(in crate::postgres) copy: Option<CopyTable>,
}

/// A table that is filled beside the target, and takes its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct CopyTable {
    /// Its name.
    pub(in crate::postgres) table: String,
    /// What its comment says.
    pub(in crate::postgres) mark: String,
}

/// The first change that had a definition: the end of its transaction's commit, and its own place in the log. Changes are
/// decoded in this order, always the same; one before this belongs to an earlier definition.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::postgres) struct DefinedAt {
    /// Where the commit ends.
    pub(in crate::postgres) commit: Lsn,
    /// Where the change is.
    pub(in crate::postgres) change: Lsn,
}

/// What tells whether rows of a relation can have got values that no change shows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::postgres) struct Layout {
    /// Numbers of columns that were ever given.
    pub(in crate::postgres) natts: i16,
    /// Its file: another one after every rewrite.
    pub(in crate::postgres) file: pg_sys::Oid,
}

/// Another definition of a table, as it is written down before the target is altered.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct NewDefinition {
    /// The source.
    pub(in crate::postgres) relid: pg_sys::Oid,
    /// The definition.
    pub(in crate::postgres) definition: String,
    /// Where it begins.
    pub(in crate::postgres) at: DefinedAt,
    /// How the relation is laid out there.
    pub(in crate::postgres) layout: Layout,
    /// What has to be done at the target.
    pub(in crate::postgres) steps: String,
}

impl MirrorTableRow {
    /// Whether an earlier worker of this mirror has begun to copy it: rows at the target are the mirror's own.
    pub(in crate::postgres) const fn has_begun(&self) -> bool {
        self.definition.is_some()
    }

    /// Where the rows of its copy go.
    pub(in crate::postgres) fn copied_into(&self) -> TargetTable {
        match &self.copy {
            Some(copy) => TargetTable { table: copy.table.clone(), ..self.target.clone() },
            None => self.target.clone(),
        }
    }

    /// Whether it waits for a copy, or is in the midst of one.
    pub(in crate::postgres) fn wants_copy(&self) -> bool {
        matches!(self.state, TableState::Known | TableState::Copying)
    }
}

/// A table that joins a mirror.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct NewTable {
    /// The source.
    pub(in crate::postgres) relid: pg_sys::Oid,
    /// `schema.table` of the source.
    pub(in crate::postgres) source_name: String,
    /// Where its rows go.
    pub(in crate::postgres) target: TargetTable,
    /// Whether pgoutput decodes it.
    pub(in crate::postgres) filtered: bool,
    /// Whether its rows are those of its partitions.
    pub(in crate::postgres) is_partitioned: bool,
    /// What the publication says of it; none without one.
    pub(in crate::postgres) published: Option<String>,
}

/// How the tables of a mirror stand, as of now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) struct Standing {
    /// Some table is in error.
    pub(in crate::postgres) in_error: bool,
    /// Every table is in step.
    pub(in crate::postgres) all_ready: bool,
}

/// What has been done since the last time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::postgres) struct Counters {
    /// Rows inserted at the source.
    pub(in crate::postgres) inserts: u64,
    /// Rows updated at the source.
    pub(in crate::postgres) updates: u64,
    /// Rows deleted at the source.
    pub(in crate::postgres) deletes: u64,
    /// Times that the source was truncated.
    pub(in crate::postgres) truncates: u64,
    /// Rows loaded.
    pub(in crate::postgres) rows_loaded: u64,
    /// Bytes loaded, before compression.
    pub(in crate::postgres) bytes_loaded: u64,
}

/// Reads the columns that `list` asks for.
pub(super) fn from_row(row: &Row<'_>) -> MirrorTableRow {
    MirrorTableRow {
        relid: row.must(1),
        source_name: row.must(2),
        known_as: row.must(15),
        target: TargetTable { database: row.must(3), table: row.must(4) },
        filtered: row.must(5),
        is_partitioned: row.must(18),
        published: row.get(19),
        definition: row.get(6),
        state: TableState::of(row.must(7)),
        catch_up: row.get::<LsnDatum>(8).zip(row.get::<String>(9)).map(|(lsn, text)| {
            let catch_up = CatchUp::parse(&text).unwrap_or_else(|problem| error!("{problem}"));
            (lsn.0, catch_up)
        }),
        defined_at: DefinedAt {
            commit: row.get::<LsnDatum>(10).map_or(Lsn::INVALID, |lsn| lsn.0),
            change: row.get::<LsnDatum>(11).map_or(Lsn::INVALID, |lsn| lsn.0),
        },
        layout: Layout {
            natts: row.get(12).unwrap_or_default(),
            file: row.get(13).unwrap_or(pg_sys::InvalidOid),
        },
        copy: row.get(16).zip(row.get(17)).map(|(table, mark)| CopyTable { table, mark }),
        altering: row.get::<String>(14).map_or_else(Vec::new, |steps| {
            serde_json::from_str(&steps).unwrap_or_else(|problem| error!("could not read steps: {problem}"))
        }),
    }
}

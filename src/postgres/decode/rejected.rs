//! Rows that are refused: by the encoder when they come, by the target when their load comes back.
//!
//! With `on_reject = 'stop'` the table goes into error. Everything that came before is loaded, the other rows of the refused
//! load too. With `continue` the row is *parked*:
//!
//! * It is written down, and its key is remembered ([`Parked`]). The target keeps what it has of the key: an older row, or
//!   none.
//! * A later change that brings the whole row, or deletes it, is taken in as ever, and ends it. One that does not is read from
//!   the source (`incomplete`). What is written down goes when that is durable, not before: a worker that starts again must
//!   know that a partial update of this key has nothing to update.
//! * Rows of the key that were queued when the refusal came back are looked for ([`Later`]).
//!
//! What was refused is written down with the checkpoint that is the first to promise more.

use super::super::catalog::rejected;
use super::super::failpoint;
use super::feed::Feed;
use super::mirrored::Route;
use crate::encode::{Row, RowEncoder, ShownRow};
use crate::lsn::Lsn;
use crate::options::OnReject;
use crate::pipeline::{Bisected, Later, Parked, PushError, RejectedRow, TableIndex, TooManyParked};
use crate::sink::{Load, LoadError, Refusal};
use crate::table::TargetTable;

/// Rows without a key that are written down, of one table; others are counted.
const MOST_WITHOUT_KEY: u64 = 1000;
/// So much of rows is kept until a checkpoint can be written.
const MOST_BYTES: usize = 32 << 20;

/// Why a change cannot be taken in.
pub(super) enum Trouble {
    /// The table cannot go on.
    Table(String),
    /// This row cannot be sent to the target.
    Row(Box<RejectedRow>),
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self::Table(reason)
    }
}

impl Trouble {
    /// Of a change of `row` that the pipeline did not take in; those of its columns are told that it has.
    pub(super) fn of(
        problem: PushError,
        encoder: &RowEncoder,
        row: &impl Row,
        columns: std::ops::Range<usize>,
    ) -> Self {
        match problem {
            PushError::Encode(error) if error.is_of_row() => Self::Row(Box::new(RejectedRow {
                lsn: None,
                shown: encoder.shown_row(row, columns),
                reason: error.to_string(),
                is_delete: false,
            })),
            other => Self::Table(other.to_string()),
        }
    }

    /// Of a change of a row that the target could not find.
    pub(super) fn not_addressed(
        encoder: &RowEncoder,
        row: Option<&impl Row>,
        columns: std::ops::Range<usize>,
    ) -> Self {
        let mut shown = match row {
            Some(row) => encoder.shown_row(row, columns),
            None => ShownRow { key: None, values: "{}".to_owned() },
        };
        shown.key = None;
        Self::Row(Box::new(RejectedRow {
            lsn: None,
            shown,
            reason: NOT_ADDRESSED.to_owned(),
            is_delete: false,
        }))
    }
}

/// Why an UPDATE or DELETE of a table without a key cannot be done.
const NOT_ADDRESSED: &str = "a row was updated or deleted, and the table has no key by which the target could find it; \
                             give it a primary key and copy it again";

/// Rows of one table that were refused.
pub(super) struct RefusedRows {
    relid: u32,
    source_name: String,
    rows: Vec<RejectedRow>,
    /// The table goes on.
    is_parked: bool,
}

/// What is not rejected any more, once everything that committed up to `end` is durable.
pub(super) struct Mended {
    pub(super) relid: u32,
    pub(super) end: Lsn,
    /// Of one key, or everything from before.
    pub(super) key: Option<Box<[u8]>>,
}

/// News about rejected rows.
#[derive(Default)]
pub(super) struct RejectedNews {
    pub(super) refused: Vec<RefusedRows>,
    pub(super) mended: Vec<Mended>,
    /// Rows that are only counted, by table.
    unrecorded: Vec<(u32, u64)>,
    bytes: usize,
}

impl RejectedNews {
    /// Whether something can be written down with a checkpoint that promises so much.
    pub(super) fn is_due(&self, promised: Lsn) -> bool {
        self.mended.iter().any(|mended| mended.end <= promised)
    }

    /// Takes what can be.
    pub(super) fn take_due(&mut self, promised: Lsn) -> Self {
        let (due, later) = std::mem::take(&mut self.mended).into_iter().partition(|it| it.end <= promised);
        let taken = std::mem::take(self);
        self.mended = later;
        Self { mended: due, ..taken }
    }

    /// Writes it down. Inside the transaction of a checkpoint.
    pub(super) fn write_down(&self, mirror: &str) {
        for Mended { relid, end, key } in &self.mended {
            match key {
                Some(key) => rejected::forget(mirror, (*relid).into(), key),
                None => rejected::clear_before(mirror, (*relid).into(), *end),
            }
        }
        for RefusedRows { relid, source_name, rows, is_parked } in &self.refused {
            rows.iter().for_each(|row| rejected::record(mirror, (*relid).into(), row));
            if *is_parked {
                rejected::tell(mirror, (*relid).into(), source_name, rows.len());
            }
        }
        for (relid, rows) in &self.unrecorded {
            rejected::count_unrecorded(mirror, (*relid).into(), *rows);
        }
    }
}

/// The parked keys of a table while a change is taken in.
pub(super) struct Parking<'a> {
    pub(super) on_reject: OnReject,
    pub(super) parked: &'a mut Parked,
    pub(super) news: &'a mut RejectedNews,
    pub(super) relid: u32,
    /// Where the commit of the change ends.
    pub(super) end: Lsn,
}

impl Parking<'_> {
    /// Whether the target may have no row of this key to update.
    #[inline]
    pub(super) fn holds(&mut self, encoder: &RowEncoder, row: &impl Row) -> bool {
        self.parked.holds(encoder, row)
    }

    /// A whole row has been taken in, or the delete of one.
    #[inline]
    pub(super) fn mend(&mut self, encoder: &RowEncoder, row: &impl Row) {
        if let Some(key) = self.parked.release(encoder, row) {
            self.news.mended.push(Mended { relid: self.relid, end: self.end, key: Some(key) });
        }
    }
}

impl Feed {
    /// The change at hand cannot be taken in.
    #[cold]
    pub(super) fn take_trouble(&mut self, relid: u32, trouble: Trouble) {
        match trouble {
            Trouble::Table(reason) => self.stop_at_change(relid, reason),
            Trouble::Row(mut row) => {
                row.lsn = Some(self.stamp.lsn);
                let reason = row.reason.clone();
                match self.options.on_reject {
                    OnReject::Stop => {
                        self.note_refused(relid, vec![*row], OnReject::Stop);
                        self.stop_at_change(relid, reason);
                    }
                    OnReject::Continue => self.park(relid, vec![*row]),
                }
            }
        }
    }

    /// A load came back that is not at the target.
    pub(super) fn load_refused(&mut self, load: &Load, problem: &LoadError) {
        if let LoadError::Refused { refusal: Refusal::Rows, message, error_log, .. } = problem {
            let reason = reason_of(message, error_log.as_deref());
            self.pipeline.rows_refused(load, &reason, self.options.on_reject.most_rows());
            failpoint::hit("stream_load_cut");
            return self.take_bisected();
        }
        let refused = self.pipeline.refused(load.label.number);
        self.take_bisected();
        if let Some(refused) = refused {
            self.fail(refused.relid, format!("target table \"{}\": {problem}", load.shape.target));
        }
    }

    /// Loads whose bad rows are known by now.
    pub(super) fn take_bisected(&mut self) {
        for Bisected { table: index, relid, rejected, gave_up } in self.pipeline.take_bisected() {
            let Some(table) = self.tables.get(&relid) else { continue };
            let has_keys = rejected.iter().all(|row| row.shown.key.is_some());
            if self.options.on_reject == OnReject::Continue && !gave_up && has_keys {
                self.park_loaded(index, relid, rejected);
                continue;
            }
            let reason = told(&table.target, rejected.len(), gave_up);
            self.note_refused(relid, rejected, OnReject::Stop);
            self.fail(relid, reason);
        }
    }

    /// The target refused these rows. Others of their keys may have been queued behind them.
    fn park_loaded(&mut self, index: TableIndex, relid: u32, rows: Vec<RejectedRow>) {
        let keys = rows.iter().filter_map(|row| row.shown.key.as_deref());
        let later = self.pipeline.look_for_later(index, keys);
        let mut parked = Vec::new();
        for (row, later) in rows.into_iter().zip(later) {
            let Some(key) = row.shown.key.as_deref() else { continue };
            match later {
                Later::Replaced => continue,
                // The target cannot have a row of such a key.
                Later::Nothing if row.is_delete && is_too_long_a_key(&row.reason) => {
                    self.released(relid, key);
                    continue;
                }
                Later::Nothing => {}
                // Whose changes they were is not known. Commits become visible in about the order of the log, and the last
                // one that was begun is waited for.
                Later::Lacking(_) => {
                    let noted = self.incomplete.note(relid, (self.xid, self.stamp), |out| {
                        out.extend_from_slice(key);
                        Ok::<(), ()>(())
                    });
                    if let Ok(Err(_)) = noted {
                        return self.fail(relid, TOO_MANY.to_owned());
                    }
                }
            }
            parked.push(row);
        }
        self.park(relid, parked);
    }

    /// Writes rows down and remembers their keys; the table goes on, unless there are too many.
    fn park(&mut self, relid: u32, rows: Vec<RejectedRow>) {
        let Some(table) = self.tables.get_mut(&relid).filter(|table| table.usual_route != Route::Skip) else {
            return;
        };
        let news = &mut self.news.rejected;
        let (mut kept, mut is_too_many) = (Vec::new(), false);
        for row in rows {
            match &row.shown.key {
                None if table.unkeyed >= MOST_WITHOUT_KEY => {
                    match news.unrecorded.iter_mut().find(|(other, _)| *other == relid) {
                        Some((_, count)) => *count += 1,
                        None => news.unrecorded.push((relid, 1)),
                    }
                    continue;
                }
                None => table.unkeyed += 1,
                Some(key) => match table.parked.park(key, row.lsn.unwrap_or(Lsn::INVALID)) {
                    Ok(false) => continue,
                    Ok(true) => news.mended.retain(|it| it.relid != relid || it.key.as_ref() != Some(key)),
                    Err(TooManyParked) => is_too_many = true,
                },
            }
            news.bytes += row.shown.values.len();
            kept.push(row);
        }
        is_too_many |= news.bytes > MOST_BYTES;
        if !kept.is_empty() {
            self.note_refused(relid, kept, OnReject::Continue);
        }
        if is_too_many {
            self.fail(relid, TOO_MANY.to_owned());
        }
    }

    fn note_refused(&mut self, relid: u32, rows: Vec<RejectedRow>, on_reject: OnReject) {
        let Some(table) = self.tables.get(&relid).filter(|table| table.usual_route != Route::Skip) else {
            return;
        };
        let (source_name, is_parked) = (table.source_name.clone(), on_reject == OnReject::Continue);
        self.news.rejected.refused.push(RefusedRows { relid, source_name, rows, is_parked });
    }

    /// The row of a key is at the target as it is at the source, or will be.
    pub(super) fn released(&mut self, relid: u32, key: &[u8]) {
        if self.tables.get_mut(&relid).is_some_and(|table| table.parked.release_key(key)) {
            self.news.rejected.mended.push(Mended { relid, end: self.stamp.lsn, key: Some(key.into()) });
        }
    }

    /// A parked row is not at the source: it must not be at the target either.
    pub(in super::super) fn is_missing(&mut self, relid: u32, key: &[u8]) {
        let Some(index) = self.pipeline.table_of(relid) else { return };
        let Some(table) = self.tables.get(&relid).filter(|table| table.parked.has(key)) else { return };
        if table.columnar.as_ref().is_none_or(|columnar| columnar.spec.marks_deletes()) {
            // What the target has stays, and is marked by the delete that is still to come.
            return;
        }
        match self.pipeline.delete_key(index, key) {
            Ok(()) => self.released(relid, key),
            Err(problem) => self.fail(relid, problem.to_string()),
        }
    }

    /// Has all parked rows read from the source again. Between records.
    pub(in super::super) fn retry_parked(&mut self) {
        let Self { tables, incomplete, pipeline, xid, stamp, .. } = self;
        for (relid, table) in tables {
            for key in table.parked.keys() {
                let noted = incomplete.note(*relid, (*xid, *stamp), |out| {
                    out.extend_from_slice(key);
                    Ok::<(), ()>(())
                });
                // More than can be read at once are for the next try.
                if let Ok(Ok(())) = noted {
                    pipeline.hold();
                }
            }
        }
    }

    /// Whether everything is written down that is known about rejected rows.
    pub(in super::super) fn has_told_of_rejected(&self) -> bool {
        let news = &self.news.rejected;
        news.refused.is_empty() && news.mended.is_empty()
    }

    /// The target table has been emptied.
    pub(super) fn forget_rejected(&mut self, relid: u32) {
        let Some(table) = self.tables.get_mut(&relid) else { return };
        table.parked.clear();
        table.unkeyed = 0;
        let news = &mut self.news.rejected;
        news.refused.retain(|rows| rows.relid != relid);
        news.unrecorded.retain(|(other, _)| *other != relid);
        news.mended.retain(|mended| mended.relid != relid);
        news.mended.push(Mended { relid, end: self.stamp.lsn, key: None });
    }
}

/// What an administrator is told of rows that the target refused. Not what they are: not everybody who reads this may.
pub(in super::super) fn told(target: &TargetTable, rows: usize, gave_up: bool) -> String {
    match (rows, gave_up) {
        (1, false) => format!("target table \"{target}\" refused a row"),
        (rows, false) => format!("target table \"{target}\" refused {rows} rows"),
        (rows, true) => {
            format!("target table \"{target}\" refused {rows} rows of one load, and more were not looked for")
        }
    }
}

/// What the target said of rows: the line about one of them, if there is one.
pub(in super::super) fn reason_of(message: &str, error_log: Option<&str>) -> String {
    match error_log.and_then(|log| log.lines().find(|line| !line.trim().is_empty())) {
        Some(line) => format!("{message}: {}", line.trim()),
        None => message.to_owned(),
    }
}

fn is_too_long_a_key(reason: &str) -> bool {
    reason.to_ascii_lowercase().contains("primary key size exceed")
}

/// Why a table does not go on without its bad rows any more.
pub(in super::super) const TOO_MANY: &str = "more rows have been refused than are kept";

//! Finds the rows for which a load was refused, by loading it in parts.
//!
//! ```text
//! refused ─► first half ─┬─ visible ─► the second half has a bad row: it is halved without another try
//!                        └─ refused ─► halved again; later the second half, of which nothing is known
//! ```
//!
//! A part is a part of the same buffer: no row is copied. It gets a label of its own, and parts go in the order of their
//! rows, one after another. Nothing but a row that was refused alone is rejected, whatever the halves looked like: a load
//! that was too large for the target passes in parts. One bad row of `n` costs at most `2 log2(n) + 1` loads.
//!
//! When it ends, each row is visible or rejected, unless it gave up because too many rows were rejected. A process that ends
//! in between leaves loads whose labels are settled by the next one, which sends the same rows again.
//!
//! Driven by [`super::Pipeline`] for the stream, and by a snapshot worker for the copy.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::encode::{RowEncoder, ShownRow};
use crate::lsn::Lsn;
use crate::sink::{Label, Load, LoadShape};

/// A row that was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RejectedRow {
    /// The end of the commit that brought it; none for a row that was copied.
    pub lsn: Option<Lsn>,
    /// What it is.
    pub shown: ShownRow,
    /// Why it was refused, in the words of whoever did.
    pub reason: String,
    /// It was to be deleted at the target.
    pub is_delete: bool,
}

/// Where the commits end whose rows a buffer has: each with the end of its rows there.
#[derive(Clone, Debug, Default)]
pub(super) struct Commits(Vec<(u32, Lsn)>);

impl Commits {
    /// What they count for against the memory limit.
    pub(super) fn held_bytes(&self) -> usize {
        self.0.len() * size_of::<(u32, Lsn)>()
    }

    /// The rows up to `length` are of the commit that ends at `end`, or of earlier ones. Buffers stay below 4 GiB.
    pub(super) fn end_at(&mut self, length: usize, end: Lsn) {
        if self.0.last().is_none_or(|(last, _)| (*last as usize) < length) {
            self.0.push((length as u32, end));
        }
    }

    /// The end of the commit of the row that begins at `start`.
    fn of(&self, start: usize) -> Option<Lsn> {
        let index = self.0.partition_point(|(end, _)| *end as usize <= start);
        self.0.get(index).or(self.0.last()).map(|(_, lsn)| *lsn)
    }
}

/// A load that is sent in parts.
pub struct Bisection {
    encoder: Arc<RowEncoder>,
    shape: Arc<LoadShape>,
    buffer: Bytes,
    commits: Commits,
    /// What is not loaded yet, the next part last.
    parts: Vec<Part>,
    under_way: Option<Part>,
    rejected: Vec<RejectedRow>,
    most: usize,
}

/// Some rows of the load.
#[derive(Clone, Debug)]
struct Part {
    live: Vec<Range<usize>>,
    rows: u64,
    /// The part behind it is the other half of one that was refused.
    is_first_half: bool,
    /// It has a bad row, as far as anybody can tell.
    is_suspect: bool,
}

impl Bisection {
    /// For a load that was refused. It gives up when more than `most` rows are rejected.
    pub fn of(load: &Load, encoder: Arc<RowEncoder>, most: usize) -> Self {
        Self::with_commits(load, encoder, Commits::default(), most)
    }

    pub(super) fn with_commits(load: &Load, encoder: Arc<RowEncoder>, commits: Commits, most: usize) -> Self {
        let whole = Part { live: load.live.clone(), rows: load.rows, is_first_half: false, is_suspect: true };
        Self {
            encoder,
            shape: Arc::clone(&load.shape),
            buffer: load.buffer.clone(),
            commits,
            parts: Vec::new(),
            under_way: Some(whole),
            rejected: Vec::new(),
            most,
        }
    }

    /// Whether a part is still to be loaded.
    pub fn has_next(&self) -> bool {
        !self.gave_up() && !self.parts.is_empty()
    }

    /// Whether nothing is to be loaded any more, or under way.
    pub fn is_over(&self) -> bool {
        self.under_way.is_none() && !self.has_next()
    }

    /// Whether more rows were rejected than are wanted.
    pub fn gave_up(&self) -> bool {
        self.rejected.len() > self.most
    }

    /// The next part.
    pub fn next(&mut self, label: Label) -> Option<Load> {
        if !self.has_next() {
            return None;
        }
        while let Some(part) = self.parts.pop_if(|part| part.is_suspect && part.rows > 1) {
            self.halve(part);
        }
        let part = self.parts.pop()?;
        let load = Load {
            label,
            shape: Arc::clone(&self.shape),
            buffer: self.buffer.clone(),
            live: part.live.clone(),
            rows: part.rows,
        };
        self.under_way = Some(part);
        Some(load)
    }

    /// The part under way is visible.
    pub fn accepted(&mut self) {
        let was_first_half = self.under_way.take().is_some_and(|part| part.is_first_half);
        if let (true, Some(other)) = (was_first_half, self.parts.last_mut()) {
            other.is_suspect = true;
        }
    }

    /// The part under way was refused for its rows.
    pub fn refused(&mut self, reason: &str) {
        let Some(part) = self.under_way.take() else { return };
        if part.rows > 1 {
            return self.halve(part);
        }
        let lines = part.live.first().cloned().unwrap_or_default();
        let line = self.buffer.get(lines.clone()).unwrap_or_default();
        self.rejected.push(RejectedRow {
            lsn: self.commits.of(lines.start),
            shown: self.encoder.shown_line(line),
            reason: reason.to_owned(),
            is_delete: RowEncoder::is_delete(line),
        });
    }

    /// The rows that were rejected so far; once.
    pub fn take_rejected(&mut self) -> Vec<RejectedRow> {
        std::mem::take(&mut self.rejected)
    }

    fn halve(&mut self, part: Part) {
        let first_rows = part.rows / 2;
        let (first, second) = split(&self.buffer, part.live, first_rows);
        let rows = part.rows - first_rows;
        self.parts.push(Part { live: second, rows, is_first_half: false, is_suspect: false });
        self.parts.push(Part { live: first, rows: first_rows, is_first_half: true, is_suspect: false });
    }
}

/// Cuts lines behind the first `rows`.
fn split(buffer: &[u8], live: Vec<Range<usize>>, rows: u64) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut left = rows;
    for range in live {
        if left == 0 {
            second.push(range);
            continue;
        }
        let lines = buffer.get(range.clone()).unwrap_or_default();
        let mut end = range.start;
        for at in memchr::memchr_iter(b'\n', lines) {
            end = range.start + at + 1;
            left -= 1;
            if left == 0 {
                break;
            }
        }
        first.push(range.start..end);
        if end < range.end {
            second.push(end..range.end);
        }
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::encode::{ColumnSet, OutOfRange, Row, Value};
    use crate::table::{Column, Kind, SourceColumn, TableSpec, TargetTable};

    struct Id(i64);

    impl Row for Id {
        fn value(&self, _: usize) -> Value<'_> {
            Value::Int(self.0)
        }
    }

    fn encoder() -> Arc<RowEncoder> {
        let column = Column {
            source: SourceColumn { attnum: 1, name: "id".to_owned(), type_oid: 20, typmod: -1 },
            name: "id".to_owned(),
            kind: Kind::Int,
            target_type: "BIGINT".to_owned(),
        };
        let spec = TableSpec {
            relid: 1,
            source_name: "public.t".to_owned(),
            target: TargetTable { database: "d".to_owned(), table: "t".to_owned() },
            columns: vec![column],
            key_len: 1,
        };
        Arc::new(RowEncoder::new(&spec, &["id".to_owned()], OutOfRange::Error))
    }

    /// Rows 0 to `rows`; every third line of the buffer is of a row that was replaced.
    fn load(rows: i64) -> Load {
        let (encoder, mut buffer, mut live) = (encoder(), Vec::new(), Vec::<Range<usize>>::new());
        for row in 0..rows {
            if row % 3 == 1 {
                buffer.extend_from_slice(b"{\"id\":-1,\"__op\":0}\n");
            }
            let bytes = encoder.encode_row(&Id(row), &ColumnSet::ALL, &mut buffer).unwrap();
            match live.last_mut() {
                Some(last) if last.end == bytes.start => last.end = bytes.end,
                _ => live.push(bytes.start..bytes.end),
            }
        }
        let target = TargetTable { database: "d".to_owned(), table: "t".to_owned() };
        let shape = Arc::new(LoadShape { target, columns: "`id`,`__op`".to_owned(), partial: false });
        Load { label: label(0), shape, buffer: buffer.into(), live, rows: rows as u64 }
    }

    fn label(number: u64) -> Label {
        Label { mirror: "m".into(), incarnation: 1, number }
    }

    /// The rows of a body.
    fn ids(load: &Load) -> Vec<i64> {
        let body = String::from_utf8(load.body().collect::<Vec<_>>().concat()).unwrap();
        let id =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_i64().unwrap();
        body.lines().map(id).collect()
    }

    struct End {
        loaded: Vec<i64>,
        rejected: Vec<i64>,
        loads: u64,
        gave_up: bool,
    }

    /// Loads rows of which the bad ones are refused, and loads that are longer than `longest`.
    fn run(rows: i64, bad: &BTreeSet<i64>, longest: u64, most: usize) -> End {
        let mut bisection = Bisection::of(&load(rows), encoder(), most);
        let (mut loaded, mut loads) = (Vec::new(), 0);
        bisection.refused("too many filtered rows");
        while bisection.has_next() {
            loads += 1;
            let part = bisection.next(label(loads)).unwrap();
            let ids = ids(&part);
            assert_eq!(ids.len() as u64, part.rows);
            assert!(part.rows > 0);
            if part.rows > longest || ids.iter().any(|id| bad.contains(id)) {
                bisection.refused("bad");
            } else {
                bisection.accepted();
                loaded.extend(ids);
            }
        }
        assert!(bisection.is_over());
        let gave_up = bisection.gave_up();
        let rejected = bisection.take_rejected();
        let key = |row: &RejectedRow| String::from_utf8(row.shown.key.clone().unwrap().into_vec()).unwrap();
        let rejected = rejected.iter().map(|row| key(row)["{\"id\":".len()..].parse().unwrap()).collect();
        End { loaded, rejected, loads, gave_up }
    }

    #[test]
    fn one_bad_row_costs_few_loads_wherever_it_is() {
        for bad in [0, 1, 4999, 5000, 7777, 9998, 9999] {
            let end = run(10_000, &BTreeSet::from([bad]), u64::MAX, 1000);
            assert_eq!((end.rejected, end.loaded.len()), (vec![bad], 9999));
            assert!(end.loads <= 28, "{bad}: {} loads", end.loads);
        }
    }

    #[test]
    fn load_of_one_row_is_rejected_without_another_one() {
        let end = run(1, &BTreeSet::from([0]), u64::MAX, 10);
        assert_eq!((end.rejected, end.loads), (vec![0], 0));
    }

    #[test]
    fn load_that_is_too_large_passes_in_parts() {
        let end = run(1000, &BTreeSet::new(), 100, 10);
        assert!(end.rejected.is_empty());
        assert_eq!(end.loaded, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn bisection_of_bad_rows_only_ends_soon() {
        let end = run(100_000, &(0..100_000).collect(), u64::MAX, 10);
        assert!(end.gave_up && end.loaded.is_empty());
        assert_eq!(end.rejected, (0..=10).collect::<Vec<_>>());
        assert!(end.loads < 60, "{}", end.loads);
    }

    #[test]
    fn row_is_of_the_commit_that_its_place_lies_in() {
        let commits = Commits(vec![(10, Lsn(100)), (30, Lsn(200))]);
        assert_eq!([0, 9, 10, 29, 30].map(|at| commits.of(at).unwrap().0), [100, 100, 200, 200, 200]);
        assert_eq!(Commits::default().of(0), None);
    }

    proptest! {
        #[test]
        fn each_row_is_loaded_in_order_or_rejected(
            rows in 1..300_i64,
            bad in prop::collection::btree_set(0..300_i64, 0..20),
            longest in 1..400_u64,
        ) {
            let end = run(rows, &bad, longest, 1000);
            let expected: Vec<i64> = bad.iter().copied().filter(|id| *id < rows).collect();
            // A load that is refused must have had a reason.
            if !expected.is_empty() || (rows as u64) > longest {
                prop_assert_eq!(&end.rejected, &expected);
                prop_assert_eq!(end.loaded, (0..rows).filter(|id| !bad.contains(id)).collect::<Vec<_>>());
            }
        }
    }
}

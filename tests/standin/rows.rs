//! From the body of a load to checked rows: members are matched with columns, values converted, bad rows counted.

use std::ops::Range;

use crate::body::Body;
use crate::load_headers::Strictness;
use crate::ndjson::{Field, Shape, unescape};
use crate::plan::{Op, OpSource, Plan, Target};
use crate::scanner::Members;
use crate::values::{Cell, Misfit, Raw, binary, convert};

/// The longest encoded key.
const MAX_KEY_BYTES: usize = 128;
/// How many refused rows the error log of a load keeps.
const MAX_SAMPLES: usize = 50;

/// What a load came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tally {
    pub(crate) total: u64,
    pub(crate) filtered: u64,
    pub(crate) upserts: u64,
    pub(crate) deletes: u64,
    /// Bytes of the body without compression.
    pub(crate) body_bytes: u64,
    /// Complaints about rows, for the error log.
    pub(crate) samples: Vec<String>,
}

impl Tally {
    /// Rows that passed.
    pub(crate) fn loaded(&self) -> u64 {
        self.total - self.filtered
    }
}

/// Why a row is not loaded.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum RowError {
    /// The row is filtered.
    Filtered(String),
    /// The whole load fails.
    Fatal(String),
}

/// What takes the rows of a load.
pub(crate) trait RowSink {
    /// Takes one row.
    fn take(&mut self, op: Op, row: &RowView<'_>) -> Result<(), RowError>;
}

/// One row as its sink sees it.
pub(crate) struct RowView<'a> {
    pub(crate) plan: &'a Plan,
    window: &'a [u8],
    fields: &'a [Field],
    slots: &'a [usize],
}

const NOT_THERE: usize = usize::MAX;

impl<'a> RowView<'a> {
    /// The member for a source; `None` if the row lacks it.
    fn member(&self, source: usize) -> Option<&'a Field> {
        self.fields.get(*self.slots.get(source)?)
    }

    fn raw(&self, source: usize) -> Raw<'a> {
        let null = Raw { shape: Shape::Null, text: "" };
        let Some(field) = self.member(source) else { return null };
        let bytes = self.window.get(field.value.clone()).unwrap_or_default();
        // The body was checked piece by piece; a range of it cut at quotes and brackets is UTF-8 again.
        std::str::from_utf8(bytes).map_or(null, |text| Raw { shape: field.shape, text })
    }

    /// Whether the row has no value for a target.
    pub(crate) fn is_null(&self, target: &Target) -> bool {
        self.member(target.source).is_none_or(|field| field.shape == Shape::Null)
    }

    /// The value for a target, as it is stored.
    pub(crate) fn cell(&self, target: &Target) -> Result<Cell<'a>, RowError> {
        let Some(column) = self.plan.table.columns.get(target.column) else {
            return Err(RowError::Fatal("the plan names a column that the table does not have".into()));
        };
        let raw = self.raw(target.source);
        let converted = match target.binary {
            Some(format) => binary(raw, format, crate::typing::MAX_VARCHAR_BYTES as usize),
            None => convert(&column.ty, raw),
        };
        let cell = match (converted, self.plan.headers.strict) {
            (Ok(cell), _) => cell,
            (Err(Misfit::OutOfRange), Strictness::Lenient) => Cell::Null,
            (Err(Misfit::OutOfRange), Strictness::Strict) => {
                return Err(RowError::Filtered(format!(
                    "Value '{}' is out of range. The type of '{}' is {}",
                    raw.text, column.name, column.ty
                )));
            }
            (Err(Misfit::TooLong), _) => {
                let what = format!(
                    "Value length is beyond the capacity. column: {}, type: {}",
                    column.name, column.ty
                );
                return Err(RowError::Filtered(what));
            }
        };
        if cell == Cell::Null && !column.is_nullable {
            return Err(null_in(&column.name));
        }
        Ok(cell)
    }

    fn op(&self) -> Result<Op, RowError> {
        let source = match self.plan.op {
            OpSource::Constant(op) => return Ok(op),
            OpSource::Member(source) => source,
        };
        let Some(field) = self.member(source) else { return Ok(Op::Upsert) };
        match self.window.get(field.value.clone()) {
            _ if field.shape == Shape::Null => Err(null_in(crate::plan::OP)),
            Some(b"0") => Ok(Op::Upsert),
            Some(b"1") => Ok(Op::Delete),
            _ => match convert(&crate::typing::ColumnType::TinyInt, self.raw(source)) {
                Ok(Cell::Int(0)) => Ok(Op::Upsert),
                Ok(Cell::Int(_)) => Ok(Op::Delete),
                _ => Err(RowError::Filtered(
                    "Value of '__op' is out of range. The type of '__op' is tinyint".into(),
                )),
            },
        }
    }
}

/// The complaint about a NULL where none may be.
pub(crate) fn null_in(column: &str) -> RowError {
    RowError::Filtered(format!("NULL value in non-nullable column '{column}'"))
}

/// Fails when the encoded key is too long.
pub(crate) fn check_key(plan: &Plan, keys: &[Cell<'_>]) -> Result<(), RowError> {
    let mut bytes = 0;
    for (index, (column, cell)) in plan.table.keys().iter().zip(keys).enumerate() {
        let is_last = index + 1 == plan.table.key_columns;
        bytes += match cell {
            // All but the last text carry a terminator.
            Cell::Text(text) if matches!(column.ty, crate::typing::ColumnType::Varchar(_)) => {
                text.len() + if is_last { 0 } else { 2 }
            }
            _ => column.ty.fixed_key_bytes(),
        };
    }
    if bytes > MAX_KEY_BYTES {
        let message = format!("primary key size exceed the limit. key size: {bytes}, limit: {MAX_KEY_BYTES}");
        return Err(RowError::Fatal(message));
    }
    Ok(())
}

/// Finds the members that matter: for each source the index of its member.
fn match_members(plan: &Plan, window: &[u8], fields: &[Field], slots: &mut [usize]) {
    slots.fill(NOT_THERE);
    for (index, field) in fields.iter().enumerate() {
        let key = window.get(field.key.clone()).unwrap_or_default();
        // The first of two members of one name wins.
        if let Some(slot) = slots.get_mut(find_source(plan, key, field.key_is_escaped))
            && *slot == NOT_THERE
        {
            *slot = index;
        }
    }
}

fn find_source(plan: &Plan, key: &[u8], is_escaped: bool) -> usize {
    let mut unescaped = String::new();
    let key = if is_escaped {
        unescape(std::str::from_utf8(key).unwrap_or_default(), &mut unescaped);
        unescaped.as_bytes()
    } else {
        key
    };
    plan.sources.iter().position(|source| source.as_bytes() == key).unwrap_or(NOT_THERE)
}

/// Which rows a fault filters.
pub(crate) enum Refused {
    None,
    All,
    /// Rows whose text contains these bytes.
    Containing(Vec<u8>),
}

impl Refused {
    fn has(&self, row: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Containing(needle) => memchr::memmem::find(row, needle).is_some(),
        }
    }
}

/// Reads all rows of a body into a sink. The error, with the rows read so far, fails the load.
pub(crate) fn read_rows(
    plan: &Plan,
    body: &mut Body<'_>,
    refused: &Refused,
    sink: &mut impl RowSink,
) -> Result<Tally, (String, Tally)> {
    let mut tally = Tally::default();
    let mut slots = vec![NOT_THERE; plan.sources.len()];
    let mut fields = Vec::with_capacity(plan.sources.len());
    loop {
        let (row, members) = match body.next_row(&mut fields) {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(message) => return Err((message, tally)),
        };
        tally.total += 1;
        if members == Members::Other {
            match_members(plan, body.window(), &fields, &mut slots);
        }
        let view = RowView { plan, window: body.window(), fields: &fields, slots: &slots };
        match take(&view, row.clone(), refused, sink) {
            Ok(Op::Upsert) => tally.upserts += 1,
            Ok(Op::Delete) => tally.deletes += 1,
            Err(RowError::Filtered(reason)) => note(&mut tally, &reason, body.window(), row),
            Err(RowError::Fatal(message)) => return Err((message, tally)),
        }
    }
    tally.body_bytes = body.decompressed_bytes();
    Ok(tally)
}

#[inline]
fn take(
    view: &RowView<'_>,
    row: Range<usize>,
    refused: &Refused,
    sink: &mut impl RowSink,
) -> Result<Op, RowError> {
    if refused.has(view.window.get(row).unwrap_or_default()) {
        return Err(RowError::Filtered("the row is refused by a fault".into()));
    }
    let op = view.op()?;
    sink.take(op, view)?;
    Ok(op)
}

#[cold]
fn note(tally: &mut Tally, reason: &str, window: &[u8], row: Range<usize>) {
    tally.filtered += 1;
    if tally.samples.len() < MAX_SAMPLES {
        let text = String::from_utf8_lossy(window.get(row).unwrap_or_default());
        tally.samples.push(format!("Error: {reason}. Row: {text}"));
    }
}

/// Counts rows without keeping them; NULL in a key or another NOT NULL column is still noticed.
pub(crate) struct Counter {
    required: Vec<Target>,
}

impl Counter {
    /// A counter for the rows of a plan.
    pub(crate) fn new(plan: &Plan) -> Self {
        let is_required =
            |target: &&Target| plan.table.columns.get(target.column).is_some_and(|c| !c.is_nullable);
        Self { required: plan.targets.iter().filter(is_required).cloned().collect() }
    }
}

impl RowSink for Counter {
    #[inline]
    fn take(&mut self, _: Op, row: &RowView<'_>) -> Result<(), RowError> {
        match self.required.iter().find(|target| row.is_null(target)) {
            None => Ok(()),
            Some(target) => Err(null_in(
                row.plan.table.columns.get(target.column).map_or("", |column| column.name.as_str()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Compression;
    use crate::load_headers::BodyShape;
    use crate::plan::tests::{orders, plan_of};

    /// Keeps what it is given, as text.
    #[derive(Default)]
    struct Collector(Vec<String>);

    impl RowSink for Collector {
        fn take(&mut self, op: Op, row: &RowView<'_>) -> Result<(), RowError> {
            let cells: Result<Vec<_>, _> = row.plan.targets.iter().map(|target| row.cell(target)).collect();
            let cells = cells?;
            check_key(row.plan, &cells[..row.plan.table.key_columns])?;
            self.0.push(format!("{op:?} {cells:?}"));
            Ok(())
        }
    }

    fn load(headers: &[(&str, &str)], text: &str) -> Result<(Tally, Vec<String>), String> {
        let plan = plan_of(orders(), headers)?;
        let mut body = Body::new(text.as_bytes(), Compression::None, BodyShape::Objects, Vec::new());
        let mut rows = Collector::default();
        let tally = read_rows(&plan, &mut body, &Refused::None, &mut rows).map_err(|(message, _)| message)?;
        Ok((tally, rows.0))
    }

    const STRICT: (&str, &str) = ("strict_mode", "true");
    const COLUMNS: (&str, &str) = ("columns", "id,note,__op");

    #[test]
    fn first_of_two_members_wins_and_unknown_ones_are_ignored() {
        let (_, rows) = load(&[COLUMNS], r#"{"id":1,"id":2,"x":3,"note":"a","Note":"b"}"#).unwrap();
        assert_eq!(rows, [r#"Upsert [Int(1), Text("a")]"#]);
    }

    #[test]
    fn members_may_change_their_order_and_be_escaped() {
        let text = r#"{"id":1,"note":"a"}{"note":"b","id":2}{"\u0069d":3}"#;
        let (_, rows) = load(&[COLUMNS], text).unwrap();
        assert_eq!(
            rows,
            [r#"Upsert [Int(1), Text("a")]"#, r#"Upsert [Int(2), Text("b")]"#, "Upsert [Int(3), Null]"]
        );
    }

    #[test]
    fn op_tells_deletes_and_null_op_is_filtered() {
        let text =
            r#"{"id":1,"__op":1}{"id":2,"__op":0}{"id":3,"__op":null}{"id":4,"__op":"1"}{"id":5,"__op":300}"#;
        let (tally, _) = load(&[COLUMNS], text).unwrap();
        assert_eq!((tally.total, tally.upserts, tally.deletes, tally.filtered), (5, 1, 2, 2));
    }

    #[test]
    fn strict_mode_filters_what_lenient_mode_nulls() {
        let wrong = r#"{"id":1,"note":{}}{"id":"x","note":"a"}{"id":3,"note":"12345678901"}"#;
        let (lenient, _) = load(&[COLUMNS], wrong).unwrap();
        assert_eq!(lenient.filtered, 2);
        assert!(lenient.samples[0].contains("NULL value in non-nullable column 'id'"));
        assert!(lenient.samples[1].contains("beyond the capacity"));
        let (strict, _) = load(&[STRICT, COLUMNS], wrong).unwrap();
        assert!(strict.samples[0].contains("out of range. The type of 'id'"));
    }

    #[test]
    fn long_key_fails_the_whole_load() {
        let mut table = orders();
        table.columns.swap(0, 1);
        table.columns[0].ty = crate::typing::ColumnType::Varchar(1000);
        let plan = plan_of(table, &[("columns", "note,id")]).unwrap();
        let key = |bytes: usize| check_key(&plan, &[Cell::Text("x".repeat(bytes).into())]);
        assert_eq!(key(128), Ok(()));
        assert!(
            matches!(key(129), Err(RowError::Fatal(message)) if message.contains("primary key size exceed"))
        );
    }

    #[test]
    fn counter_notices_missing_keys() {
        let plan = plan_of(orders(), &[COLUMNS]).unwrap();
        let text = br#"{"id":1,"__op":1}{"note":"a"}{"id":2}"#;
        let mut body = Body::new(text, Compression::None, BodyShape::Objects, Vec::new());
        let tally = read_rows(&plan, &mut body, &Refused::None, &mut Counter::new(&plan)).unwrap();
        assert_eq!((tally.upserts, tally.deletes, tally.filtered), (1, 1, 1));
        assert_eq!(tally.body_bytes, text.len() as u64);
    }

    /// `cargo test --release --example starrocks_standin -- --ignored --nocapture speed`
    #[test]
    #[ignore = "a measurement"]
    fn speed_of_counting() {
        use std::io::Write;
        let mut text = String::new();
        for id in 0..1_000_000u64 {
            let note = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            text.push_str(&format!(
                "{{\"id\":{id},\"Note\":\"note {note:016x} of a row\",\"photo\":null,\"amount\":\"{}.{:02}\",\
                 \"at\":\"2026-11-20 01:02:03.{:06}\",\"__op\":0}}\n",
                id % 100_000,
                id % 100,
                id % 1_000_000
            ));
        }
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(text.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        let plan = plan_of(orders(), &[("columns", "id,Note,photo,__op")]).unwrap();
        for (name, bytes, compression) in
            [("plain", text.as_bytes(), Compression::None), ("lz4", packed.as_slice(), Compression::Lz4Frame)]
        {
            let mut buffer = Vec::new();
            for _ in 0..3 {
                let started = std::time::Instant::now();
                let mut body = Body::new(bytes, compression, BodyShape::Objects, buffer);
                let tally = read_rows(&plan, &mut body, &Refused::None, &mut Counter::new(&plan)).unwrap();
                buffer = body.into_buffer();
                let seconds = started.elapsed().as_secs_f64();
                #[expect(clippy::cast_precision_loss, reason = "a measurement")]
                let speed = tally.body_bytes as f64 / 1e6 / seconds;
                println!(
                    "{name}: {speed:.0} MB/s, {} rows in {seconds:.3} s, {} bytes packed",
                    tally.total,
                    bytes.len()
                );
            }
        }
    }
}

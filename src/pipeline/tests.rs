//! What the pipeline promises, change by change; `model` has random schedules.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    Change, CopyBatch, FlushInterval, LabelSequence, Limits, Pipeline, PushError, ShapeOf, TableCounters,
    TableError, TableIndex,
};
use crate::encode::{ColumnSet, OutOfRange, Row, RowEncoder, Value};
use crate::lsn::Lsn;
use crate::sink::{Load, LoadShape};
use crate::table::{Column, Kind, SourceColumn, TableSpec, TargetTable};

mod model;
mod refused;
mod room;

const NAMES: [&str; 4] = ["id", "version", "a", "b"];
const SECOND: Duration = Duration::from_secs(1);

/// `id` is the key, `version` always changes, `a` and `b` may be unchanged.
#[derive(Clone, Copy, Debug)]
struct TestRow {
    id: i64,
    version: i64,
    a: Option<i64>,
    b: Option<i64>,
}

impl Row for TestRow {
    fn value(&self, column: usize) -> Value<'_> {
        let toastable = |value: Option<i64>| value.map_or(Value::Unchanged, Value::Int);
        match column {
            0 => Value::Int(self.id),
            1 => Value::Int(self.version),
            2 => toastable(self.a),
            _ => toastable(self.b),
        }
    }
}

fn whole(id: i64, version: i64) -> TestRow {
    TestRow { id, version, a: Some(version), b: Some(version) }
}

fn encoder() -> Arc<RowEncoder> {
    let names = NAMES.map(str::to_owned);
    let column = |name: &String| Column {
        source: SourceColumn { attnum: 1, name: name.clone(), type_oid: 20, typmod: -1 },
        name: name.clone(),
        kind: Kind::Int,
        target_type: "BIGINT".to_owned(),
    };
    let spec = TableSpec {
        relid: 1,
        source_name: "public.t".to_owned(),
        target: target(),
        columns: names.iter().map(column).collect(),
        key_len: 1,
    };
    Arc::new(RowEncoder::new(&spec, &names, OutOfRange::Error))
}

fn target() -> TargetTable {
    TargetTable { database: "d".to_owned(), table: "t".to_owned() }
}

fn shapes() -> ShapeOf {
    Box::new(|columns| {
        let names: Vec<&str> = columns.iter(NAMES.len()).map(|column| NAMES[column]).collect();
        let columns_header = names.join(",") + ",__op";
        Ok(Arc::new(LoadShape { target: target(), columns: columns_header, partial: !columns.is_all() }))
    })
}

fn limits() -> Limits {
    Limits {
        batch_max_rows: 1000,
        batch_max_bytes: 1 << 20,
        batch_ample_bytes: 1 << 20,
        memory_limit: 1 << 24,
        flush_interval: FlushInterval::Fixed(SECOND),
    }
}

struct Bench {
    pipeline: Pipeline,
    labels: LabelSequence,
    table: TableIndex,
    begin: Instant,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let begin = Instant::now();
        let mut pipeline = Pipeline::new(limits, begin);
        let table = pipeline.add_table(1, encoder(), shapes()).unwrap();
        let mut labels = LabelSequence::new("m".into(), 1);
        labels.extend(u64::MAX);
        Self { pipeline, labels, table, begin }
    }

    fn upsert(&mut self, row: TestRow) {
        self.pipeline.upsert(self.table, Change::Update, &row).unwrap();
    }

    fn delete(&mut self, id: i64) {
        self.pipeline.delete(self.table, &whole(id, 0)).unwrap();
    }

    /// The mark carries the version alone.
    fn mark(&mut self, id: i64, version: i64) {
        let row = TestRow { id, version, a: None, b: None };
        self.pipeline.mark(self.table, &row).unwrap();
    }

    fn load(&mut self) -> Option<Load> {
        self.pipeline.next_load(&mut self.labels)
    }

    /// Seals and finishes everything; the bodies of the loads.
    fn bodies(&mut self) -> Vec<String> {
        self.pipeline.seal_all();
        let mut bodies = Vec::new();
        while let Some(load) = self.load() {
            bodies.push(body(&load));
            assert!(self.pipeline.finished(load.label.number).is_some());
        }
        bodies
    }
}

fn body(load: &Load) -> String {
    let body = String::from_utf8(load.body().collect::<Vec<_>>().concat()).unwrap();
    assert_eq!(body.lines().count() as u64, load.rows);
    assert_eq!(body.len(), load.body_bytes());
    body
}

fn line(id: i64, version: i64, a: i64, b: i64) -> String {
    format!("{{\"id\":{id},\"version\":{version},\"a\":{a},\"b\":{b},\"__op\":0}}\n")
}

#[test]
fn last_row_of_a_key_is_the_one_that_is_loaded() {
    let mut bench = Bench::new(limits());
    for (id, version) in [(1, 1), (2, 2), (1, 3), (3, 4)] {
        bench.upsert(whole(id, version));
    }
    bench.delete(2);
    let expected = line(1, 3, 3, 3) + &line(3, 4, 4, 4) + "{\"id\":2,\"__op\":1}\n";
    assert_eq!(bench.bodies(), [expected]);
}

#[test]
fn keys_of_which_one_begins_with_the_other_are_two_keys() {
    let mut bench = Bench::new(limits());
    bench.upsert(whole(1, 1));
    bench.upsert(whole(12, 2));
    assert_eq!(bench.bodies(), [line(1, 1, 1, 1) + &line(12, 2, 2, 2)]);
}

#[test]
fn batch_of_new_rows_is_one_range() {
    let mut bench = Bench::new(limits());
    (0..100).for_each(|id| bench.upsert(whole(id, 1)));
    bench.pipeline.seal_all();
    let load = bench.load().unwrap();
    assert_eq!(load.live, std::iter::once(0..load.buffer.len()).collect::<Vec<_>>());
}

#[test]
fn unchanged_value_is_filled_from_the_row_in_the_batch() {
    let mut bench = Bench::new(limits());
    bench.upsert(whole(1, 1));
    bench.upsert(TestRow { id: 1, version: 2, a: None, b: Some(2) });
    assert_eq!(bench.bodies(), [line(1, 2, 1, 2)]);
}

#[test]
fn unchanged_value_without_an_earlier_row_is_a_partial_update() {
    let mut bench = Bench::new(limits());
    bench.upsert(TestRow { id: 1, version: 2, a: None, b: Some(2) });
    bench.pipeline.seal_all();
    let load = bench.load().unwrap();
    assert_eq!((load.shape.columns.as_str(), load.shape.partial), ("id,version,b,__op", true));
    assert_eq!(body(&load), "{\"id\":1,\"version\":2,\"b\":2,\"__op\":0}\n");
}

#[test]
fn whole_and_partial_rows_in_turn_make_two_loads() {
    let mut bench = Bench::new(limits());
    for id in 0..100 {
        bench.upsert(whole(id, 1));
        bench.upsert(TestRow { id: 1000 + id, version: 1, a: None, b: Some(1) });
    }
    assert_eq!(bench.bodies().len(), 2);
}

#[test]
fn whole_row_replaces_the_partial_row_of_another_batch() {
    let mut bench = Bench::new(limits());
    bench.upsert(TestRow { id: 1, version: 1, a: None, b: Some(1) });
    bench.upsert(whole(1, 2));
    assert_eq!(bench.bodies(), [line(1, 2, 2, 2)]);
}

#[test]
fn mark_keeps_the_values_of_the_row_that_it_follows() {
    let mut bench = Bench::new(limits());
    bench.upsert(whole(1, 1));
    bench.mark(1, 2);
    assert_eq!(bench.bodies(), [line(1, 2, 1, 1)]);
}

#[test]
fn mark_of_a_row_that_was_sent_before_is_a_partial_update() {
    let mut bench = Bench::new(limits());
    bench.mark(1, 1);
    bench.upsert(whole(2, 1));
    bench.mark(3, 1);
    let marks = [1, 3].map(|id| format!("{{\"id\":{id},\"version\":1,\"__op\":0}}\n")).concat();
    assert_eq!(bench.bodies(), [marks, line(2, 1, 1, 1)]);
    assert_eq!(bench.pipeline.take_counters(bench.table).deletes, 2);
}

#[test]
fn row_that_comes_back_after_its_mark_is_whole() {
    let mut bench = Bench::new(limits());
    bench.mark(1, 1);
    bench.upsert(whole(1, 2));
    assert_eq!(bench.bodies(), [line(1, 2, 2, 2)]);
}

#[test]
fn mark_of_a_partial_row_keeps_what_that_carries() {
    let mut bench = Bench::new(limits());
    bench.upsert(TestRow { id: 1, version: 1, a: None, b: Some(1) });
    bench.mark(1, 2);
    assert_eq!(bench.bodies(), ["{\"id\":1,\"version\":2,\"b\":1,\"__op\":0}\n"]);
}

#[test]
fn replaced_row_of_another_batch_still_holds_back_the_checkpoint() {
    let mut bench = Bench::new(limits());
    bench.upsert(TestRow { id: 1, version: 1, a: None, b: Some(1) });
    bench.pipeline.commit(Lsn(10));
    bench.upsert(whole(1, 2));
    bench.pipeline.commit(Lsn(20));
    bench.pipeline.seal_all();
    let load = bench.load().unwrap();
    assert_eq!(bench.pipeline.durable_lsn(), Lsn(0));
    bench.pipeline.finished(load.label.number);
    assert_eq!(bench.pipeline.durable_lsn(), Lsn(20));
}

#[test]
fn partial_rows_of_one_key_with_other_columns_keep_their_order() {
    let mut bench = Bench::new(limits());
    bench.upsert(TestRow { id: 1, version: 1, a: None, b: Some(1) });
    bench.upsert(TestRow { id: 1, version: 2, a: Some(2), b: None });
    bench.upsert(TestRow { id: 1, version: 3, a: None, b: Some(3) });
    let bodies = bench.bodies();
    assert_eq!(
        bodies,
        [
            "{\"id\":1,\"version\":1,\"b\":1,\"__op\":0}\n",
            "{\"id\":1,\"version\":2,\"a\":2,\"__op\":0}\n",
            "{\"id\":1,\"version\":3,\"b\":3,\"__op\":0}\n",
        ]
    );
}

#[test]
fn table_with_too_many_open_batches_seals_them() {
    let mut bench = Bench::new(limits());
    for version in 1..20 {
        let (a, b) = if version % 2 == 0 { (None, Some(version)) } else { (Some(version), None) };
        bench.upsert(TestRow { id: 1, version, a, b });
    }
    assert!(bench.load().is_some());
    assert_eq!(bench.bodies().len(), 0, "the first load is still under way");
    bench.pipeline.finished(1).unwrap();
    assert_eq!(bench.bodies().len(), 18);
}

#[test]
fn unchanged_value_of_a_deleted_row_is_refused() {
    let mut bench = Bench::new(limits());
    bench.delete(1);
    let row = TestRow { id: 1, version: 2, a: None, b: Some(2) };
    let refused = bench.pipeline.upsert(bench.table, Change::Update, &row);
    assert!(matches!(refused, Err(PushError::UnchangedAfterDelete)));
}

#[test]
fn loads_of_one_table_go_one_after_another_and_others_in_parallel() {
    let mut bench = Bench::new(limits());
    let other = bench.pipeline.add_table(2, encoder(), shapes()).unwrap();
    bench.upsert(whole(1, 1));
    bench.pipeline.seal_table(bench.table);
    bench.upsert(whole(2, 2));
    bench.pipeline.seal_table(bench.table);
    bench.pipeline.upsert(other, Change::Insert, &whole(3, 3)).unwrap();
    bench.pipeline.seal_table(other);

    let first = bench.load().unwrap();
    let second = bench.load().unwrap();
    assert_eq!((body(&first), body(&second)), (line(1, 1, 1, 1), line(3, 3, 3, 3)));
    assert!(bench.load().is_none());
    bench.pipeline.finished(first.label.number).unwrap();
    assert_eq!(bench.load().map(|load| body(&load)), Some(line(2, 2, 2, 2)));
}

#[test]
fn no_load_is_lost_when_labels_run_out() {
    let mut bench = Bench::new(limits());
    bench.labels = LabelSequence::new("m".into(), 1);
    bench.upsert(whole(1, 1));
    bench.pipeline.seal_all();
    assert!(bench.load().is_none());
    bench.labels.extend(1);
    assert!(bench.load().is_some());
}

#[test]
fn flush_clock_starts_at_the_commit() {
    let mut bench = Bench::new(limits());
    bench.upsert(whole(1, 1));
    bench.pipeline.tick(bench.begin + SECOND * 10);
    assert_eq!((bench.pipeline.seal_due(), bench.pipeline.next_deadline()), (0, None));
    bench.pipeline.commit(Lsn(10));
    assert_eq!(bench.pipeline.next_deadline(), Some(bench.begin + SECOND * 11));
    assert_eq!(bench.pipeline.seal_due(), 0);
    bench.pipeline.tick(bench.begin + SECOND * 11);
    assert_eq!((bench.pipeline.seal_due(), bench.pipeline.next_deadline()), (1, None));
}

#[test]
fn clock_starts_for_the_rows_after_one_that_was_refused() {
    let mut bench = Bench::new(limits());
    let refused = TestRow { id: 1, version: 1, a: None, b: Some(1) };
    bench.delete(1);
    bench.pipeline.commit(Lsn(10));
    bench.pipeline.seal_all();
    bench.delete(1);
    assert!(bench.pipeline.upsert(bench.table, Change::Update, &refused).is_err());
    bench.upsert(whole(2, 2));
    bench.pipeline.commit(Lsn(20));
    let load = bench.load().unwrap();
    bench.pipeline.finished(load.label.number);
    assert!(bench.pipeline.next_deadline().is_some());
}

#[test]
fn table_with_a_load_under_way_collects_until_it_is_finished() {
    let mut bench = Bench::new(limits());
    bench.upsert(whole(1, 1));
    bench.pipeline.seal_all();
    let load = bench.load().unwrap();
    bench.upsert(whole(2, 2));
    bench.pipeline.commit(Lsn(10));
    bench.pipeline.tick(bench.begin + SECOND * 2);
    assert_eq!((bench.pipeline.seal_due(), bench.pipeline.next_deadline()), (0, None));
    bench.pipeline.finished(load.label.number);
    assert_eq!(bench.pipeline.next_deadline(), Some(bench.begin + SECOND));
    assert_eq!(bench.pipeline.seal_due(), 1);
}

#[test]
fn removed_table_holds_nothing_back_but_its_load_under_way() {
    let mut bench = Bench::new(limits());
    bench.upsert(whole(1, 1));
    bench.pipeline.commit(Lsn(10));
    bench.pipeline.seal_all();
    let load = bench.load().unwrap();
    bench.upsert(whole(2, 2));
    bench.pipeline.commit(Lsn(20));
    bench.pipeline.seal_all();
    bench.upsert(whole(3, 3));
    bench.pipeline.commit(Lsn(30));

    assert_eq!(bench.pipeline.remove_table(bench.table), 2);
    assert_eq!(bench.pipeline.durable_lsn(), Lsn(0));
    assert!(matches!(bench.pipeline.add_table(1, encoder(), shapes()), Err(TableError::InUse)));
    let late = bench.pipeline.upsert(bench.table, Change::Insert, &whole(4, 4));
    assert!(matches!(late, Err(PushError::Removed)));
    assert_eq!(bench.pipeline.finished(load.label.number).map(|it| it.rows), Some(1));
    assert_eq!((bench.pipeline.durable_lsn(), bench.pipeline.queued_bytes()), (Lsn(30), 0));
    assert!(bench.pipeline.add_table(1, encoder(), shapes()).is_ok());
}

#[test]
fn refused_load_takes_its_table_with_it() {
    let mut bench = Bench::new(limits());
    bench.upsert(whole(1, 1));
    bench.pipeline.commit(Lsn(10));
    bench.pipeline.seal_all();
    let load = bench.load().unwrap();
    bench.upsert(whole(2, 1));
    assert_eq!(bench.pipeline.refused(load.label.number).map(|it| it.relid), Some(1));
    assert_eq!((bench.pipeline.table_of(1), bench.pipeline.is_idle()), (None, true));
}

#[test]
fn replaced_table_loads_its_open_rows_in_the_old_shape() {
    let mut bench = Bench::new(limits());
    bench.upsert(whole(1, 1));
    let shape_of: ShapeOf =
        Box::new(|_| Ok(Arc::new(LoadShape { target: target(), columns: "new".to_owned(), partial: false })));
    bench.pipeline.replace_table(bench.table, encoder(), shape_of).unwrap();
    bench.upsert(whole(2, 2));
    bench.pipeline.seal_all();
    let old = bench.load().unwrap();
    assert_eq!(old.shape.columns, "id,version,a,b,__op");
    bench.pipeline.finished(old.label.number);
    assert_eq!(bench.load().map(|load| load.shape.columns.clone()), Some("new".to_owned()));
}

#[test]
fn counters_are_taken_once() {
    let mut bench = Bench::new(limits());
    bench.pipeline.upsert(bench.table, Change::Insert, &whole(1, 1)).unwrap();
    bench.upsert(whole(1, 2));
    bench.delete(7);
    bench.pipeline.count_truncate(bench.table);
    let bytes = bench.bodies().concat().len() as u64;
    let counters = bench.pipeline.take_counters(bench.table);
    assert_eq!(
        counters,
        TableCounters {
            inserts: 1,
            updates: 1,
            deletes: 1,
            truncates: 1,
            loads: 1,
            rows_loaded: 2,
            bytes_loaded: bytes,
        }
    );
    assert_eq!(bench.pipeline.take_counters(bench.table), TableCounters::NONE);
}

#[test]
fn shape_that_cannot_be_made_refuses_the_row_alone() {
    let mut bench = Bench::new(limits());
    let only_whole: ShapeOf = Box::new(|columns: &ColumnSet| {
        if columns.is_all() { shapes()(columns) } else { Err("the columns header is too long".into()) }
    });
    bench.table = bench.pipeline.add_table(2, encoder(), only_whole).unwrap();
    let partial = TestRow { id: 1, version: 1, a: None, b: Some(1) };
    let refused = bench.pipeline.upsert(bench.table, Change::Update, &partial);
    assert!(matches!(refused, Err(PushError::Shape(_))));
    bench.upsert(whole(1, 1));
    assert_eq!(bench.bodies(), [line(1, 1, 1, 1)]);
}

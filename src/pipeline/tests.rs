//! What the pipeline promises, change by change, and against a model with random schedules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{
    Change, CopyBatch, FlushInterval, LabelSequence, Limits, Pipeline, PushError, ShapeOf, TableCounters,
    TableError, TableIndex,
};
use crate::encode::{ColumnSet, OutOfRange, Row, RowEncoder, Value};
use crate::lsn::Lsn;
use crate::sink::{Load, LoadShape};
use crate::table::{Column, Kind, SourceColumn, TableSpec, TargetTable};

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
fn batch_is_sealed_when_it_is_full() {
    let by_rows = Limits { batch_max_rows: 10, ..limits() };
    let by_bytes = Limits { batch_max_bytes: 400, ..limits() };
    for limits in [by_rows, by_bytes] {
        let mut bench = Bench::new(limits);
        let sealed = (0..20).position(|id| {
            bench.upsert(whole(id, 1));
            bench.load().is_some()
        });
        assert!(sealed.is_some_and(|rows| (5..10).contains(&rows)), "{sealed:?}");
    }
}

#[test]
fn row_that_would_make_the_load_too_long_begins_the_next_one() {
    let spec_names = ["id".to_owned(), "text".to_owned()];
    let mut spec = TableSpec {
        relid: 1,
        source_name: "public.t".to_owned(),
        target: target(),
        columns: Vec::new(),
        key_len: 1,
    };
    for (name, kind) in spec_names.iter().zip([Kind::Int, Kind::Json]) {
        let source = SourceColumn { attnum: 1, name: name.clone(), type_oid: 1, typmod: -1 };
        spec.columns.push(Column { source, name: name.clone(), kind, target_type: "JSON".to_owned() });
    }
    struct Wide<'a>(i64, &'a [u8]);
    impl Row for Wide<'_> {
        fn value(&self, column: usize) -> Value<'_> {
            if column == 0 { Value::Int(self.0) } else { Value::Json(self.1) }
        }
    }
    let document = format!("\"{}\"", "x".repeat(16_000_000));
    let encoder = Arc::new(RowEncoder::new(&spec, &spec_names, OutOfRange::Error));
    let mut bench = Bench::new(Limits { batch_max_bytes: 92_000_000, ..limits() });
    bench.table = bench.pipeline.add_table(2, Arc::clone(&encoder), shapes()).unwrap();
    let shape = Arc::new(LoadShape { target: target(), columns: String::new(), partial: false });
    let mut copy = CopyBatch::new(encoder, shape, u64::MAX, 92_000_000);
    for id in 0..6 {
        let row = Wide(id, document.as_bytes());
        bench.pipeline.upsert(bench.table, Change::Insert, &row).unwrap();
        copy.push(&row).unwrap();
    }
    assert!(copy.is_full());
    assert_eq!(bench.load().map(|load| load.rows), Some(5));
    assert_eq!(copy.seal(|| bench.labels.take()).map(|load| load.rows), Some(5));
    assert_eq!(copy.seal(|| bench.labels.take()).map(|load| load.rows), Some(1));
    assert!(copy.seal(|| bench.labels.take()).is_none());
    assert_eq!(bench.pipeline.queued_bytes() / 1_000_000, 96);
}

#[test]
fn buffer_of_a_finished_load_is_kept_unless_somebody_has_it() {
    for keep in [None, Some(())] {
        let mut bench = Bench::new(limits());
        bench.upsert(whole(1, 1));
        bench.pipeline.seal_all();
        let load = bench.load().unwrap();
        let number = load.label.number;
        let kept = keep.map(|()| load);
        bench.pipeline.finished(number).unwrap();
        let spare = bench.pipeline.shared.spare.take_buffer();
        assert_eq!((spare.is_empty(), spare.capacity() > 0), (true, kept.is_none()));
    }
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
fn memory_is_free_again_when_loads_are_finished() {
    let mut bench = Bench::new(Limits { memory_limit: 2000, ..limits() });
    for id in 0..100 {
        if !bench.pipeline.has_room() {
            break;
        }
        bench.upsert(whole(id, 1));
    }
    assert!(!bench.pipeline.has_room());
    assert!((2000..2100).contains(&bench.pipeline.queued_bytes()));
    bench.bodies();
    assert_eq!((bench.pipeline.queued_bytes(), bench.pipeline.is_idle()), (0, true));
}

#[test]
fn room_is_ample_when_half_of_the_memory_is_free() {
    let mut bench = Bench::new(Limits { memory_limit: 2000, ..limits() });
    for id in 0..100 {
        if !bench.pipeline.has_room() {
            break;
        }
        // A small load at first, then one that fills the memory.
        bench.upsert(whole(id, 1));
        if id == 0 {
            bench.pipeline.seal_all();
        }
    }
    bench.pipeline.seal_all();
    let small = bench.load().unwrap().label.number;
    bench.pipeline.finished(small);
    assert!(bench.pipeline.has_room() && !bench.pipeline.has_ample_room());
    let large = bench.load().unwrap().label.number;
    bench.pipeline.finished(large);
    assert!(bench.pipeline.has_ample_room());
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

/// A step of a random schedule. Numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
enum Step {
    /// A row of a table and key; for a row that exists, whether `a` and `b` are unchanged.
    Upsert(usize, i64, bool, bool),
    Delete(usize, i64),
    Commit,
    DecodedTo,
    Tick(u64),
    SealDue,
    SealTable(usize),
    SealAll,
    NextLoad,
    Finish(usize),
    Refuse(usize),
    Remove(usize),
}

const TABLES: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let table = 0..TABLES;
    prop_oneof![
        200 => (table.clone(), 0..8_i64, any::<bool>(), any::<bool>())
            .prop_map(|(table, id, a, b)| Step::Upsert(table, id, a, b)),
        50 => (table.clone(), 0..8_i64).prop_map(|(table, id)| Step::Delete(table, id)),
        60 => Just(Step::Commit),
        20 => Just(Step::DecodedTo),
        30 => (0..800_u64).prop_map(Step::Tick),
        40 => Just(Step::SealDue),
        10 => table.clone().prop_map(Step::SealTable),
        5 => Just(Step::SealAll),
        60 => Just(Step::NextLoad),
        50 => (0..8_usize).prop_map(Step::Finish),
        1 => (0..8_usize).prop_map(Step::Refuse),
        1 => table.prop_map(Step::Remove),
    ]
}

/// A row as the source and the target have it: version, a, b.
type Stored = (i64, i64, i64);

/// The source, the target, and what each of them is owed.
struct Model {
    pipeline: Pipeline,
    labels: LabelSequence,
    tables: Vec<TableIndex>,
    removed: BTreeSet<usize>,
    source: Vec<BTreeMap<i64, Stored>>,
    target: Vec<BTreeMap<i64, Stored>>,
    /// Per table and key, the versions of its changes and the commits that they belong to.
    changes: Vec<BTreeMap<i64, Vec<(i64, u64)>>>,
    /// Per table and key, the newest version that was loaded, deletes included.
    loaded: Vec<BTreeMap<i64, i64>>,
    flying: Vec<(usize, Load)>,
    version: i64,
    /// The end of the transaction that is open or comes next.
    transaction: u64,
    open: bool,
    now: Instant,
}

impl Model {
    fn new() -> Self {
        let now = Instant::now();
        let limits = Limits {
            batch_max_rows: 6,
            batch_max_bytes: 600,
            memory_limit: 5000,
            flush_interval: FlushInterval::Adaptive(SECOND),
        };
        let mut pipeline = Pipeline::new(limits, now);
        let tables =
            (0..TABLES).map(|n| pipeline.add_table(n as u32, encoder(), shapes()).unwrap()).collect();
        let mut labels = LabelSequence::new("m".into(), 1);
        labels.extend(u64::MAX);
        Self {
            pipeline,
            labels,
            tables,
            removed: BTreeSet::new(),
            source: vec![BTreeMap::new(); TABLES],
            target: vec![BTreeMap::new(); TABLES],
            changes: vec![BTreeMap::new(); TABLES],
            loaded: vec![BTreeMap::new(); TABLES],
            flying: Vec::new(),
            version: 0,
            transaction: 10,
            open: false,
            now,
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Upsert(table, id, a, b) => self.upsert(table, id, a, b),
            Step::Delete(table, id) => self.delete(table, id),
            Step::Commit => {
                self.pipeline.commit(Lsn(self.transaction));
                self.transaction += 10;
                self.open = false;
            }
            Step::DecodedTo => self.pipeline.decoded_to(Lsn(self.transaction - 5)),
            Step::Tick(millis) => {
                self.now += Duration::from_millis(millis);
                self.pipeline.tick(self.now);
            }
            Step::SealDue => drop(self.pipeline.seal_due()),
            Step::SealTable(table) => drop(self.pipeline.seal_table(self.tables[table])),
            Step::SealAll => drop(self.pipeline.seal_all()),
            Step::NextLoad => self.next_load(),
            Step::Finish(which) => self.finish(which),
            Step::Refuse(which) if !self.flying.is_empty() => {
                let (table, load) = self.flying.remove(which % self.flying.len());
                self.pipeline.refused(load.label.number).unwrap();
                self.removed.insert(table);
            }
            Step::Remove(table) => {
                self.pipeline.remove_table(self.tables[table]);
                self.removed.insert(table);
            }
            Step::Refuse(_) => {}
        }
    }

    fn changed(&mut self, table: usize, id: i64) {
        self.open = true;
        self.changes[table].entry(id).or_default().push((self.version, self.transaction));
    }

    fn upsert(&mut self, table: usize, id: i64, a: bool, b: bool) {
        if self.removed.contains(&table) {
            return;
        }
        self.version += 1;
        let version = self.version;
        let before = self.source[table].get(&id).copied();
        let column = |unchanged: bool| if unchanged && before.is_some() { None } else { Some(version) };
        let row = TestRow { id, version, a: column(a), b: column(b) };
        self.pipeline.upsert(self.tables[table], Change::Update, &row).unwrap();
        let (_, old_a, old_b) = before.unwrap_or_default();
        self.source[table].insert(id, (version, row.a.unwrap_or(old_a), row.b.unwrap_or(old_b)));
        self.changed(table, id);
    }

    fn delete(&mut self, table: usize, id: i64) {
        if self.removed.contains(&table) || self.source[table].remove(&id).is_none() {
            return;
        }
        self.version += 1;
        self.pipeline.delete(self.tables[table], &whole(id, 0)).unwrap();
        self.changed(table, id);
    }

    fn next_load(&mut self) {
        let Some(load) = self.pipeline.next_load(&mut self.labels) else { return };
        assert!(load.rows > 0 && load.rows == body(&load).lines().count() as u64);
        // The table is found by what the load is of: the only one that is not flying yet and has this front batch.
        let table = self.table_of(&load);
        assert!(self.flying.iter().all(|(other, _)| *other != table), "two loads of a table at a time");
        self.flying.push((table, load));
    }

    /// The table that a load is of. Versions are unique, deletes are told by the pipeline's own bookkeeping.
    fn table_of(&self, load: &Load) -> usize {
        let in_flight = &self.pipeline.in_flight[&load.label.number];
        self.tables.iter().position(|table| *table == in_flight.table).unwrap()
    }

    fn finish(&mut self, which: usize) {
        if self.flying.is_empty() {
            return;
        }
        let (table, load) = self.flying.remove(which % self.flying.len());
        let mut keys = BTreeSet::new();
        for line in body(&load).lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let id = row["id"].as_i64().unwrap();
            assert!(keys.insert(id), "two rows of a key in one load");
            self.load_row(table, id, &row, load.shape.partial);
        }
        self.pipeline.finished(load.label.number).unwrap();
    }

    fn load_row(&mut self, table: usize, id: i64, row: &serde_json::Value, partial: bool) {
        let history = &self.changes[table][&id];
        let before = self.loaded[table].get(&id).copied().unwrap_or(0);
        if row["__op"] == 1 {
            // A delete has no version: it is the first change after what is there that no upsert wrote, or later. The
            // final comparison catches one that is wrong.
            self.target[table].remove(&id);
            let next = history.iter().map(|(version, _)| *version).find(|version| *version > before);
            self.loaded[table].insert(id, next.unwrap_or(before));
            return;
        }
        let version = row["version"].as_i64().unwrap();
        assert!(version > before, "an older row after a newer one");
        let old = self.target[table].get(&id).copied();
        assert!(!partial || old.is_some(), "a partial update of a row that is not there");
        let (_, a, b) = old.unwrap_or_default();
        let column = |name: &str, old: i64| row[name].as_i64().unwrap_or(old);
        assert!(partial || row["a"].is_i64() && row["b"].is_i64());
        self.target[table].insert(id, (version, column("a", a), column("b", b)));
        self.loaded[table].insert(id, version);
    }

    /// Every upsert that committed up to the durable position is at the target, or a later change of its key is.
    fn check_durable(&self) {
        let durable = self.pipeline.durable_lsn().0;
        for table in (0..TABLES).filter(|table| !self.removed.contains(table)) {
            for (id, history) in &self.changes[table] {
                let owed =
                    history.iter().filter(|(_, commit)| *commit <= durable).map(|(version, _)| *version);
                let loaded = self.loaded[table].get(id).copied().unwrap_or(0);
                let owed = owed.max().unwrap_or(0);
                // A delete counts as the earliest change that it can be, so it may look older than it is; then the row
                // must be gone.
                assert!(
                    loaded >= owed || !self.target[table].contains_key(id),
                    "table {table} key {id}: {owed} is durable at {durable}, {loaded} is loaded"
                );
            }
        }
    }

    fn drain(&mut self) {
        if self.open {
            self.apply(&Step::Commit);
        }
        self.pipeline.seal_all();
        while !self.pipeline.is_idle() {
            self.next_load();
            self.finish(0);
        }
        assert_eq!(self.pipeline.queued_bytes(), 0);
        assert_eq!(self.pipeline.next_deadline(), None);
        self.pipeline.decoded_to(Lsn(self.transaction));
        assert_eq!(self.pipeline.durable_lsn(), Lsn(self.transaction));
        for table in (0..TABLES).filter(|table| !self.removed.contains(table)) {
            assert_eq!(self.target[table], self.source[table], "table {table}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// However batches are cut and loads finish, the target converges, and the durable position keeps its promise at
    /// every step.
    #[test]
    fn target_is_the_source_and_the_checkpoint_never_lies(steps in prop::collection::vec(step(), 0..400)) {
        let mut model = Model::new();
        for step in &steps {
            model.apply(step);
            model.check_durable();
        }
        model.drain();
        model.check_durable();
    }
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

//! Random schedules against a model of source and target.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

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
/// The table whose deleted rows stay, marked.
const MARKED: usize = 2;

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
    /// Keys of [`MARKED`] that are marked: only a whole row comes for one.
    marked: BTreeSet<i64>,
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
            batch_ample_bytes: 400,
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
            marked: BTreeSet::new(),
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
        let is_back = table == MARKED && self.marked.remove(&id);
        let before = self.source[table].get(&id).copied().filter(|_| !is_back);
        let column = |unchanged: bool| if unchanged && before.is_some() { None } else { Some(version) };
        let row = TestRow { id, version, a: column(a), b: column(b) };
        self.pipeline.upsert(self.tables[table], Change::Update, &row).unwrap();
        let (_, old_a, old_b) = before.unwrap_or_default();
        self.source[table].insert(id, (version, row.a.unwrap_or(old_a), row.b.unwrap_or(old_b)));
        self.changed(table, id);
    }

    /// A mark leaves all but the version as it was.
    fn mark(&mut self, id: i64) {
        if self.removed.contains(&MARKED) || self.marked.contains(&id) {
            return;
        }
        let Some(row) = self.source[MARKED].get_mut(&id) else { return };
        self.version += 1;
        row.0 = self.version;
        let mark = TestRow { id, version: self.version, a: None, b: None };
        self.pipeline.mark(self.tables[MARKED], &mark).unwrap();
        self.marked.insert(id);
        self.changed(MARKED, id);
    }

    fn delete(&mut self, table: usize, id: i64) {
        if table == MARKED {
            return self.mark(id);
        }
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

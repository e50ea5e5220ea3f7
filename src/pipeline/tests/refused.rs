//! Loads that are refused for their rows, and what comes after such rows.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::pipeline::{Bisected, Later, Parked};

/// Loads all that is there; rows whose `version` is bad are refused.
fn load_all(bench: &mut Bench, bad: &[i64]) -> Vec<Vec<i64>> {
    bench.pipeline.seal_all();
    let mut loaded = Vec::new();
    while let Some(load) = bench.load() {
        let versions: Vec<i64> =
            rows_of(&load).iter().map(|row| row["version"].as_i64().unwrap_or(-1)).collect();
        if versions.iter().any(|version| bad.contains(version)) {
            bench.pipeline.rows_refused(&load, "bad", 10).unwrap();
        } else {
            bench.pipeline.finished(load.label.number).unwrap();
            loaded.push(versions);
        }
    }
    loaded
}

fn rows_of(load: &Load) -> Vec<serde_json::Value> {
    body(load).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn refused_load_goes_in_parts_before_anything_later() {
    let mut bench = Bench::new(limits());
    for version in 1..=4 {
        bench.upsert(whole(version, version));
    }
    bench.pipeline.commit(Lsn(10));
    bench.pipeline.seal_all();
    let load = bench.load().unwrap();
    bench.upsert(whole(9, 9));
    bench.pipeline.commit(Lsn(20));
    bench.pipeline.seal_all();
    bench.pipeline.rows_refused(&load, "bad", 10).unwrap();
    assert!(!bench.pipeline.is_drained(bench.table));
    assert_eq!(load_all(&mut bench, &[2]), [vec![1], vec![3, 4], vec![9]]);
    let bisected = bench.pipeline.take_bisected();
    assert_eq!(bisected.len(), 1);
    assert!(!bisected[0].gave_up);
    let row = &bisected[0].rejected[0];
    assert_eq!(row.shown.key.as_deref(), Some(&b"{\"id\":2"[..]));
    assert_eq!((bench.pipeline.durable_lsn(), bench.pipeline.queued_bytes()), (Lsn(20), 0));
}

#[test]
fn nothing_is_durable_before_the_bad_rows_are_known() {
    let mut bench = Bench::new(limits());
    bench.upsert(whole(1, 1));
    bench.upsert(whole(2, 2));
    bench.pipeline.commit(Lsn(10));
    bench.pipeline.seal_all();
    let load = bench.load().unwrap();
    bench.pipeline.rows_refused(&load, "bad", 10).unwrap();
    for _ in 0..2 {
        assert_eq!(bench.pipeline.durable_lsn(), Lsn(0));
        assert!(bench.pipeline.take_bisected().is_empty());
        let part = bench.load().unwrap();
        bench.pipeline.rows_refused(&part, "bad", 10).unwrap();
    }
    assert_eq!(bench.pipeline.take_bisected()[0].rejected.len(), 2);
    assert_eq!(bench.pipeline.durable_lsn(), Lsn(10));
}

#[test]
fn rejected_row_tells_the_commit_that_brought_it() {
    let mut bench = Bench::new(limits());
    for commit in 1..=5 {
        bench.pipeline.begin(Lsn(10 * commit));
        bench.upsert(whole(commit as i64, commit as i64));
        bench.upsert(whole(100 + commit as i64, 100 + commit as i64));
        if commit < 5 {
            bench.pipeline.commit(Lsn(10 * commit));
        }
    }
    // The last transaction is cut in its midst.
    load_all(&mut bench, &[1, 102, 3, 105]);
    let rejected = &bench.pipeline.take_bisected()[0].rejected;
    let lsns: Vec<u64> = rejected.iter().filter_map(|row| row.lsn).map(|lsn| lsn.0).collect();
    assert_eq!(lsns, [10, 20, 30, 50]);
}

#[test]
fn table_that_is_removed_while_its_load_goes_in_parts_holds_nothing_back() {
    let mut bench = Bench::new(limits());
    bench.upsert(whole(1, 1));
    bench.upsert(whole(2, 2));
    bench.pipeline.commit(Lsn(10));
    bench.pipeline.seal_all();
    let load = bench.load().unwrap();
    bench.pipeline.rows_refused(&load, "bad", 10).unwrap();
    let part = bench.load().unwrap();
    bench.pipeline.remove_table(bench.table);
    assert_eq!((bench.pipeline.durable_lsn(), bench.pipeline.queued_bytes()), (Lsn(10), 0));
    bench.pipeline.rows_refused(&part, "bad", 10).unwrap();
    assert!(bench.load().is_none() && bench.pipeline.take_bisected().is_empty() && bench.pipeline.is_idle());
}

#[test]
fn partial_rows_behind_a_refused_one_are_taken_out() {
    let mut bench = Bench::new(limits());
    let partial = |id, version| TestRow { id, version, a: None, b: Some(version) };
    for id in 1..=4 {
        bench.upsert(whole(id, id));
    }
    bench.pipeline.commit(Lsn(10));
    bench.pipeline.seal_all();
    let load = bench.load().unwrap();
    bench.upsert(partial(1, 11));
    bench.upsert(partial(2, 12));
    bench.upsert(partial(3, 13));
    bench.pipeline.commit(Lsn(20));
    bench.pipeline.seal_all();
    bench.upsert(partial(1, 21));
    bench.upsert(whole(2, 22));
    bench.pipeline.commit(Lsn(30));
    bench.pipeline.rows_refused(&load, "bad", 10).unwrap();
    let keys = [&b"{\"id\":1"[..], b"{\"id\":2", b"{\"id\":4"];
    let later = bench.pipeline.look_for_later(bench.table, keys.into_iter());
    assert_eq!(later, [Later::Lacking(Lsn(10)), Later::Replaced, Later::Nothing]);
    assert_eq!(load_all(&mut bench, &[1, 2, 4]), [vec![3], vec![13], vec![22]]);
    // What was taken out is still to come.
    assert_eq!(bench.pipeline.durable_lsn(), Lsn(10));
    bench.pipeline.release();
    assert_eq!((bench.pipeline.durable_lsn(), bench.pipeline.queued_bytes()), (Lsn(30), 0));
}

type State = (i64, i64, i64);

/// A mirror that goes on (`on_reject = 'continue'`), in little: what `postgres::decode::rejected` does.
struct Mirror {
    bench: Bench,
    source: BTreeMap<i64, State>,
    target: BTreeMap<i64, State>,
    /// Every state that a row has had.
    history: BTreeMap<i64, BTreeSet<State>>,
    parked: Parked,
    incomplete: BTreeSet<i64>,
    version: i64,
    transaction: u64,
    under_way: Option<Load>,
}

#[derive(Clone, Debug)]
enum Act {
    Upsert(i64, bool, bool),
    Delete(i64),
    Commit,
    Seal,
    Send,
    Receive,
    Complete,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..4_i64, any::<bool>(), any::<bool>()).prop_map(|(id, a, b)| Act::Upsert(id, a, b)),
        1 => (0..4_i64).prop_map(Act::Delete),
        2 => Just(Act::Commit),
        2 => Just(Act::Seal),
        3 => Just(Act::Send),
        3 => Just(Act::Receive),
        1 => Just(Act::Complete),
    ];
    prop::collection::vec(act, 0..150)
}

fn key(id: i64) -> Vec<u8> {
    format!("{{\"id\":{id}").into_bytes()
}

impl Mirror {
    fn new() -> Self {
        Self {
            bench: Bench::new(limits()),
            source: BTreeMap::new(),
            target: BTreeMap::new(),
            history: BTreeMap::new(),
            parked: Parked::default(),
            incomplete: BTreeSet::new(),
            version: 0,
            transaction: 10,
            under_way: None,
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Upsert(id, keep_a, keep_b) => self.upsert(id, keep_a, keep_b),
            Act::Delete(id) => {
                if self.source.remove(&id).is_some() {
                    self.bench.delete(id);
                    self.parked.release(&encoder(), &whole(id, 0));
                }
            }
            Act::Commit => {
                self.bench.pipeline.commit(Lsn(self.transaction));
                self.transaction += 10;
            }
            Act::Seal => drop(self.bench.pipeline.seal_all()),
            Act::Send if self.under_way.is_none() => self.under_way = self.bench.load(),
            Act::Receive => self.receive(),
            // Between transactions only.
            Act::Complete => {
                self.act(&Act::Commit);
                self.complete();
            }
            Act::Send => {}
        }
    }

    fn upsert(&mut self, id: i64, keep_a: bool, keep_b: bool) {
        self.version += 1;
        let version = self.version;
        let before = self.source.get(&id).copied();
        let column = |keep: bool| if keep && before.is_some() { None } else { Some(version) };
        let row = TestRow { id, version, a: column(keep_a), b: column(keep_b) };
        let (_, old_a, old_b) = before.unwrap_or_default();
        let state = (version, row.a.unwrap_or(old_a), row.b.unwrap_or(old_b));
        self.source.insert(id, state);
        self.history.entry(id).or_default().insert(state);
        let lacks = row.a.is_none() || row.b.is_none();
        if lacks && (self.incomplete.contains(&id) || self.parked.holds(&encoder(), &row)) {
            self.incomplete.insert(id);
            return self.bench.pipeline.hold();
        }
        match self.bench.pipeline.upsert(self.bench.table, Change::Update, &row) {
            Err(PushError::UnchangedAfterDelete) => {
                self.incomplete.insert(id);
                self.bench.pipeline.hold();
            }
            pushed => {
                pushed.unwrap();
                self.parked.release(&encoder(), &row);
            }
        }
    }

    /// The target refuses whole numbers of a kind, wherever they stand.
    fn receive(&mut self) {
        let Some(load) = self.under_way.take() else { return };
        let rows = rows_of(&load);
        let is_bad = |row: &serde_json::Value| {
            ["a", "b"].iter().any(|column| row[*column].as_i64().is_some_and(|value| value % 3 == 0))
        };
        if rows.iter().any(is_bad) {
            self.bench.pipeline.rows_refused(&load, "bad", 1000).unwrap();
        } else {
            for row in rows {
                let id = row["id"].as_i64().unwrap();
                if row["__op"] == 1 {
                    self.target.remove(&id);
                    continue;
                }
                let (_, old_a, old_b) = self.target.get(&id).copied().unwrap_or_default();
                let value = |name: &str, old: i64| row[name].as_i64().unwrap_or(old);
                self.target.insert(id, (value("version", 0), value("a", old_a), value("b", old_b)));
            }
            self.bench.pipeline.finished(load.label.number).unwrap();
        }
        for Bisected { table, rejected, .. } in self.bench.pipeline.take_bisected() {
            let keys = rejected.iter().filter_map(|row| row.shown.key.as_deref());
            let later = self.bench.pipeline.look_for_later(table, keys);
            for (row, later) in rejected.iter().zip(later) {
                let key = row.shown.key.as_deref().unwrap();
                match later {
                    Later::Replaced => continue,
                    Later::Lacking(_) => {
                        let id: serde_json::Value = serde_json::from_str(&row.shown.values).unwrap();
                        self.incomplete.insert(id["id"].as_i64().unwrap());
                    }
                    Later::Nothing => {}
                }
                self.parked.park(key, row.lsn.unwrap_or_default()).unwrap();
            }
        }
    }

    fn complete(&mut self) {
        if self.incomplete.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.incomplete) {
            match self.source.get(&id) {
                Some(&(version, a, b)) => {
                    let row = TestRow { id, version, a: Some(a), b: Some(b) };
                    self.bench.pipeline.upsert(self.bench.table, Change::Completed, &row).unwrap();
                }
                None if self.parked.has(&key(id)) => {
                    self.bench.pipeline.delete_key(self.bench.table, &key(id)).unwrap();
                }
                None => continue,
            }
            self.parked.release_key(&key(id));
        }
        self.bench.pipeline.release();
    }

    fn finish(&mut self) {
        self.act(&Act::Commit);
        loop {
            self.complete();
            self.bench.pipeline.seal_all();
            if self.under_way.is_none() {
                self.under_way = self.bench.load();
            }
            if self.under_way.is_none() && self.incomplete.is_empty() {
                return;
            }
            self.receive();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn target_has_each_row_as_it_is_or_as_it_once_was_if_it_is_parked(acts in acts()) {
        let mut mirror = Mirror::new();
        acts.iter().for_each(|act| mirror.act(act));
        mirror.finish();
        for id in 0..4 {
            let (at_target, at_source) = (mirror.target.get(&id), mirror.source.get(&id));
            if mirror.parked.has(&key(id)) {
                let once = at_target.is_none_or(|state| mirror.history[&id].contains(state));
                prop_assert!(once, "row {} was never {:?}", id, at_target);
            } else {
                prop_assert_eq!(at_target, at_source, "row {}", id);
            }
        }
        prop_assert_eq!(mirror.bench.pipeline.queued_bytes(), 0);
        prop_assert_eq!(mirror.bench.pipeline.durable_lsn(), Lsn(mirror.transaction - 10));
    }
}

//! The argument of `catch_up.rs`, run against random schedules.
//!
//! A source of one table: rows lie in blocks, transactions insert, update (which may move the row and may leave its large
//! value out of the log), change keys and delete; a rewrite moves all rows and makes another file. A copy reads chunk by
//! chunk, in several loads, loses its snapshot at any moment, and goes on under a new one. Snapshots are taken while
//! transactions are in progress whose commit record is in the log already. Then the stream replays everything since the
//! slot was made, while the source goes on. At the end both sides must be equal.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{CatchUp, Resumed, Treatment, VisibleIn};
use crate::lsn::Lsn;

const KEYS: u8 = 12;
const BLOCKS: u8 = 8;
const BLOCKS_PER_CHUNK: u8 = 2;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Row {
    value: u32,
    large: u32,
    block: u8,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Insert(u8, Row),
    /// A whole new row, or one without its large value.
    Update(u8, Row, bool),
    Delete(u8),
    /// The key changes, the large value is not in the log.
    Rekey(u8, u8, Row),
}

#[derive(Clone, Debug)]
struct Transaction {
    xid: u32,
    changes: Vec<Change>,
    columns: u32,
}

/// What a snapshot sees: the table as of some commits, and its text.
#[derive(Clone, Debug)]
struct Snapshot {
    rows: BTreeMap<u8, Row>,
    seen: VisibleIn,
    until: usize,
}

#[derive(Default)]
struct Source {
    log: Vec<Transaction>,
    rows: BTreeMap<u8, Row>,
    /// The rows after the last rewrite, and how much of the log lies before it.
    base: BTreeMap<u8, Row>,
    base_len: usize,
    /// What a snapshot has seen, later ones see too; and a rewrite waits for everybody.
    settled: usize,
    file: u32,
    columns: u32,
    counter: u32,
}

impl Source {
    fn next(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    /// A transaction of changes that make sense now, from random numbers.
    fn transact(&mut self, dice: &[(u8, u8, u8)]) {
        let mut changes = Vec::new();
        for &(what, key, other) in dice {
            let (key, block) = (key % KEYS, other % BLOCKS);
            let (value, large) = (self.next(), self.next());
            let change = match (self.rows.get(&key).copied(), what % 5) {
                (None, _) => Change::Insert(key, Row { value, large, block }),
                (Some(_), 0) => Change::Delete(key),
                (Some(old), 1 | 2) => Change::Update(key, Row { value, block, ..old }, true),
                (Some(old), 3) if !self.rows.contains_key(&(other % KEYS)) => {
                    Change::Rekey(key, other % KEYS, Row { value, block, ..old })
                }
                (Some(_), _) => Change::Update(key, Row { value, large, block }, false),
            };
            apply(&mut self.rows, change);
            changes.push(change);
        }
        let xid = u32::try_from(self.log.len()).unwrap() + 1;
        self.log.push(Transaction { xid, changes, columns: self.columns });
    }

    fn rewrite(&mut self, alters: bool) {
        self.file += 1;
        self.columns += u32::from(alters);
        for (number, row) in self.rows.values_mut().enumerate() {
            row.block = u8::try_from(number).unwrap() % BLOCKS;
        }
        self.base = self.rows.clone();
        self.base_len = self.log.len();
        self.settled = self.log.len();
    }

    /// The last commits may be in the log and not be seen yet.
    fn snapshot(&mut self, unseen: usize) -> Snapshot {
        let seen = self.log.len().saturating_sub(unseen).max(self.settled);
        self.settled = seen;
        let mut rows = self.base.clone();
        for transaction in &self.log[self.base_len..seen] {
            transaction.changes.iter().for_each(|change| apply(&mut rows, *change));
        }
        let xmax = seen + 1;
        let seen = VisibleIn::parse(&format!("{xmax}:{xmax}:")).unwrap();
        Snapshot { rows, seen, until: self.log.len() }
    }
}

fn apply(rows: &mut BTreeMap<u8, Row>, change: Change) {
    match change {
        Change::Insert(key, row) | Change::Update(key, row, _) => {
            rows.insert(key, row);
        }
        Change::Delete(key) => {
            rows.remove(&key);
        }
        Change::Rekey(old, new, row) => {
            rows.remove(&old);
            rows.insert(new, row);
        }
    }
}

/// Value, and the large value if it is known.
type Target = BTreeMap<u8, (u32, Option<u32>)>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ChunkState {
    Waiting,
    Done,
}

struct Mirror {
    target: Target,
    slot: usize,
    snapshot: Snapshot,
    chunks: Vec<ChunkState>,
    file: u32,
    columns: u32,
    catch_up: Option<CatchUp>,
    until: Lsn,
}

impl Mirror {
    fn start(source: &mut Source) -> Self {
        Self {
            target: Target::new(),
            slot: source.log.len(),
            snapshot: source.snapshot(0),
            chunks: vec![ChunkState::Waiting; usize::from(BLOCKS / BLOCKS_PER_CHUNK)],
            file: source.file,
            columns: source.columns,
            catch_up: None,
            until: Lsn(0),
        }
    }

    fn is_unchanged(&self, source: &Source) -> bool {
        self.file == source.file && self.columns == source.columns
    }

    /// Reads a waiting chunk; only some of its rows when it is cut off.
    fn copy(&mut self, source: &Source, which: usize, rows: Option<usize>) {
        let waiting = |chunk: &usize| self.chunks[*chunk] == ChunkState::Waiting;
        let Some(chunk) = (0..self.chunks.len()).filter(waiting).cycle().nth(which % self.chunks.len())
        else {
            return;
        };
        if !self.is_unchanged(source) {
            return;
        }
        let of_chunk = |row: &Row| usize::from(row.block / BLOCKS_PER_CHUNK) == chunk;
        let read = self.snapshot.rows.iter().filter(|(_, row)| of_chunk(row));
        for (key, row) in read.take(rows.unwrap_or(usize::MAX)) {
            self.target.insert(*key, (row.value, Some(row.large)));
        }
        if rows.is_none() {
            self.chunks[chunk] = ChunkState::Done;
        }
    }

    /// The snapshot is gone, and another one is taken.
    fn lose_snapshot(&mut self, source: &mut Source, unseen: usize) {
        self.snapshot = source.snapshot(unseen);
        let done = self.chunks.iter().filter(|chunk| **chunk == ChunkState::Done).count();
        match Resumed::of(done, self.chunks.len(), self.is_unchanged(source)) {
            Resumed::Whole => return,
            Resumed::Kept => self.catch_up = Some(CatchUp::completing(self.catch_up.take())),
            Resumed::Restarted => {
                self.target.clear();
                self.chunks.fill(ChunkState::Waiting);
                (self.file, self.columns) = (source.file, source.columns);
                self.catch_up = Some(CatchUp::not_seen_by(self.snapshot.seen.clone()));
            }
        }
        self.until = Lsn(self.snapshot.until as u64);
    }

    fn is_copied(&self) -> bool {
        self.chunks.iter().all(|chunk| *chunk == ChunkState::Done)
    }

    /// Applies one transaction of the log; the source is as of some later moment.
    fn replay(&mut self, at: usize, source: &Source) -> Result<(), String> {
        let transaction = &source.log[at];
        let end = Lsn(at as u64 + 1);
        let treatment = self
            .catch_up
            .as_ref()
            .map_or(Treatment::Apply, |catch_up| catch_up.treat(self.until, end, transaction.xid));
        if treatment == Treatment::Skip {
            return Ok(());
        }
        if transaction.columns < self.columns {
            return Err("a row of older columns met the new table".to_owned());
        }
        for change in &transaction.changes {
            self.take_in(*change, treatment, source);
        }
        Ok(())
    }

    fn take_in(&mut self, change: Change, treatment: Treatment, source: &Source) {
        match change {
            Change::Insert(key, row) | Change::Update(key, row, false) => {
                self.target.insert(key, (row.value, Some(row.large)));
            }
            Change::Update(key, _, true) if treatment == Treatment::Complete => self.complete(key, source),
            Change::Update(key, row, true) => {
                let large = self.target.get(&key).and_then(|(_, large)| *large);
                self.target.insert(key, (row.value, large));
            }
            Change::Delete(key) => {
                self.target.remove(&key);
            }
            Change::Rekey(old, new, _) => {
                self.target.remove(&old);
                self.complete(new, source);
            }
        }
    }

    fn complete(&mut self, key: u8, source: &Source) {
        if let Some(now) = source.rows.get(&key) {
            self.target.insert(key, (now.value, Some(now.large)));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Transact(Vec<(u8, u8, u8)>),
    Copy(usize, Option<usize>),
    LoseSnapshot(usize),
    Rewrite(bool),
}

fn dice() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    prop::collection::vec(any::<(u8, u8, u8)>(), 1..6)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => dice().prop_map(Step::Transact),
        4 => (0..8_usize, prop::option::weighted(0.3, 0..3_usize)).prop_map(|(which, rows)| Step::Copy(which, rows)),
        3 => (0..4_usize).prop_map(Step::LoseSnapshot),
        1 => any::<bool>().prop_map(Step::Rewrite),
    ];
    prop::collection::vec(step, 0..40)
}

/// Runs a schedule to its end; what the target has then, and what it must have.
fn run(before: &[Vec<(u8, u8, u8)>], steps: &[Step], after: &[Vec<(u8, u8, u8)>]) -> (Target, Target) {
    let mut source = Source::default();
    before.iter().for_each(|dice| source.transact(dice));
    let mut mirror = Mirror::start(&mut source);
    for step in steps {
        match step {
            Step::Transact(dice) => source.transact(dice),
            Step::Copy(which, rows) => mirror.copy(&source, *which, *rows),
            Step::LoseSnapshot(unseen) => mirror.lose_snapshot(&mut source, *unseen),
            // Columns that change once the copy is whole are the stream's business.
            Step::Rewrite(alters) => source.rewrite(*alters && !mirror.is_copied()),
        }
    }
    while !mirror.is_copied() {
        if !mirror.is_unchanged(&source) {
            mirror.lose_snapshot(&mut source, 0);
        }
        mirror.copy(&source, 0, None);
    }
    let mut after = after.iter();
    let mut at = mirror.slot;
    loop {
        if let Some(dice) = after.next() {
            source.transact(dice);
        }
        if at == source.log.len() {
            break;
        }
        mirror.replay(at, &source).unwrap();
        at += 1;
    }
    let wanted = source.rows.iter().map(|(key, row)| (*key, (row.value, Some(row.large)))).collect();
    (mirror.target, wanted)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn interrupted_copy_and_stream_end_at_the_source(
        before in prop::collection::vec(dice(), 0..8), steps in steps(), after in prop::collection::vec(dice(), 0..8),
    ) {
        let (target, wanted) = run(&before, &steps, &after);
        prop_assert_eq!(target, wanted);
    }
}

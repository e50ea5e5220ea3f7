//! The label registry: which transaction used which label, and what became of it.
//!
//! ```text
//!             begin                commit               publish
//!   (none) ──────────► PREPARE ──────────► COMMITTED ──────────► VISIBLE
//!                         │ abort, cancel, connection lost
//!                         ▼
//!                      ABORTED ──► its label is free again
//! ```
//!
//! Labels are unique per database. Finished transactions beyond `label_keep_max_num` are forgotten, the oldest first: their
//! labels are UNKNOWN and can be loaded again, which is how real duplicates arise.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::server::lock;

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum State {
    Prepare,
    Committed,
    Visible,
    Aborted,
}

impl State {
    /// As StarRocks spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prepare => "PREPARE",
            Self::Committed => "COMMITTED",
            Self::Visible => "VISIBLE",
            Self::Aborted => "ABORTED",
        }
    }
}

/// One load, from begin to its end.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Transaction {
    pub(crate) id: i64,
    pub(crate) label: String,
    pub(crate) database: String,
    pub(crate) table: String,
    pub(crate) state: State,
    /// Why it was aborted; empty otherwise.
    pub(crate) reason: String,
    /// From when on a committed transaction counts as visible.
    #[serde(skip)]
    visible_at: Option<Instant>,
}

impl Transaction {
    fn state_now(&self) -> State {
        match (self.state, self.visible_at) {
            (State::Committed, Some(at)) if at <= Instant::now() => State::Visible,
            (state, _) => state,
        }
    }
}

/// A load whose rows are in its table.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) id: i64,
    pub(crate) database: String,
    pub(crate) label: String,
    pub(crate) table: String,
}

/// Why a load was not begun.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum BeginError {
    /// The label belongs to a transaction that is alive or finished well.
    Exists { id: i64, job: &'static str },
    /// The database has too many loads open.
    TooManyRunning { running: usize, limit: usize },
}

struct Inner {
    next_id: i64,
    /// All that is remembered, by id.
    transactions: HashMap<i64, Transaction>,
    /// The newest transaction of a label: (database, label).
    newest: HashMap<(String, String), i64>,
    /// Finished ones of a database, oldest first.
    finished: HashMap<String, VecDeque<i64>>,
    keep_max: usize,
    running_max: usize,
}

/// All labels of all databases.
pub(crate) struct Labels {
    inner: Mutex<Inner>,
}

impl Default for Labels {
    fn default() -> Self {
        let inner = Inner {
            next_id: 4711,
            transactions: HashMap::new(),
            newest: HashMap::new(),
            finished: HashMap::new(),
            keep_max: 1000,
            running_max: 1000,
        };
        Self { inner: Mutex::new(inner) }
    }
}

impl Labels {
    /// What a restart of the whole cluster leaves: loads that were committed. Those in PREPARE are gone.
    pub(crate) fn restore(&self, finished: Vec<Finished>) {
        let mut inner = lock(&self.inner);
        for Finished { id, database, label, table } in finished {
            inner.next_id = inner.next_id.max(id + 1);
            inner.newest.insert((database.clone(), label.clone()), id);
            let (state, reason, visible_at) = (State::Visible, String::new(), None);
            let transaction = Transaction { id, label, database, table, state, reason, visible_at };
            inner.transactions.insert(id, transaction);
            inner.finish(id);
        }
    }

    /// Opens a transaction under a label.
    pub(crate) fn begin(&self, database: &str, table: &str, label: &str) -> Result<i64, BeginError> {
        let mut inner = lock(&self.inner);
        let key = (database.to_owned(), label.to_owned());
        if let Some(old) = inner.newest.get(&key).and_then(|id| inner.transactions.get(id)) {
            match old.state_now() {
                State::Prepare => return Err(BeginError::Exists { id: old.id, job: "RUNNING" }),
                State::Committed | State::Visible => {
                    return Err(BeginError::Exists { id: old.id, job: "FINISHED" });
                }
                State::Aborted => {}
            }
        }
        let running = inner.running(|open| open.database == database);
        if running >= inner.running_max {
            return Err(BeginError::TooManyRunning { running, limit: inner.running_max });
        }
        let id = inner.next_id;
        inner.next_id += 1;
        inner.newest.insert(key, id);
        inner.transactions.insert(
            id,
            Transaction {
                id,
                label: label.into(),
                database: database.into(),
                table: table.into(),
                state: State::Prepare,
                reason: String::new(),
                visible_at: None,
            },
        );
        Ok(id)
    }

    /// Commits, to become visible after a time; says why not when the transaction is no longer in PREPARE.
    pub(crate) fn commit(&self, id: i64, visible_after: Duration) -> Result<(), String> {
        let mut inner = lock(&self.inner);
        let Some(transaction) = inner.transactions.get_mut(&id) else {
            return Err(format!("transaction {id} is not found"));
        };
        if transaction.state != State::Prepare {
            let state = transaction.state.name();
            return Err(format!("transaction {id} is {state}: {}", transaction.reason));
        }
        transaction.state = State::Committed;
        transaction.visible_at = Some(Instant::now() + visible_after);
        inner.finish(id);
        Ok(())
    }

    /// Aborts what is still in PREPARE; later calls change nothing.
    pub(crate) fn abort(&self, id: i64, reason: &str) {
        let mut inner = lock(&self.inner);
        let Some(transaction) = inner.transactions.get_mut(&id) else { return };
        if transaction.state == State::Prepare {
            transaction.state = State::Aborted;
            transaction.reason = reason.into();
            inner.finish(id);
        }
    }

    /// Aborts the transaction of a label on the client's wish.
    pub(crate) fn cancel(&self, database: &str, label: &str) -> Result<(), String> {
        let id = {
            let inner = lock(&self.inner);
            let Some(found) = inner.find(database, label) else {
                return Err(format!("No transaction found by label {label}"));
            };
            if found.state != State::Prepare {
                let state = found.state_now().name();
                return Err(format!("Can not abort {state} transaction {}, label is {label}", found.id));
            }
            found.id
        };
        self.abort(id, "User Cancelled");
        Ok(())
    }

    /// The newest transaction of a label.
    pub(crate) fn find(&self, database: &str, label: &str) -> Option<(State, String)> {
        let inner = lock(&self.inner);
        inner.find(database, label).map(|found| (found.state_now(), found.reason.clone()))
    }

    /// How many loads of a table are open that began before `before`.
    pub(crate) fn open_loads(&self, database: &str, table: &str, before: i64) -> usize {
        lock(&self.inner).running(|open| open.database == database && open.table == table && open.id < before)
    }

    /// The id that the next transaction will get.
    pub(crate) fn next_id(&self) -> i64 {
        lock(&self.inner).next_id
    }

    /// What a restart of the backend leaves: everything but PREPARE.
    pub(crate) fn restart(&self) {
        let mut inner = lock(&self.inner);
        inner.transactions.retain(|_, transaction| transaction.state != State::Prepare);
        inner.drop_dangling();
    }

    /// Forgets a database.
    pub(crate) fn forget_database(&self, database: &str) {
        let mut inner = lock(&self.inner);
        inner.transactions.retain(|_, transaction| transaction.database != database);
        inner.finished.remove(database);
        inner.drop_dangling();
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        let mut inner = lock(&self.inner);
        inner.transactions.clear();
        inner.finished.clear();
        inner.newest.clear();
    }

    /// Sets `label_keep_max_num` and evicts at once.
    pub(crate) fn keep_at_most(&self, max: usize) {
        let mut inner = lock(&self.inner);
        inner.keep_max = max;
        let databases: Vec<String> = inner.finished.keys().cloned().collect();
        for database in databases {
            inner.evict(&database);
        }
    }

    /// Sets `max_running_txn_num_per_db`.
    pub(crate) fn run_at_most(&self, max: usize) {
        lock(&self.inner).running_max = max;
    }

    /// All that is remembered, by id.
    pub(crate) fn list(&self) -> Vec<Transaction> {
        let inner = lock(&self.inner);
        let mut all: Vec<Transaction> = inner.transactions.values().cloned().collect();
        all.sort_by_key(|transaction| transaction.id);
        for transaction in &mut all {
            transaction.state = transaction.state_now();
        }
        all
    }
}

impl Inner {
    fn find(&self, database: &str, label: &str) -> Option<&Transaction> {
        let id = self.newest.get(&(database.to_owned(), label.to_owned()))?;
        self.transactions.get(id)
    }

    fn running(&self, matches: impl Fn(&Transaction) -> bool) -> usize {
        self.transactions.values().filter(|open| open.state == State::Prepare && matches(open)).count()
    }

    fn finish(&mut self, id: i64) {
        let Some(database) = self.transactions.get(&id).map(|finished| finished.database.clone()) else {
            return;
        };
        self.finished.entry(database.clone()).or_default().push_back(id);
        self.evict(&database);
    }

    fn evict(&mut self, database: &str) {
        let Some(finished) = self.finished.get_mut(database) else { return };
        while finished.len() > self.keep_max {
            let Some(oldest) = finished.pop_front() else { break };
            let Some(gone) = self.transactions.remove(&oldest) else { continue };
            let key = (gone.database, gone.label);
            if self.newest.get(&key) == Some(&oldest) {
                self.newest.remove(&key);
            }
        }
    }

    fn drop_dangling(&mut self) {
        let transactions = &self.transactions;
        self.newest.retain(|_, id| transactions.contains_key(id));
    }
}

/// Whether a label has the form `[-\w]{1,128}`.
pub(crate) fn is_well_formed(label: &str) -> bool {
    (1..=128).contains(&label.chars().count())
        && label.chars().all(|c| c == '-' || c == '_' || c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn label_of_a_finished_load_is_refused() {
        let labels = Labels::default();
        let id = labels.begin("shop", "orders", "a").unwrap();
        assert_eq!(labels.begin("shop", "orders", "a"), Err(BeginError::Exists { id, job: "RUNNING" }));
        labels.commit(id, NOW).unwrap();
        assert_eq!(labels.begin("shop", "orders", "a"), Err(BeginError::Exists { id, job: "FINISHED" }));
        assert!(labels.begin("other", "orders", "a").is_ok());
    }

    #[test]
    fn label_of_an_aborted_load_is_free() {
        let labels = Labels::default();
        let id = labels.begin("shop", "orders", "a").unwrap();
        labels.abort(id, "bad rows");
        assert_eq!(labels.find("shop", "a"), Some((State::Aborted, "bad rows".into())));
        assert!(labels.begin("shop", "orders", "a").unwrap() > id);
    }

    #[test]
    fn evicted_label_is_unknown_and_can_be_loaded_again() {
        let labels = Labels::default();
        labels.keep_at_most(2);
        for label in ["a", "b", "c"] {
            let id = labels.begin("shop", "orders", label).unwrap();
            labels.commit(id, NOW).unwrap();
        }
        assert_eq!(labels.find("shop", "a"), None);
        assert_eq!(labels.find("shop", "b"), Some((State::Visible, String::new())));
        assert!(labels.begin("shop", "orders", "a").is_ok());
    }

    #[test]
    fn committed_load_is_visible_only_after_its_delay() {
        let labels = Labels::default();
        let id = labels.begin("shop", "orders", "a").unwrap();
        labels.commit(id, Duration::from_secs(3600)).unwrap();
        assert_eq!(labels.find("shop", "a"), Some((State::Committed, String::new())));
    }

    #[test]
    fn restart_forgets_only_what_was_open() {
        let labels = Labels::default();
        let done = labels.begin("shop", "orders", "done").unwrap();
        labels.commit(done, NOW).unwrap();
        labels.begin("shop", "orders", "open").unwrap();
        labels.restart();
        assert_eq!(labels.find("shop", "open"), None);
        assert_eq!(labels.find("shop", "done"), Some((State::Visible, String::new())));
    }

    #[test]
    fn label_of_an_earlier_process_is_still_taken() {
        let labels = Labels::default();
        let (database, label, table) = ("shop".to_owned(), "a".to_owned(), "orders".to_owned());
        labels.restore(vec![Finished { id: 9000, database, label, table }]);
        assert_eq!(labels.find("shop", "a"), Some((State::Visible, String::new())));
        assert_eq!(labels.begin("shop", "orders", "b"), Ok(9001));
    }

    #[test]
    fn cancelled_load_cannot_be_committed() {
        let labels = Labels::default();
        let id = labels.begin("shop", "orders", "a").unwrap();
        labels.cancel("shop", "a").unwrap();
        assert!(labels.commit(id, NOW).is_err());
        assert!(labels.cancel("shop", "a").is_err());
        assert!(labels.cancel("shop", "b").is_err());
    }

    #[test]
    fn open_loads_of_a_database_are_limited() {
        let labels = Labels::default();
        labels.run_at_most(1);
        labels.begin("shop", "orders", "a").unwrap();
        assert_eq!(
            labels.begin("shop", "orders", "b"),
            Err(BeginError::TooManyRunning { running: 1, limit: 1 })
        );
        assert_eq!(labels.open_loads("shop", "orders", i64::MAX), 1);
        assert_eq!(labels.open_loads("shop", "items", i64::MAX), 0);
    }

    #[test]
    fn labels_are_words_and_hyphens() {
        assert!(is_well_formed("dbmazz_m-1_00"));
        assert!(!is_well_formed("0/16B"));
        assert!(!is_well_formed(""));
        assert!(!is_well_formed(&"x".repeat(129)));
    }
}

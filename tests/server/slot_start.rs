//! Tables are changed at the very moments in which PostgreSQL builds the first view of the catalogs of a new slot.

use crate::harness::{Database, Outcome, PATIENCE, Pair, Settings, wait_until};
use crate::on_its_own_cluster;

/// The process that creates the slot of a mirror.
const HOLDER: &str = "dbmazz snapshot holder";

/// A transaction that is running, and its number.
pub(crate) struct Running {
    pub(crate) session: Database,
    xid: String,
}

impl Running {
    pub(crate) fn begin(pair: &Pair) -> Outcome<Self> {
        let mut session = pair.source.another_session()?;
        session.execute("BEGIN")?;
        let xid = session.value("SELECT pg_current_xact_id()")?;
        Ok(Self { session, xid })
    }

    /// Waits until a process that creates a slot waits for it.
    pub(crate) fn holds_up(&self, pair: &mut Pair, holder: &str) -> Outcome {
        let waits = format!(
            "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                 WHERE NOT l.granted AND l.transactionid = '{}' AND a.backend_type = '{holder}')",
            self.xid
        );
        wait_until("the slot waits for a transaction", PATIENCE, || pair.source.is_true(&waits))
    }

    pub(crate) fn commit(mut self) -> Outcome {
        self.session.execute("COMMIT")
    }
}

/// Has `begin` create a slot by a process of this kind, which is held up: a change of the catalogs commits while its view of
/// them is begun, and a transaction that began before the slot is consistent commits after it, with rows of `item`.
pub(crate) fn change_while_a_slot_begins<T>(
    pair: &mut Pair,
    holder: &str,
    change: &str,
    begin: impl FnOnce(&mut Pair) -> Outcome<T>,
) -> Outcome<T> {
    let first = Running::begin(pair)?;
    let begun = begin(pair)?;
    first.holds_up(pair, holder)?;
    let long = Running::begin(pair)?;
    pair.source.execute(change)?;
    first.commit()?;
    long.holds_up(pair, holder)?;
    let mut late = Running::begin(pair)?;
    late.session.execute("INSERT INTO item VALUES (1, 'late')")?;
    long.commit()?;
    late.holds_up(pair, holder)?;
    late.session.execute("INSERT INTO item VALUES (2, 'later')")?;
    late.commit()?;
    Ok(begun)
}

#[test]
fn a_table_that_is_truncated_while_the_slot_begins_is_decoded() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (1, 'one'), (2, 'two')",
        )?;
        change_while_a_slot_begins(pair, HOLDER, "TRUNCATE item", |pair| pair.start_mirror(&["item"]))?;
        pair.source.execute("INSERT INTO item VALUES (3, 'last')")?;
        pair.wait_and_compare(&["item"])
    });
}

/// The slot is used as it is then, which the log says.
#[test]
fn where_only_one_slot_is_free_it_is_enough() {
    on_its_own_cluster(&Settings::default().set("max_replication_slots", "1"), |pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)")?;
        pair.start_mirror(&["item"])?;
        pair.source.execute("INSERT INTO item VALUES (2)")?;
        pair.wait_and_compare(&["item"])?;
        assert!(pair.source.cluster().log().contains("replication slot is used as it was created"));
        Ok(())
    });
}

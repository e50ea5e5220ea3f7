//! The worker looks at its publication while others change it, or the list of the mirror's tables.

use std::thread;
use std::time::Duration;

use super::{changes_of, compare_where, create, follow, wait_until_in_step};
use crate::harness::{Action, Failure, PATIENCE, Settings, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

#[test]
fn a_table_that_is_added_while_the_publication_is_read_has_not_left() {
    on_its_own_cluster(&Settings::default(), |pair| {
        for table in ["first", "second", "third"] {
            create(pair, table)?;
        }
        pair.source.execute("CREATE PUBLICATION shop FOR TABLE first")?;
        follow(pair, "shop")?;
        pair.wait()?;
        let read = pair.source.cluster().arm("publication_read", Action::Wait, 0)?;
        pair.source.execute("ALTER PUBLICATION shop ADD TABLE second")?;
        read.wait_until_reached()?;
        pair.source.execute("ALTER PUBLICATION shop ADD TABLE third")?;
        let mut session = pair.source.another_session()?;
        let add = format!("SELECT dbmazz_add_table('{}', 'third')", pair.mirror());
        let adding = thread::spawn(move || session.execute(&add));
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%add_table%')";
        wait_until("the table is added, or that waits", PATIENCE, || {
            Ok(adding.is_finished() || pair.source.is_true(waits)?)
        })?;
        drop(read);
        adding.join().map_err(|_| Failure::new("a session of the test has ended"))??;
        wait_until_in_step(pair, "second")?;
        wait_until_in_step(pair, "third")?;
        pair.source.execute(&changes_of("third"))?;
        pair.wait_and_compare(&["first", "second", "third"])?;
        assert!(!pair.has_event("has left publication")?);
        Ok(())
    });
}

#[test]
fn a_publication_is_followed_although_somebody_has_the_mirror_locked() {
    on_a_pair(|pair| {
        for table in ["first", "second", "third"] {
            create(pair, table)?;
        }
        pair.source.execute("CREATE PUBLICATION shop FOR TABLE first, second")?;
        follow(pair, "shop")?;
        pair.wait()?;
        let mut other = pair.source.another_session()?;
        let resync = format!("BEGIN; SELECT dbmazz_resync_table('{}', 'second')", pair.mirror());
        other.execute(&resync)?;
        pair.source.execute("ALTER PUBLICATION shop ADD TABLE third")?;
        // The stream goes on meanwhile, for more than one look.
        for round in 0..5 {
            pair.source.execute(&format!("UPDATE first SET v = 'round {round}' WHERE id % 5 = {round}"))?;
            pair.wait_and_compare(&["first"])?;
            thread::sleep(Duration::from_secs(1));
        }
        assert_eq!(pair.table_state("third")?, None);
        other.execute("ROLLBACK")?;
        wait_until_in_step(pair, "third")?;
        pair.wait_and_compare(&["first", "second", "third"])
    });
}

#[test]
fn what_a_transaction_does_not_see_of_a_publication_joins_later_with_its_filter() {
    on_a_pair(|pair| {
        if pair.is_before(15, "unseen filter", "row filters") {
            return Ok(());
        }
        create(pair, "first")?;
        create(pair, "second")?;
        pair.source.execute("CREATE PUBLICATION shop FOR TABLE first")?;
        let start = pair.start_statement("publication => 'shop'", "{}");
        let mut past = pair.source.another_session()?;
        past.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM first")?;
        pair.source.execute("ALTER PUBLICATION shop ADD TABLE second WHERE (id <= 50)")?;
        past.execute(&start)?;
        past.execute("COMMIT")?;
        wait_until_in_step(pair, "second")?;
        pair.wait_and_compare(&["first"])?;
        compare_where(pair, "second", "id <= 50")?;
        assert!(!pair.has_event("copied again")?);
        Ok(())
    });
}

#[test]
fn a_publication_at_rest_is_not_looked_at() {
    on_its_own_cluster(&Settings::default().set("autovacuum", "off"), |pair| {
        create(pair, "first")?;
        pair.source.execute("CREATE PUBLICATION shop FOR TABLE first")?;
        follow(pair, "shop")?;
        pair.wait()?;
        // Several looks follow the start; then there are none, for longer than two are apart.
        wait_until("nobody looks", PATIENCE, || {
            let look = pair.source.cluster().arm("publication_read", Action::Wait, 0)?;
            thread::sleep(Duration::from_secs(5));
            Ok(!look.is_reached())
        })?;
        pair.source.execute(&changes_of("first"))?;
        pair.wait_and_compare(&["first"])
    });
}

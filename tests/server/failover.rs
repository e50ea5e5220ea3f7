//! Standbys of PostgreSQL 17 and later keep a copy of the slot, and the mirror keeps behind those that must not be lost.

use crate::harness::{Outcome, PATIENCE, Pair, Settings, StopMode, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

fn mirrored_item(pair: &mut Pair) -> Outcome {
    pair.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
    pair.start_mirror(&["item"])?;
    pair.wait()
}

#[test]
fn the_slot_is_one_that_standbys_may_copy() {
    on_a_pair(|pair| {
        if pair.is_before(17, "the_slot_is_one_that_standbys_may_copy", "failover slots") {
            return Ok(());
        }
        mirrored_item(pair)?;
        let sql = format!(
            "SELECT failover AND NOT temporary FROM pg_replication_slots WHERE slot_name = 'dbmazz_{}'",
            pair.mirror()
        );
        assert!(pair.source.is_true(&sql)?);
        Ok(())
    });
}

#[test]
fn changes_that_a_standby_must_have_wait_until_it_has_them() {
    on_its_own_cluster(&Settings::default(), |pair| {
        if pair.is_before(17, "changes_that_a_standby_must_have_wait_until_it_has_them", "failover slots") {
            return Ok(());
        }
        mirrored_item(pair)?;
        // A standby that has stopped receiving, as far as the server can tell. The worker must know the setting before
        // the row is there, hence the restart.
        pair.source.execute("SELECT pg_create_physical_replication_slot('standby', true)")?;
        let cluster = pair.source.cluster();
        cluster.configure(&Settings::default().set("synchronized_standby_slots", "standby"))?;
        cluster.restart(StopMode::Fast)?;
        pair.source.reconnect()?;
        pair.source.execute("INSERT INTO item VALUES (1)")?;

        wait_until("the log says what the mirror waits for", PATIENCE, || {
            Ok(pair.source.cluster().log().contains("\"standby\" specified in parameter"))
        })?;
        assert_eq!(pair.target.count("item")?, 0);

        wait_until("the row arrives when the standby has it", PATIENCE, || {
            pair.source
                .execute("SELECT pg_replication_slot_advance('standby', pg_current_wal_flush_lsn())")?;
            Ok(pair.target.count("item")? == 1)
        })
    });
}

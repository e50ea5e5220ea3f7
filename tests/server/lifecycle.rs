//! Starting, pausing, resuming, changing and dropping a mirror, and waiting for it.

use crate::harness::{Outcome, PATIENCE, Pair, Settings, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

fn mirrored_items(pair: &mut Pair) -> Outcome {
    pair.source
        .execute("CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (1, 'one')")?;
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])
}

fn slots(pair: &mut Pair) -> Outcome<String> {
    let sql =
        format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'dbmazz_{}%'", pair.mirror());
    pair.source.value(&sql)
}

fn workers(pair: &mut Pair) -> Outcome<String> {
    pair.source.value(
        "SELECT count(*) FROM pg_stat_activity
         WHERE backend_type LIKE 'dbmazz %' AND backend_type <> 'dbmazz launcher' AND datname = current_database()",
    )
}

#[test]
fn a_start_that_is_rolled_back_leaves_nothing() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY, v text)")?;
        let start = pair.start_statement("tables => ARRAY['item']::regclass[]", "{}");
        pair.source.execute(&format!("BEGIN; {start}; ROLLBACK"))?;
        assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_stat_mirror")?, "0");
        assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_stat_table")?, "0");
        assert_eq!(slots(pair)?, "0");
        assert!(!pair.target.has("item")?);
        // The name is free, and nothing of the first attempt is in the way.
        pair.source.execute(&start)?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn a_transaction_that_was_open_at_the_start_is_waited_for_and_not_lost() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source
            .execute("CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (1, 'one')")?;
        let mut other = pair.source.another_session()?;
        other.execute("BEGIN; INSERT INTO item VALUES (2, 'open for long')")?;
        let pid = other.value("SELECT pg_backend_pid()")?;
        pair.start_mirror(&["item"])?;
        wait_until("the views say which process the start waits for", PATIENCE, || {
            Ok(pair.views()?.contains(&pid))
        })?;
        other.execute("COMMIT")?;
        pair.source.execute("UPDATE item SET v = 'changed' WHERE id = 2")?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.target.count("item")?, 2);
        assert_eq!(pair.stat("last_error")?, None, "nobody is waited for any more");
        Ok(())
    });
}

#[test]
fn drop_leaves_no_slot_and_no_worker_but_the_target_table() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        assert_eq!(slots(pair)?, "1");
        pair.call("dbmazz_drop_mirror")?;
        wait_until("slot and workers gone", PATIENCE, || Ok(slots(pair)? == "0" && workers(pair)? == "0"))?;
        assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_stat_mirror")?, "0");
        assert_eq!(pair.target.count("item")?, 1);
        // The name can be used again.
        pair.start_mirror(&["item"])?;
        pair.source.execute("INSERT INTO item VALUES (2, 'two')")?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn drop_of_a_missing_mirror_is_an_error_unless_told_otherwise() {
    on_a_pair(|pair| {
        let error = pair.source.error_of("SELECT dbmazz_drop_mirror('nobody')")?;
        assert_eq!(error.code().code(), "42704", "{error}");
        assert!(error.message().contains("nobody"), "{error}");
        pair.source.execute("SELECT dbmazz_drop_mirror('nobody', if_exists => true)")
    });
}

#[test]
fn a_paused_mirror_stands_still_and_resumes_without_a_gap() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        pair.call("dbmazz_pause_mirror")?;
        pair.wait_for_state("paused")?;
        wait_until("no worker while paused", PATIENCE, || Ok(workers(pair)? == "0"))?;
        pair.source.execute("INSERT INTO item SELECT n, 'while paused' FROM generate_series(2, 1000) n")?;
        pair.source.execute("UPDATE item SET v = 'changed' WHERE id = 1; DELETE FROM item WHERE id = 500")?;
        assert_eq!(pair.target.count("item")?, 1);
        assert_eq!(slots(pair)?, "1", "the slot keeps the changes");
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["item"])?;
        pair.wait_for_state("streaming")
    });
}

#[test]
fn wait_says_false_when_the_timeout_comes_first() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        let wait = format!("SELECT dbmazz_wait_mirror('{}', timeout => '300 ms')", pair.mirror());
        pair.call("dbmazz_pause_mirror")?;
        pair.source.execute("INSERT INTO item VALUES (2, 'two')")?;
        assert!(!pair.source.is_true(&wait)?);
        pair.call("dbmazz_resume_mirror")?;
        pair.wait()
    });
}

#[test]
fn wait_comes_back_on_an_idle_server() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        for _ in 0..5 {
            pair.wait()?;
        }
        Ok(())
    });
}

#[test]
fn what_wait_has_seen_is_visible() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        for n in 2..30 {
            pair.source.execute(&format!("INSERT INTO item VALUES ({n}, 'row')"))?;
            pair.wait()?;
            assert_eq!(pair.target.count("item")?, n);
        }
        Ok(())
    });
}

#[test]
fn several_mirrors_of_one_database_do_not_disturb_each_other() {
    on_a_pair(|pair| {
        mirrored_items(pair)?;
        pair.source.execute("CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)")?;
        let second = format!("{}_b", pair.mirror());
        pair.source.execute(&format!(
            "SELECT dbmazz_start_mirror('{second}', 'starrocks', ARRAY['other']::regclass[])"
        ))?;
        pair.source.execute("INSERT INTO other VALUES (2); INSERT INTO item VALUES (2, 'two')")?;
        assert!(pair.source.is_true(&format!("SELECT dbmazz_wait_mirror('{second}')"))?);
        pair.wait_and_compare(&["item", "other"])?;
        pair.source.execute(&format!("SELECT dbmazz_drop_mirror('{second}')"))?;
        pair.source.execute("INSERT INTO item VALUES (3, 'three')")?;
        pair.wait_and_compare(&["item"])
    });
}

//! Transactions larger than the memory of a mirror, and than its stock of labels. The worker sits in one call of the
//! decoder for as long as they last: it waits, asks for labels, empties tables and ends from inside of it.

use crate::harness::{Control, Fault, Outcome, PATIENCE, Pair, wait_for, wait_until};
use crate::on_a_pair;

/// So little that one transaction fills it many times.
const LITTLE_MEMORY: &str = r#"{"memory_limit": "1MB"}"#;
const MEMORY: u64 = 1 << 20;

fn mirrored_items(pair: &mut Pair, options: &str) -> Outcome {
    pair.source
        .execute("CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (0, 'first')")?;
    pair.start_mirror_with("tables => ARRAY['item']::regclass[]", options)?;
    pair.wait_and_compare(&["item"])
}

fn insert(pair: &mut Pair, rows: u32) -> Outcome {
    pair.source.execute(&format!(
        "INSERT INTO item SELECT n, 'row ' || n || repeat('.', 50) FROM generate_series(1, {rows}) n"
    ))
}

fn queued_bytes(pair: &mut Pair) -> Outcome<u64> {
    Ok(pair.stat("queued_bytes")?.unwrap_or_default().parse()?)
}

/// Waits until the memory is full, so that the worker waits inside the transaction.
fn wait_until_full(pair: &mut Pair) -> Outcome {
    wait_until("memory is full", PATIENCE, || Ok(queued_bytes(pair)? > MEMORY / 2))
}

/// Waits until the target is found to refuse the password.
fn wait_until_denied(pair: &mut Pair) -> Outcome {
    wait_until("mirror is retrying", PATIENCE, || {
        Ok(pair.stat("state")?.as_deref() == Some("retrying") && pair.stat("last_error")?.is_some())
    })
}

fn delay_answers(pair: &Pair, millis: u32) -> Outcome {
    pair.starrocks
        .control()
        .map_or(Ok(()), |control| control.set(&Fault::lasting("delay_answer").with(millis)))
}

fn clear(pair: &Pair) -> Outcome {
    pair.starrocks.control().map_or(Ok(()), Control::clear)
}

#[test]
fn a_transaction_that_needs_more_labels_than_are_reserved_gets_through() {
    on_a_pair(|pair| {
        mirrored_items(pair, r#"{"batch_max_rows": 10}"#)?;
        let loads =
            |pair: &mut Pair| -> Outcome<u64> { Ok(pair.stat("loads_total")?.unwrap_or_default().parse()?) };
        let before = loads(pair)?;
        insert(pair, 30_000)?;
        pair.wait_and_compare(&["item"])?;
        let made = loads(pair)? - before;
        assert!(made >= 3000, "{made} loads");
        // No label was ever used that had not been reserved.
        let pairs = "SELECT i.reserved_until > c.label_number FROM dbmazz.checkpoint c JOIN dbmazz.incarnation i USING (mirror, incarnation)";
        assert_eq!(pair.source.value(pairs)?, "t");
        Ok(())
    });
}

#[test]
fn a_transaction_larger_than_the_memory_waits_and_arrives_whole() {
    on_a_pair(|pair| {
        mirrored_items(pair, LITTLE_MEMORY)?;
        delay_answers(pair, 20)?;
        insert(pair, 200_000)?;
        let wait = format!("SELECT dbmazz_wait_mirror('{}', timeout => '10 ms')", pair.mirror());
        let mut most = 0;
        wait_until("transaction has arrived", PATIENCE, || {
            most = most.max(queued_bytes(pair)?);
            pair.source.is_true(&wait)
        })?;
        assert!(most > MEMORY / 2, "the memory was never full: {most} bytes");
        assert!(most < 2 * MEMORY, "{most} bytes were queued");
        clear(pair)?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.target.count("item")?, 200_001);
        Ok(())
    });
}

#[test]
fn a_worker_that_is_terminated_within_a_transaction_reads_it_again() {
    on_a_pair(|pair| {
        mirrored_items(pair, LITTLE_MEMORY)?;
        delay_answers(pair, 100)?;
        pair.source.execute("UPDATE item SET v = 'before'")?;
        insert(pair, 200_000)?;
        pair.source
            .execute("DELETE FROM item WHERE id % 5 = 0; UPDATE item SET v = 'after' WHERE id % 7 = 0")?;
        let mut last = String::new();
        for _ in 0..4 {
            wait_until_full(pair)?;
            let pid =
                wait_for("another worker", PATIENCE, || Ok(pair.stat("pid")?.filter(|pid| *pid != last)))?;
            pair.source.execute(&format!("SELECT pg_terminate_backend({pid})"))?;
            last = pid;
            wait_until("the worker is gone", PATIENCE, || Ok(pair.stat("pid")?.as_ref() != Some(&last)))?;
        }
        clear(pair)?;
        pair.wait_and_compare(&["item"])?;
        pair.wait_for_state("streaming")
    });
}

#[test]
fn a_truncate_within_a_transaction_keeps_its_place_among_delayed_loads() {
    on_a_pair(|pair| {
        mirrored_items(pair, r#"{"batch_max_rows": 200}"#)?;
        pair.source.execute("CREATE TABLE other (id int PRIMARY KEY)")?;
        delay_answers(pair, 300)?;
        pair.source.execute(
            "BEGIN; INSERT INTO item SELECT n, 'before' FROM generate_series(1, 1000) n;
             TRUNCATE item; INSERT INTO item SELECT n, 'after' FROM generate_series(500, 1500) n;
             SAVEPOINT s; TRUNCATE item; INSERT INTO item VALUES (1, 'never'); ROLLBACK TO s;
             UPDATE item SET v = 'last' WHERE id % 10 = 0; COMMIT",
        )?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.target.count("item")?, 1001);
        pair.source.execute(
            "BEGIN; UPDATE item SET v = 'gone'; TRUNCATE item, other; COMMIT; INSERT INTO item VALUES (7, 'seven')",
        )?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.target.count("item")?, 1);
        Ok(())
    });
}

/// The worker cannot read the user mapping inside of the transaction: it ends after half a minute and begins anew.
#[test]
fn a_password_that_is_mended_within_a_transaction_is_picked_up() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("password within a transaction") else { return Ok(()) };
        mirrored_items(pair, LITTLE_MEMORY)?;
        control.set_password("changed")?;
        insert(pair, 100_000)?;
        wait_until_full(pair)?;
        wait_until_denied(pair)?;
        change_password(pair)?;
        pair.wait_and_compare(&["item"])
    });
}

/// A worker that begins asks for the labels of the one before, and is refused too.
#[test]
fn a_password_that_is_mended_while_a_worker_begins_is_picked_up() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("password at the beginning") else { return Ok(()) };
        mirrored_items(pair, LITTLE_MEMORY)?;
        control.set_password("changed")?;
        insert(pair, 100_000)?;
        wait_until_full(pair)?;
        let pid = wait_for("a worker", PATIENCE, || pair.stat("pid"))?;
        pair.source.execute(&format!("SELECT pg_terminate_backend({pid})"))?;
        wait_until("another worker", PATIENCE, || Ok(pair.stat("pid")?.is_some_and(|now| now != pid)))?;
        wait_until_denied(pair)?;
        change_password(pair)?;
        pair.wait_and_compare(&["item"])
    });
}

fn change_password(pair: &mut Pair) -> Outcome {
    pair.source
        .execute("ALTER USER MAPPING FOR CURRENT_USER SERVER starrocks OPTIONS (SET password 'changed')")
}

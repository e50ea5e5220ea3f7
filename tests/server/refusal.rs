//! Rows that the target cannot hold, or does not want: never dropped, never changed in silence.

use crate::harness::{Comparison, Fault, Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

fn measured(pair: &mut Pair, options: &str) -> Outcome {
    pair.source.execute(
        "CREATE TABLE measure (id int PRIMARY KEY, f double precision, d date);
         CREATE TABLE other (id int PRIMARY KEY);
         INSERT INTO measure VALUES (1, 1.5, '2026-01-01')",
    )?;
    pair.start_mirror_with("tables => ARRAY['measure', 'other']::regclass[]", options)?;
    pair.wait_and_compare(&["measure", "other"])
}

/// The way back from `e`: copy again.
fn start_again(pair: &mut Pair) -> Outcome {
    pair.call("dbmazz_drop_mirror")?;
    pair.start_mirror(&["measure", "other"])?;
    pair.wait_and_compare(&["measure", "other"])
}

#[test]
fn a_value_out_of_range_puts_its_table_in_error_and_nothing_else() {
    on_a_pair(|pair| {
        measured(pair, "{}")?;
        pair.source.execute("INSERT INTO measure VALUES (2, 'NaN', '2026-01-01')")?;
        wait_until("table in error", PATIENCE, || Ok(pair.table_state("measure")?.as_deref() == Some("e")))?;
        let reason = pair
            .source
            .value("SELECT last_error FROM dbmazz_stat_table WHERE relation = 'measure'::regclass")?;
        assert!(reason.contains("column \"f\"") && reason.contains("range"), "{reason}");
        let shown = pair.stat("last_error")?.unwrap_or_default();
        assert!(shown.contains("measure") && shown.contains("column \"f\""), "{shown}");
        let behind_it = pair.source.value("SELECT pg_current_wal_insert_lsn()")?;
        pair.source.execute("INSERT INTO other VALUES (7)")?;
        wait_until("the other table goes on", PATIENCE, || Ok(pair.target.count("other")? == 1))?;
        let advanced = format!(
            "SELECT confirmed_flush_lsn > '{behind_it}' FROM pg_replication_slots WHERE slot_name = 'dbmazz_{}'",
            pair.mirror()
        );
        wait_until("the slot goes on", PATIENCE, || pair.source.is_true(&advanced))?;
        let wait = format!("SELECT dbmazz_wait_mirror('{}', timeout => '500 ms')", pair.mirror());
        assert!(!pair.source.is_true(&wait)?, "a mirror with a table in error is not in step");
        pair.source.execute("DELETE FROM measure WHERE id = 2")?;
        start_again(pair)
    });
}

#[test]
fn a_value_out_of_range_becomes_null_when_that_was_asked_for() {
    on_a_pair(|pair| {
        measured(pair, r#"{"on_out_of_range": "null"}"#)?;
        pair.source.execute(
            "INSERT INTO measure VALUES (2, 'NaN', 'infinity'), (3, '-Infinity', '0044-03-15 BC')",
        )?;
        pair.wait()?;
        let table = pair.target.table("measure");
        let nulls = format!("SELECT count(*) FROM {table} WHERE f IS NULL AND d IS NULL");
        assert_eq!(pair.target.value(&nulls)?, "2");
        Ok(())
    });
}

#[test]
fn a_value_out_of_range_is_clamped_when_that_was_asked_for() {
    on_a_pair(|pair| {
        measured(pair, r#"{"on_out_of_range": "clamp"}"#)?;
        pair.source.execute(
            "INSERT INTO measure VALUES (2, 'Infinity', 'infinity'), (3, '-Infinity', '-infinity')",
        )?;
        pair.wait()?;
        let table = pair.target.table("measure");
        let days = pair.target.rows(&format!("SELECT d FROM {table} WHERE id > 1 ORDER BY id"))?;
        let expected = ["9999-12-31", "0000-01-01"].map(|day| vec![Some(day.to_owned())]).to_vec();
        assert_eq!(days, expected);
        let numbers =
            format!("SELECT count(*) FROM {table} WHERE f > 1.7e308 AND id = 2 OR f < -1.7e308 AND id = 3");
        assert_eq!(pair.target.value(&numbers)?, "2");
        Ok(())
    });
}

#[test]
fn a_row_that_the_target_refuses_puts_its_table_in_error() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("refused rows") else { return Ok(()) };
        measured(pair, "{}")?;
        control.set(&Fault::lasting("refuse_rows").on_table("measure"))?;
        pair.source.execute("INSERT INTO measure VALUES (2, 2, '2026-01-02')")?;
        wait_until("table in error", PATIENCE, || Ok(pair.table_state("measure")?.as_deref() == Some("e")))?;
        pair.source.execute("INSERT INTO other VALUES (1)")?;
        wait_until("the other table goes on", PATIENCE, || Ok(pair.target.count("other")? == 1))?;
        control.clear()?;
        start_again(pair)
    });
}

#[test]
fn a_truncate_can_be_ignored() {
    on_a_pair(|pair| {
        measured(pair, r#"{"on_truncate": "ignore"}"#)?;
        pair.source.execute("TRUNCATE measure; INSERT INTO measure VALUES (2, 2, NULL)")?;
        pair.wait()?;
        assert_eq!(pair.target.count("measure")?, 2);
        pair.compare(&Comparison::of("other"))
    });
}

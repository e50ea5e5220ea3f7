//! Rows that are parked while their table goes on: mended by later changes, tried again, forgotten.

use super::{FITS, NARROW, create, kept, other_goes_on, rows, start, wait_for_table};
use crate::harness::{Comparison, Fault, Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

/// The same with the row parked.
const GO_ON: &str = r#"{"column_map": {"public.item.v": "VARCHAR(8)"}, "on_reject": "continue"}"#;

fn started_with(pair: &mut Pair, bad: &[u32]) -> Outcome {
    create(pair)?;
    start(pair, GO_ON)?;
    pair.wait()?;
    rows(pair, 1..=1000, bad)?;
    pair.wait()
}

#[test]
fn a_table_goes_on_without_the_rows_that_are_parked() {
    on_a_pair(|pair| {
        started_with(pair, &[1, 500, 1000])?;
        assert_eq!(pair.table_state("item")?.as_deref(), Some("r"));
        assert_eq!(kept(pair)?, "1,500,1000");
        rows(pair, 1001..=2000, &[1500])?;
        pair.source.execute(
            "UPDATE item SET v = 'later' WHERE id BETWEEN 2 AND 100; DELETE FROM item WHERE id = 3",
        )?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "1,500,1000,1500");
        pair.compare(&Comparison::of("item").rows_where(FITS))?;
        let hint =
            "SELECT hint FROM dbmazz_event WHERE severity = 'warning' AND message LIKE '%refused%' LIMIT 1";
        assert_eq!(pair.source.value(hint)?, "The rows refused are in dbmazz_rejected_row.");
        other_goes_on(pair)
    });
}

#[test]
fn rows_that_are_parked_by_the_copy_are_known_to_the_stream() {
    on_a_pair(|pair| {
        create(pair)?;
        rows(pair, 1..=10_000, &[1, 7777])?;
        start(pair, GO_ON)?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "1,7777");
        pair.compare(&Comparison::of("item").rows_where(FITS))?;
        pair.source.execute("UPDATE item SET v = 'mended' WHERE id = 1; DELETE FROM item WHERE id = 7777")?;
        pair.wait_and_compare(&["item", "other"])?;
        assert_eq!(kept(pair)?, "");
        Ok(())
    });
}

#[test]
fn a_parked_row_is_mended_by_its_next_change() {
    on_a_pair(|pair| {
        started_with(pair, &[1, 2, 3, 4, 5, 6])?;
        assert_eq!(kept(pair)?, "1,2,3,4,5,6");
        // Changed, changed and still bad, deleted, moved away, moved onto, and away and back.
        pair.source.execute(
            "UPDATE item SET v = 'mended' WHERE id = 1;
             UPDATE item SET v = 'still much too long' WHERE id = 2;
             DELETE FROM item WHERE id = 3;
             UPDATE item SET id = 3004, v = 'moved' WHERE id = 4;
             DELETE FROM item WHERE id = 5; UPDATE item SET id = 5 WHERE id = 700;
             UPDATE item SET id = -6 WHERE id = 6; UPDATE item SET id = 6, v = 'back' WHERE id = -6",
        )?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "2");
        pair.compare(&Comparison::of("item").rows_where(FITS))?;
        let reason = "SELECT \"row\"->>'v' FROM dbmazz_rejected_row";
        assert_eq!(pair.source.value(reason)?, "still much too long");
        pair.source.execute("UPDATE item SET v = 'mended' WHERE id = 2")?;
        pair.wait_and_compare(&["item", "other"])?;
        assert_eq!(kept(pair)?, "");
        Ok(())
    });
}

/// A partial update of a row that is not at the target would make one with NULLs.
#[test]
fn a_parked_row_with_unchanged_toast_is_read_from_the_source() {
    for restart in [false, true] {
        on_a_pair(|pair| {
            pair.source.execute(
                "CREATE TABLE item (id int PRIMARY KEY, v text, body text);
                 ALTER TABLE item ALTER body SET STORAGE EXTERNAL;
                 CREATE TABLE other (id int PRIMARY KEY, v text)",
            )?;
            start(pair, GO_ON)?;
            pair.wait()?;
            pair.source.execute(
                "INSERT INTO item SELECT n, 'much too long', repeat('body ' || n, 2000) FROM generate_series(1, 4) n",
            )?;
            pair.wait()?;
            assert_eq!(kept(pair)?, "1,2,3,4");
            if restart {
                terminate(pair)?;
            }
            pair.source.execute(
                "UPDATE item SET v = 'mended' WHERE id = 1; UPDATE item SET v = 'too long still' WHERE id = 2;
                 UPDATE item SET v = 'a' WHERE id = 3; DELETE FROM item WHERE id = 3;
                 UPDATE item SET id = 14, v = 'moved' WHERE id = 4",
            )?;
            pair.wait()?;
            assert_eq!(kept(pair)?, "2");
            pair.compare(&Comparison::of("item").rows_where(FITS))
        });
    }
}

fn terminate(pair: &mut Pair) -> Outcome {
    let mirror = pair.mirror().to_owned();
    pair.source.execute(&format!(
        "SELECT pg_terminate_backend(pid) FROM dbmazz_stat_mirror WHERE mirror = '{mirror}'"
    ))
}

/// Changes are queued behind the load that is refused.
#[test]
fn what_is_queued_behind_a_refused_row_does_not_go_on_top_of_nothing() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("queued changes") else { return Ok(()) };
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text, n int, body text);
             ALTER TABLE item ALTER body SET STORAGE EXTERNAL, ALTER v SET STORAGE EXTERNAL;
             CREATE TABLE other (id int PRIMARY KEY, v text)",
        )?;
        start(pair, GO_ON)?;
        pair.wait()?;
        control.set(&Fault::lasting("hang").on_table("item"))?;
        // The text that is too long is itself not in the log of the updates: each would be taken.
        pair.source.execute(
            "INSERT INTO item SELECT n, repeat('too long', 1000), 0, repeat('body', 2000) FROM generate_series(1, 4) n",
        )?;
        wait_until("a load hangs", PATIENCE, || Ok(control.labels()?.to_string().contains("PREPARE")))?;
        pair.source.execute(
            "UPDATE item SET n = 1; UPDATE item SET v = 'short' WHERE id = 2; UPDATE item SET n = 2 WHERE id = 2;
             DELETE FROM item WHERE id = 3; UPDATE item SET n = 4, v = 'short', body = 'b' WHERE id = 4",
        )?;
        control.clear()?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "1");
        pair.compare(&Comparison::of("item").rows_where(FITS))
    });
}

#[test]
fn rows_that_cannot_be_encoded_are_parked() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text, f double precision);
             CREATE TABLE other (id int PRIMARY KEY, v text);
             INSERT INTO item VALUES (1, 'a', 1), (2, 'b', 'NaN'), (3, 'c', 3)",
        )?;
        start(pair, r#"{"on_reject": "continue"}"#)?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "2");
        pair.source.execute(
            "INSERT INTO item VALUES (4, 'd', 'Infinity'), (5, 'e', 5); UPDATE item SET f = 'NaN' WHERE id = 3;
             UPDATE item SET v = 'x'",
        )?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "2,3,4");
        // The target keeps what it had of a row until that is mended.
        let old = format!("SELECT v FROM {} WHERE id = 3", pair.target.table("item"));
        assert_eq!(pair.target.value(&old)?, "c");
        pair.source.execute("UPDATE item SET f = 0 WHERE id IN (2, 3); DELETE FROM item WHERE id = 4")?;
        pair.wait_and_compare(&["item", "other"])?;
        assert_eq!(kept(pair)?, "");
        Ok(())
    });
}

#[test]
fn keys_that_are_too_long_are_parked_and_go_with_their_rows() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id text PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY, v text)",
        )?;
        start(pair, r#"{"on_reject": "continue"}"#)?;
        pair.wait()?;
        pair.source.execute(
            "INSERT INTO item VALUES ('a', '1'), (repeat('k', 200), '2'), ('b', '3'), (repeat('m', 200), '4')",
        )?;
        pair.wait()?;
        assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_rejected_row")?, "2");
        pair.source.execute(
            "DELETE FROM item WHERE id LIKE 'kkk%'; UPDATE item SET id = 'm' WHERE id LIKE 'mmm%'",
        )?;
        pair.wait_and_compare(&["item"])?;
        assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_rejected_row")?, "0");
        Ok(())
    });
}

#[test]
fn a_truncate_or_another_copy_forgets_what_was_parked() {
    on_a_pair(|pair| {
        started_with(pair, &[1, 2])?;
        pair.source
            .execute("BEGIN; UPDATE item SET v = 'also too long' WHERE id = 4; TRUNCATE item; COMMIT")?;
        rows(pair, 1..=10, &[3])?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "3");
        pair.source.execute(&format!("SELECT dbmazz_resync_table('{}', 'item')", pair.mirror()))?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "3");
        pair.source.execute("UPDATE item SET v = 'short' WHERE id = 3")?;
        pair.source.execute(&format!("SELECT dbmazz_resync_table('{}', 'item')", pair.mirror()))?;
        pair.wait_and_compare(&["item", "other"])?;
        assert_eq!(kept(pair)?, "");
        Ok(())
    });
}

#[test]
fn a_worker_that_ends_while_rows_are_parked_loses_nothing() {
    on_a_pair(|pair| {
        started_with(pair, &[1, 2, 3])?;
        for round in 0..3 {
            let first = 2000 + round * 1000;
            rows(pair, first..=first + 999, &[first + 5, first + 500])?;
            pair.source.execute(&format!("UPDATE item SET v = 'm{round}' WHERE id = {}", round + 1))?;
            terminate(pair)?;
        }
        pair.wait()?;
        assert_eq!(kept(pair)?, "2005,2500,3005,3500,4005,4500");
        pair.compare(&Comparison::of("item").rows_where(FITS))?;
        other_goes_on(pair)
    });
}

#[test]
fn too_many_bad_rows_of_one_load_stop_a_table_that_goes_on() {
    on_a_pair(|pair| {
        create(pair)?;
        start(pair, &GO_ON.replace("VARCHAR(8)", "VARCHAR(2)"))?;
        pair.wait()?;
        rows(pair, 1..=3000, &[])?;
        wait_for_table(pair, "item", "e")?;
        assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_rejected_row")?, "1001");
        other_goes_on(pair)
    });
}

#[test]
fn changes_without_a_key_are_counted_and_kept_where_the_table_goes_on() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int, v text); CREATE TABLE other (id int PRIMARY KEY, v text);
             INSERT INTO item SELECT n, 'copied' FROM generate_series(1, 1500) n",
        )?;
        start(pair, GO_ON)?;
        pair.wait()?;
        pair.source.execute("UPDATE item SET v = 'changed' WHERE id = 7; DELETE FROM item WHERE id = 8")?;
        rows(pair, 2001..=2100, &[2050])?;
        pair.wait()?;
        assert_eq!(pair.table_state("item")?.as_deref(), Some("r"));
        assert_eq!(pair.target.count("item")?, 1599);
        let reasons = "SELECT count(*) FILTER (WHERE reason LIKE '%no key%'), count(*), max(\"row\"->>'v') FILTER (WHERE key IS NULL)
                       FROM dbmazz_rejected_row";
        let expected = ["2", "3", "changed"].map(|text| Some(text.to_owned())).to_vec();
        assert_eq!(pair.source.rows(reasons)?, vec![expected]);
        pair.source.execute("UPDATE item SET v = 'again'")?;
        pair.wait()?;
        let counted = "SELECT rejected FROM dbmazz_stat_table WHERE relation = 'item'::regclass";
        wait_until("all are counted", PATIENCE, || Ok(pair.source.value(counted)? == "1602"))?;
        assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_rejected_row")?, "1001");
        other_goes_on(pair)
    });
}

#[test]
fn a_retry_loads_the_rows_that_the_target_takes_by_now() {
    on_a_pair(|pair| {
        started_with(pair, &[1, 2, 3])?;
        let retry = format!("SELECT dbmazz_retry_rejected('{}')", pair.mirror());
        assert_eq!(pair.source.value(&retry)?, "0");
        assert_eq!(kept(pair)?, "1,2,3");
        let target = pair.target.table("item");
        pair.target.execute(&format!("ALTER TABLE {target} MODIFY COLUMN v VARCHAR(100)"))?;
        let relation = format!("SELECT dbmazz_retry_rejected('{}', 'item')", pair.mirror());
        wait_until("the target takes longer texts", PATIENCE, || {
            pair.source.value(&relation)?;
            Ok(kept(pair)?.is_empty())
        })?;
        pair.wait_and_compare(&["item", "other"])
    });
}

/// No change of the table has come since its copy.
#[test]
fn a_retry_loads_rows_that_the_copy_has_parked() {
    on_a_pair(|pair| {
        create(pair)?;
        rows(pair, 1..=100, &[50, 51])?;
        start(pair, GO_ON)?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "50,51");
        let target = pair.target.table("item");
        pair.target.execute(&format!("ALTER TABLE {target} MODIFY COLUMN v VARCHAR(100)"))?;
        let retry = format!("SELECT dbmazz_retry_rejected('{}')", pair.mirror());
        let mut loaded = 0;
        wait_until("the target takes longer texts", PATIENCE, || {
            loaded += pair.source.value(&retry)?.parse::<u32>()?;
            Ok(kept(pair)?.is_empty())
        })?;
        assert_eq!(loaded, 2);
        pair.compare(&Comparison::of("item"))
    });
}

#[test]
fn a_retry_copies_a_table_in_error_again() {
    on_a_pair(|pair| {
        create(pair)?;
        start(pair, NARROW)?;
        rows(pair, 1..=100, &[50, 51])?;
        wait_for_table(pair, "item", "e")?;
        pair.source.execute("UPDATE item SET v = 'short' WHERE id IN (50, 51)")?;
        let retry = format!("SELECT dbmazz_retry_rejected('{}')", pair.mirror());
        assert_eq!(pair.source.value(&retry)?, "2");
        pair.wait_and_compare(&["item", "other"])?;
        assert_eq!(pair.source.value(&retry)?, "0");
        Ok(())
    });
}

#[test]
fn a_retry_needs_a_mirror_that_runs() {
    on_a_pair(|pair| {
        started_with(pair, &[1])?;
        pair.call("dbmazz_pause_mirror")?;
        let retry = format!("SELECT dbmazz_retry_rejected('{}')", pair.mirror());
        let error = pair.source.error_of(&retry)?;
        assert!(error.message().contains("does not stream"), "{}", error.message());
        assert!(error.hint().is_some_and(|hint| hint.contains("dbmazz_resume_mirror")));
        pair.call("dbmazz_resume_mirror")?;
        let error = pair.source.error_of("SELECT dbmazz_retry_rejected('nowhere')")?;
        assert!(error.message().contains("does not exist"), "{}", error.message());
        let other = format!("SELECT dbmazz_skip_rejected('{}', 'pg_class')", pair.mirror());
        assert!(pair.source.error_of(&other)?.message().contains("does not have"));
        Ok(())
    });
}

#[test]
fn rows_that_are_skipped_are_forgotten_and_still_not_updated_in_part() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text, body text);
             ALTER TABLE item ALTER body SET STORAGE EXTERNAL; CREATE TABLE other (id int PRIMARY KEY, v text)",
        )?;
        start(pair, GO_ON)?;
        pair.wait()?;
        pair.source.execute(
            "INSERT INTO item SELECT n, 'much too long', repeat('body ' || n, 2000) FROM generate_series(1, 3) n",
        )?;
        pair.wait()?;
        let skip = format!("SELECT dbmazz_skip_rejected('{}', 'item')", pair.mirror());
        assert_eq!(pair.source.value(&skip)?, "3");
        assert_eq!((kept(pair)?, pair.source.value(&skip)?), (String::new(), "0".to_owned()));
        let shown = "SELECT rejected FROM dbmazz_stat_table WHERE relation = 'item'::regclass";
        assert_eq!(pair.source.value(shown)?, "0");
        terminate(pair)?;
        pair.source.execute(
            "UPDATE item SET v = 'mended' WHERE id = 1; UPDATE item SET v = 'again too long' WHERE id = 2",
        )?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "2");
        pair.compare(&Comparison::of("item").rows_where(FITS))
    });
}

/// The same through pgoutput, for a publication with a row filter.
#[test]
fn rows_that_pgoutput_brings_are_parked_and_mended() {
    on_a_pair(|pair| {
        if pair.is_before(15, "rejected rows of a publication", "row filters") {
            return Ok(());
        }
        create(pair)?;
        rows(pair, 1..=100, &[7])?;
        pair.source.execute("CREATE PUBLICATION part FOR TABLE item WHERE (id > 0), other")?;
        pair.start_mirror_with("publication => 'part'", GO_ON)?;
        pair.wait()?;
        rows(pair, 101..=200, &[150, 151])?;
        pair.source.execute("INSERT INTO item VALUES (-1, 'much too long')")?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "7,150,151");
        pair.source.execute(
            "UPDATE item SET v = 'short' WHERE id = 7; DELETE FROM item WHERE id = 150; UPDATE item SET id = -151 WHERE id = 151",
        )?;
        pair.wait()?;
        assert_eq!(kept(pair)?, "");
        pair.compare(&Comparison::of("item").rows_where("id > 0"))
    });
}

//! Rows that somebody refuses: found, kept, and told; the rest arrives, and nothing else stops.

mod parked;

use crate::harness::{Comparison, Fault, Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

/// The target takes eight bytes of `v`.
const NARROW: &str = r#"{"column_map": {"public.item.v": "VARCHAR(8)"}}"#;

const FITS: &str = "octet_length(v) <= 8";

fn rows(pair: &mut Pair, numbers: std::ops::RangeInclusive<u32>, bad: &[u32]) -> Outcome {
    let list = bad.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let long = if list.is_empty() { "false".to_owned() } else { format!("n IN ({list})") };
    pair.source.execute(&format!(
        "INSERT INTO item SELECT n, CASE WHEN {long} THEN 'much too long' ELSE 'row ' || n % 1000 END
         FROM generate_series({}, {}) n",
        numbers.start(),
        numbers.end()
    ))
}

fn create(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, v text);
         CREATE TABLE other (id int PRIMARY KEY, v text);
         INSERT INTO other SELECT n, 'o' FROM generate_series(1, 10) n",
    )
}

fn start(pair: &mut Pair, options: &str) -> Outcome {
    pair.start_mirror_with("tables => ARRAY['item', 'other']::regclass[]", options)
}

fn wait_for_table(pair: &mut Pair, table: &str, state: &str) -> Outcome {
    let what = format!("table {table} in state {state}");
    wait_until(&what, PATIENCE, || Ok(pair.table_state(table)?.as_deref() == Some(state)))
}

/// The rows that are kept, by number.
fn kept(pair: &mut Pair) -> Outcome<String> {
    let sql = "SELECT coalesce(string_agg(\"row\"->>'id', ',' ORDER BY (\"row\"->>'id')::int), '') FROM dbmazz_rejected_row";
    pair.source.value(sql)
}

/// The other table of the mirror goes on.
fn other_goes_on(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "UPDATE other SET v = v || 'x'; INSERT INTO other SELECT coalesce(max(id), 0) + 1, 'n' FROM other",
    )?;
    wait_until("the other table goes on", PATIENCE, || Ok(pair.compare(&Comparison::of("other")).is_ok()))
}

/// All good rows are at the target.
fn good_rows_are_there(pair: &mut Pair) -> Outcome {
    wait_until("the good rows are there", PATIENCE, || {
        Ok(pair.compare(&Comparison::of("item").rows_where(FITS)).is_ok())
    })?;
    pair.compare(&Comparison::of("item").rows_where(FITS))
}

#[test]
fn a_poison_row_among_ten_thousand_is_found_and_kept() {
    on_a_pair(|pair| {
        create(pair)?;
        start(pair, NARROW)?;
        pair.wait()?;
        let before = pair.source.value("SELECT pg_current_wal_insert_lsn()")?;
        rows(pair, 1..=10_000, &[5000])?;
        let after = pair.source.value("SELECT pg_current_wal_insert_lsn()")?;
        other_goes_on(pair)?;
        wait_for_table(pair, "item", "e")?;
        good_rows_are_there(pair)?;
        let row = pair.source.rows(&format!(
            "SELECT relation::text, key, \"row\"::text, lsn > '{before}' AND lsn <= '{after}', reason
             FROM dbmazz_rejected_row WHERE mirror = '{}'",
            pair.mirror()
        ))?;
        let expected = ["item", r#"{"id":5000}"#, r#"{"v": "much too long", "id": 5000}"#, "t"];
        let found: Vec<String> = row.concat().into_iter().flatten().collect();
        assert_eq!(found[..4], expected);
        assert!(found[4].contains("much too long") || found[4].contains("filtered"), "{}", found[4]);
        let shown = "SELECT rejected, last_error FROM dbmazz_stat_table WHERE relation = 'item'::regclass";
        let shown: Vec<String> = pair.source.rows(shown)?.concat().into_iter().flatten().collect();
        assert_eq!(shown[0], "1");
        assert!(shown[1].contains("refused a row") && !shown[1].contains("much too long"), "{}", shown[1]);
        let hint = "SELECT hint FROM dbmazz_event WHERE severity = 'error' LIMIT 1";
        assert!(pair.source.value(hint)?.contains("dbmazz_rejected_row"));
        Ok(())
    });
}

#[test]
fn bad_rows_are_found_wherever_they_are() {
    for bad in [&[1][..], &[1000], &[1, 2, 500, 777, 1000]] {
        on_a_pair(|pair| {
            create(pair)?;
            start(pair, NARROW)?;
            pair.wait()?;
            rows(pair, 1..=1000, bad)?;
            wait_for_table(pair, "item", "e")?;
            let list = bad.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            assert_eq!(kept(pair)?, list);
            good_rows_are_there(pair)?;
            other_goes_on(pair)
        });
    }
}

#[test]
fn a_poison_row_is_found_during_the_copy() {
    on_a_pair(|pair| {
        create(pair)?;
        rows(pair, 1..=10_000, &[1, 7777, 10_000])?;
        start(pair, NARROW)?;
        wait_for_table(pair, "item", "e")?;
        assert_eq!(kept(pair)?, "1,7777,10000");
        let lsn = "SELECT count(*) FROM dbmazz_rejected_row WHERE lsn IS NULL";
        assert_eq!(pair.source.value(lsn)?, "3");
        good_rows_are_there(pair)?;
        other_goes_on(pair)
    });
}

#[test]
fn a_table_with_bad_rows_is_mended_by_another_copy() {
    on_a_pair(|pair| {
        create(pair)?;
        start(pair, NARROW)?;
        rows(pair, 1..=100, &[50])?;
        wait_for_table(pair, "item", "e")?;
        pair.source.execute("UPDATE item SET v = 'short' WHERE id = 50")?;
        pair.source.execute(&format!("SELECT dbmazz_resync_table('{}', 'item')", pair.mirror()))?;
        pair.wait_and_compare(&["item", "other"])?;
        assert_eq!(kept(pair)?, "");
        Ok(())
    });
}

#[test]
fn a_table_all_of_whose_rows_are_refused_is_given_up_soon() {
    on_a_pair(|pair| {
        create(pair)?;
        start(pair, r#"{"column_map": {"public.item.v": "VARCHAR(2)"}}"#)?;
        pair.wait()?;
        rows(pair, 1..=10_000, &[])?;
        wait_for_table(pair, "item", "e")?;
        let error = "SELECT last_error FROM dbmazz_stat_table WHERE relation = 'item'::regclass";
        let error = pair.source.value(error)?;
        assert!(error.contains("refused 101 rows of one load"), "{error}");
        assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_rejected_row")?, "101");
        other_goes_on(pair)
    });
}

#[test]
fn a_row_that_cannot_be_encoded_is_kept_too() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text, f double precision);
             CREATE TABLE other (id int PRIMARY KEY, v text); CREATE TABLE copied (id int PRIMARY KEY, d date);
             INSERT INTO copied VALUES (1, '2026-01-01'), (2, 'infinity'), (3, '2026-01-03')",
        )?;
        pair.start_mirror_with("tables => ARRAY['item', 'other', 'copied']::regclass[]", "{}")?;
        pair.wait_for_state("streaming")?;
        pair.source.execute(
            "INSERT INTO item VALUES (1, 'good', 1), (2, repeat('x', 100), 'NaN'), (3, 'late', 3)",
        )?;
        for table in ["item", "copied"] {
            wait_for_table(pair, table, "e")?;
        }
        other_goes_on(pair)?;
        let rows = pair.source.rows(
            "SELECT relation::text, key, lsn IS NULL, \"row\"->>'f', \"row\"->>'d', reason FROM dbmazz_rejected_row
             ORDER BY relation::text",
        )?;
        let text = |row: &[Option<String>]| row[..5].iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(text(&rows[0]), r#"copied {"id":2} t infinity"#);
        assert_eq!(text(&rows[1]), r#"item {"id":2} f NaN"#);
        for (row, column) in rows.iter().zip(["d", "f"]) {
            let reason = row[5].as_deref().unwrap_or_default();
            assert!(reason.contains(&format!("column \"{column}\": its value is out of range")), "{reason}");
        }
        wait_until("what came before is there", PATIENCE, || Ok(pair.target.count("item")? == 1))?;
        wait_until("what was read before is there", PATIENCE, || Ok(pair.target.count("copied")? == 1))
    });
}

#[test]
fn a_bad_row_in_a_load_of_unknown_outcome_is_found() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("unknown outcomes") else { return Ok(()) };
        create(pair)?;
        start(pair, NARROW)?;
        pair.wait()?;
        // Of parts that are loaded the outcome is not known either: some got through, some did not.
        control.set(&Fault::times("cut_after_commit", 3).on_table("item"))?;
        control.set(&Fault::times("fail_commit_unknown", 2).on_table("item").with("aborted"))?;
        control.set(&Fault::times("cut_before_commit", 2).on_table("item"))?;
        rows(pair, 1..=1000, &[3, 998])?;
        wait_for_table(pair, "item", "e")?;
        assert_eq!(kept(pair)?, "3,998");
        good_rows_are_there(pair)?;
        other_goes_on(pair)
    });
}

#[test]
fn a_bad_row_without_a_key_is_found() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int, v text); CREATE TABLE other (id int PRIMARY KEY, v text);
             INSERT INTO item SELECT n, 'copied' FROM generate_series(1, 100) n",
        )?;
        start(pair, NARROW)?;
        pair.wait()?;
        rows(pair, 101..=200, &[150])?;
        wait_for_table(pair, "item", "e")?;
        assert_eq!(kept(pair)?, "150");
        wait_until("the good rows are there", PATIENCE, || Ok(pair.target.count("item")? == 199))?;
        other_goes_on(pair)
    });
}

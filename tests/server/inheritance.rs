//! Plain inheritance: parents and children are tables of their own, each mirrored by itself.

use crate::harness::{Comparison, Outcome, Pair};
use crate::on_a_pair;

fn create(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE city (id int PRIMARY KEY, name text);
         CREATE TABLE capital (state text, PRIMARY KEY (id)) INHERITS (city);
         INSERT INTO city SELECT n, 'city ' || n FROM generate_series(1, 50) n;
         INSERT INTO capital SELECT n, 'capital ' || n, 's' FROM generate_series(101, 130) n",
    )
}

const CHANGES: &str = "UPDATE city SET name = name || '!' WHERE id % 2 = 0;
    INSERT INTO city VALUES (51, 'new'); INSERT INTO capital VALUES (131, 'new', 's');
    DELETE FROM city WHERE id % 10 = 0";

/// The rows of the table alone.
fn only(pair: &mut Pair, table: &str) -> Outcome {
    let source = format!("ONLY {table}");
    let rows = pair.source.rows(&format!("SELECT id, name FROM {source} ORDER BY id"))?;
    let target = pair.target.table(table);
    assert_eq!(pair.target.rows(&format!("SELECT id, name FROM {target} ORDER BY id"))?, rows, "{table}");
    Ok(())
}

#[test]
fn a_parent_is_mirrored_without_its_children() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.start_mirror(&["city"])?;
        pair.wait()?;
        only(pair, "city")?;
        pair.source.execute(CHANGES)?;
        pair.wait()?;
        only(pair, "city")?;
        pair.source.execute(
            "TRUNCATE ONLY city; UPDATE city SET name = 'of a child'; INSERT INTO city VALUES (1, 'one')",
        )?;
        pair.wait()?;
        only(pair, "city")
    });
}

#[test]
fn a_child_is_mirrored_with_all_of_its_columns() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.start_mirror(&["capital"])?;
        pair.source.execute(CHANGES)?;
        pair.wait_and_compare(&["capital"])
    });
}

#[test]
fn parent_and_child_are_two_tables() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.start_mirror_with("", "{}")?;
        pair.wait()?;
        pair.source.execute(CHANGES)?;
        pair.wait()?;
        only(pair, "city")?;
        pair.compare(&Comparison::of("capital"))?;
        pair.source.execute("TRUNCATE city; INSERT INTO city VALUES (1, 'one')")?;
        pair.wait()?;
        only(pair, "city")?;
        pair.compare(&Comparison::of("capital"))
    });
}

#[test]
fn columns_that_a_parent_gets_come_to_its_children() {
    on_a_pair(|pair| {
        create(pair)?;
        pair.start_mirror(&["city", "capital"])?;
        pair.wait()?;
        pair.source.execute(
            "ALTER TABLE city ADD COLUMN people int DEFAULT 5; UPDATE city SET people = id WHERE id % 3 = 0;
             ALTER TABLE capital NO INHERIT city; UPDATE city SET name = 'apart'",
        )?;
        pair.wait_and_compare(&["city", "capital"])
    });
}

//! Names of tables and columns as odd as both sides allow.

use crate::harness::Comparison;
use crate::on_a_pair;

/// Each is the name of a column, and of a table of its own.
const NAMES: &[&str] = &[
    "CamelCase",
    "select",
    "order",
    "with space",
    "  both ends ",
    "quote\"d",
    "it's",
    "back`tick",
    "back\\slash",
    "comma,",
    "semi;colon",
    "dot.ted",
    "100%",
    "$dollar",
    "#hash",
    "-- comment",
    "// x",
    "{\"json\"}",
    "größe",
    "日本語",
    "🐘",
    "null",
    "default",
    "1",
    "dbmazz_hex_1",
    "a23456789b123456789c123456789d123456789e123456789f123456789g123",
];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[test]
fn columns_of_any_name_are_copied_updated_and_deleted() {
    on_a_pair(|pair| {
        let names: Vec<String> = NAMES.iter().map(|name| quoted(name)).collect();
        let columns: Vec<String> = names.iter().map(|name| format!("{name} text")).collect();
        let values: Vec<String> =
            NAMES.iter().map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
        let (columns, values) = (columns.join(", "), values.join(", "));
        pair.source.execute(&format!(
            "CREATE TABLE item (\"the Key`\" int PRIMARY KEY, {columns}, \"by\" bytea);
             INSERT INTO item VALUES (1, {values}, 'x'), (2, {values}, 'y')"
        ))?;
        pair.start_mirror(&["item"])?;
        pair.source.execute(&format!("INSERT INTO item VALUES (3, {values}, 'z')"))?;
        for name in &names {
            pair.source.execute(&format!("UPDATE item SET {name} = {name} || '!' WHERE \"the Key`\" = 1"))?;
        }
        pair.source.execute("DELETE FROM item WHERE \"the Key`\" = 2")?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn tables_of_any_name_are_copied_and_streamed() {
    on_a_pair(|pair| {
        let names: Vec<String> = NAMES.iter().map(|name| quoted(name)).collect();
        for name in &names {
            pair.source.execute(&format!(
                "CREATE TABLE {name} (id int PRIMARY KEY); INSERT INTO {name} VALUES (1)"
            ))?;
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        pair.start_mirror(&names)?;
        for name in &names {
            pair.source
                .execute(&format!("INSERT INTO {name} VALUES (2); UPDATE {name} SET id = 3 WHERE id = 1"))?;
        }
        pair.wait()?;
        for (name, target) in names.iter().zip(NAMES) {
            pair.compare(&Comparison::of(name).with_target(target))?;
        }
        Ok(())
    });
}

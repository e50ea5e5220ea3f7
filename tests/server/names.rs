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
    "ключ ключ ключ ключ ключ ключ ключ",
    "[a].b[0]",
    "$.a",
    "a/b?c&d#e",
    "__op_",
    "%41",
    "\\n",
    "'; DROP TABLE item; --",
    "columns:",
    "a:b,c",
    "`both`",
    "\u{feff}mark",
    "e\u{301}",
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
fn keys_of_any_name_are_found_again() {
    on_a_pair(|pair| {
        let [first, second] = ["größe of \"it's\" `key\\", "select"].map(quoted);
        pair.source.execute(&format!(
            "CREATE TABLE item ({first} int, {second} text, v text, big text, PRIMARY KEY ({second}, {first}));
             ALTER TABLE item ALTER big SET STORAGE EXTERNAL;
             INSERT INTO item SELECT n, 'k' || n, 'v', repeat('b', 3000) FROM generate_series(1, 20) n"
        ))?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        pair.source.execute(&format!(
            "UPDATE item SET v = 'u' WHERE {first} < 5; DELETE FROM item WHERE {first} = 7;
             UPDATE item SET {second} = 'moved' WHERE {first} = 8; UPDATE item SET {first} = 99 WHERE {first} = 9"
        ))?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn columns_get_names_of_any_kind_while_they_are_mirrored() {
    on_a_pair(|pair| {
        pair.source
            .execute("CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (1, 'a')")?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        let [first, second, third] = ["it's `a` \"name\"\\", "größe 🐘", "order by"].map(quoted);
        pair.source.execute(&format!(
            "ALTER TABLE item RENAME v TO {first}; ALTER TABLE item ADD COLUMN {second} varchar(4) DEFAULT 'it''s';
             INSERT INTO item VALUES (2, 'b', 'c'); ALTER TABLE item RENAME {second} TO {third};
             ALTER TABLE item ALTER {third} TYPE varchar(400); INSERT INTO item VALUES (3, 'b', repeat('x', 100));
             ALTER TABLE item DROP COLUMN {first}; INSERT INTO item VALUES (4, 'd')"
        ))?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn columns_that_the_target_cannot_have_or_tell_apart_are_refused_before_the_start() {
    on_a_pair(|pair| {
        for (columns, expected) in [
            ("\"Id\" int", "differ only by case"),
            ("\"a=b\" int", "does not allow"),
            ("\"line\nbreak\" int", "does not allow"),
            ("\"__OP\" int", "does not allow"),
        ] {
            pair.source.execute(&format!(
                "DROP TABLE IF EXISTS item; CREATE TABLE item (id int PRIMARY KEY, {columns})"
            ))?;
            let sql = pair.start_statement("tables => ARRAY['item']::regclass[]", "{}");
            let refused = pair.source.error_of(&sql)?;
            assert!(refused.message().contains(expected), "{columns}: {refused}");
            assert!(
                refused.hint().is_some_and(|hint| hint.contains("RENAME COLUMN")),
                "{columns}: {refused}"
            );
        }
        Ok(())
    });
}

#[test]
fn tables_whose_names_differ_by_case_alone_are_two_tables() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY); CREATE TABLE \"Item\" (id int PRIMARY KEY, v text);
             INSERT INTO item VALUES (1); INSERT INTO \"Item\" VALUES (2, 'a')",
        )?;
        pair.start_mirror(&["item", "\"Item\""])?;
        pair.source.execute(
            "INSERT INTO item VALUES (3); UPDATE \"Item\" SET v = 'b'; DELETE FROM item WHERE id = 1",
        )?;
        pair.wait_and_compare(&["item"])?;
        pair.compare(&Comparison::of("\"Item\"").with_target("Item"))
    });
}

#[test]
fn one_name_in_two_schemas_needs_a_map() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE SCHEMA \"S.\"; CREATE TABLE item (id int PRIMARY KEY); CREATE TABLE \"S.\".item (id int PRIMARY KEY, v text);
             INSERT INTO item VALUES (1); INSERT INTO \"S.\".item VALUES (2, 'a')",
        )?;
        let tables = "tables => ARRAY['item', '\"S.\".item']::regclass[]";
        let sql = pair.start_statement(tables, "{}");
        let refused = pair.source.error_of(&sql)?;
        assert!(refused.message().contains("have the same target"), "{refused}");
        assert!(refused.hint().is_some_and(|hint| hint.contains("table_map")), "{refused}");
        pair.start_mirror_with(tables, r#"{"table_map": {"S..item": "it''s \"other\" item"}}"#)?;
        pair.source.execute("INSERT INTO item VALUES (3); UPDATE \"S.\".item SET v = 'b'")?;
        pair.wait_and_compare(&["item"])?;
        pair.compare(&Comparison::of("\"S.\".item").with_target("it's \"other\" item"))
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

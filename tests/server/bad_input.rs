//! What cannot be mirrored is refused at once: with a SQLSTATE, in words that name the object, with advice, with every
//! other failure beside it, and with nothing left behind.

use postgres::error::DbError;

use crate::harness::{Fault, Outcome, Pair};
use crate::{on_a_pair, shared_cluster};

/// The error of a start, which must not have left anything.
fn refused(pair: &mut Pair, arguments: &str, options: &str) -> Outcome<DbError> {
    let start = pair.start_statement(arguments, options);
    let error = pair.source.error_of(&start)?;
    assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_stat_mirror")?, "0", "after {error}");
    let slots =
        format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'dbmazz_{}'", pair.mirror());
    assert_eq!(pair.source.value(&slots)?, "0", "after {error}");
    Ok(error)
}

/// Everything that an error says.
fn text_of(error: &DbError) -> String {
    format!(
        "{}\n{}\n{}",
        error.message(),
        error.detail().unwrap_or_default(),
        error.hint().unwrap_or_default()
    )
}

/// An error is clear when it has a code of its own, says each of these words, and advises.
#[track_caller]
fn assert_clear(error: &DbError, codes: &[&str], words: &[&str]) {
    assert!(codes.contains(&error.code().code()), "SQLSTATE {} of: {}", error.code().code(), text_of(error));
    assert!(
        error.detail().is_some() || error.hint().is_some(),
        "neither detail nor hint: {}",
        error.message()
    );
    for word in words {
        assert!(text_of(error).contains(word), "\"{word}\" is not in: {}", text_of(error));
    }
}

/// The start of a mirror of one table, made by `create`, must be refused.
fn refused_table(create: &str, codes: &[&str], words: &[&str]) {
    on_a_pair(|pair| {
        pair.source.execute(create)?;
        let error = refused(pair, "tables => ARRAY['item']::regclass[]", "{}")?;
        assert_clear(&error, codes, words);
        assert!(!pair.target.has("item")?);
        Ok(())
    });
}

const NOT_FIT: &[&str] = &["55000", "42809", "0A000", "42P16", "22023"];

#[test]
fn an_unlogged_table_is_refused() {
    refused_table("CREATE UNLOGGED TABLE item (id int PRIMARY KEY)", NOT_FIT, &["item", "unlogged"]);
}

#[test]
fn a_temporary_table_is_refused() {
    refused_table("CREATE TEMPORARY TABLE item (id int PRIMARY KEY)", NOT_FIT, &["item", "temporary"]);
}

#[test]
fn a_view_is_refused() {
    refused_table("CREATE VIEW item AS SELECT 1 AS id", NOT_FIT, &["item", "view"]);
}

#[test]
fn a_foreign_table_is_refused() {
    refused_table(
        "CREATE FOREIGN DATA WRAPPER none; CREATE SERVER away FOREIGN DATA WRAPPER none;
         CREATE FOREIGN TABLE item (id int) SERVER away",
        NOT_FIT,
        &["item", "foreign"],
    );
}

#[test]
fn a_system_catalog_is_refused() {
    on_a_pair(|pair| {
        let error = refused(pair, "tables => ARRAY['pg_class']::regclass[]", "{}")?;
        assert_clear(&error, NOT_FIT, &["pg_class"]);
        Ok(())
    });
}

#[test]
fn a_key_that_starrocks_cannot_have_is_refused() {
    refused_table("CREATE TABLE item (id double precision PRIMARY KEY)", NOT_FIT, &["item", "id"]);
}

#[test]
fn two_tables_of_one_name_are_refused() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE SCHEMA other; CREATE TABLE item (id int PRIMARY KEY); CREATE TABLE other.item (id int PRIMARY KEY)",
        )?;
        let error = refused(pair, "tables => ARRAY['item', 'other.item']::regclass[]", "{}")?;
        assert_clear(&error, &["42710", "42P07", "55000", "22023"], &["item", "table_map"]);
        Ok(())
    });
}

#[test]
fn several_failures_are_reported_at_once() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE UNLOGGED TABLE light (id int PRIMARY KEY); CREATE TABLE floating (v float PRIMARY KEY); CREATE VIEW seen AS SELECT 1",
        )?;
        let tables = "ARRAY['light', 'floating', 'seen']::regclass[]";
        let error = refused(pair, &format!("tables => {tables}"), "{}")?;
        assert_clear(&error, NOT_FIT, &["light", "floating", "seen"]);
        let failed = pair.source.rows(&format!(
            "SELECT detail, hint FROM dbmazz_check_mirror('starrocks', {tables}) WHERE NOT ok"
        ))?;
        let text: String = failed.iter().flatten().flatten().cloned().collect();
        assert!(failed.len() >= 3, "{text}");
        for name in ["light", "floating", "seen"] {
            assert!(text.contains(name), "{text}");
        }
        assert!(
            failed.iter().all(|row| row.last().is_some_and(Option::is_some)),
            "each failure has a hint: {text}"
        );
        Ok(())
    });
}

#[test]
fn an_unrecognized_server_option_is_refused_with_the_valid_ones() {
    on_a_pair(|pair| {
        let error = pair.source.error_of(
            "CREATE SERVER s FOREIGN DATA WRAPPER dbmazz_starrocks OPTIONS (load_ulr 'http://localhost:8030')",
        )?;
        assert_clear(&error, &["HV00D", "22023"], &["load_ulr", "load_url", "sql_host"]);
        Ok(())
    });
}

#[test]
fn an_unrecognized_mirror_option_is_refused_with_the_valid_ones() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        let error = refused(pair, "tables => ARRAY['item']::regclass[]", r#"{"flush_intervall": "1s"}"#)?;
        assert_clear(&error, &["22023"], &["flush_intervall", "flush_interval"]);
        let error = refused(pair, "tables => ARRAY['item']::regclass[]", r#"{"on_delete": "perhaps"}"#)?;
        assert_clear(&error, &["22023"], &["on_delete", "perhaps"]);
        Ok(())
    });
}

#[test]
fn a_partitioned_table_and_its_partition_are_not_mirrored_both() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
             CREATE TABLE item_1 PARTITION OF item FOR VALUES FROM (1) TO (2);
             INSERT INTO item VALUES (1, 1), (2, 1)",
        )?;
        let error = refused(pair, "tables => ARRAY['item_1', 'item']::regclass[]", "{}")?;
        assert_clear(&error, &["42710"], &["item_1", "item", "partition"]);
        pair.start_mirror(&["item_1"])?;
        pair.source.execute("INSERT INTO item VALUES (3, 1)")?;
        pair.wait_and_compare(&["item_1"])?;
        let mirror = pair.mirror().to_owned();
        let error = pair.source.error_of(&format!("SELECT dbmazz_add_table('{mirror}', 'item')"))?;
        assert_clear(&error, &["42710"], &["item_1", "item", "partition"]);
        Ok(())
    });
}

#[test]
fn a_name_that_a_slot_cannot_have_is_refused() {
    on_a_pair(|pair| {
        let names = ["", "Upper", "with-dash", "a23456789_123456789_123456789_123456789_1"];
        for name in names {
            let error =
                pair.source.error_of(&format!("SELECT dbmazz_start_mirror('{name}', 'starrocks')"))?;
            assert!(["22023", "42602"].contains(&error.code().code()), "{name}: {error}");
        }
        Ok(())
    });
}

#[test]
fn a_name_that_is_taken_is_refused() {
    on_a_pair(|pair| {
        pair.source
            .execute("CREATE TABLE item (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)")?;
        pair.start_mirror(&["item"])?;
        let again = pair.start_statement("tables => ARRAY['other']::regclass[]", "{}");
        let error = pair.source.error_of(&again)?;
        assert_eq!(error.code().code(), "42710", "{}", text_of(&error));
        assert!(text_of(&error).contains(pair.mirror()), "{}", text_of(&error));
        pair.wait()?;
        assert!(!pair.target.has("other")?);
        Ok(())
    });
}

#[test]
fn a_name_that_another_database_has_taken_is_refused() {
    on_a_pair(|first| {
        first.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        first.start_mirror(&["item"])?;
        first.wait()?;
        let mut second = Pair::new(&shared_cluster())?;
        second.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        let error = second.source.error_of(&format!(
            "SELECT dbmazz_start_mirror('{}', 'starrocks', ARRAY['item']::regclass[])",
            first.mirror()
        ))?;
        assert_eq!(error.code().code(), "42710", "{}", text_of(&error));
        first.wait()
    });
}

#[test]
fn a_server_that_is_not_there_is_refused() {
    on_a_pair(|pair| {
        let error = pair.source.error_of("SELECT dbmazz_start_mirror('x', 'no_server')")?;
        assert_eq!(error.code().code(), "42704", "{}", text_of(&error));
        assert!(text_of(&error).contains("no_server"));
        Ok(())
    });
}

#[test]
fn a_server_without_user_mapping_is_refused() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY); DROP USER MAPPING FOR CURRENT_USER SERVER starrocks",
        )?;
        let error = refused(pair, "tables => ARRAY['item']::regclass[]", "{}")?;
        assert_clear(&error, &["42704", "55000", "28000"], &["user mapping", "starrocks"]);
        Ok(())
    });
}

#[test]
fn a_publication_that_is_not_there_is_refused() {
    on_a_pair(|pair| {
        let error = refused(pair, "publication => 'no_publication'", "{}")?;
        assert_eq!(error.code().code(), "42704", "{}", text_of(&error));
        assert!(text_of(&error).contains("no_publication"));
        Ok(())
    });
}

#[test]
fn an_fe_that_does_not_answer_is_refused() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        // Port 1 of this machine: nobody listens there.
        pair.source.execute("ALTER SERVER starrocks OPTIONS (SET load_url 'http://127.0.0.1:1')")?;
        let error = refused(pair, "tables => ARRAY['item']::regclass[]", "{}")?;
        assert_clear(&error, &["08006", "08001"], &["127.0.0.1:1"]);
        Ok(())
    });
}

/// The frontend answers and redirects; where it leads to, nobody listens.
#[test]
fn a_backend_that_does_not_answer_is_refused() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("backend down") else { return Ok(()) };
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        control.set(&Fault::lasting("close_be"))?;
        let error = refused(pair, "tables => ARRAY['item']::regclass[]", "{}")?;
        assert_clear(&error, &["08006"], &["backend", "backend_host"]);
        assert!(error.hint().is_some(), "{}", text_of(&error));
        assert!(!pair.target.has("item")?);
        let checks = "SELECT check_name, hint IS NOT NULL FROM dbmazz_check_mirror('starrocks', ARRAY['item']::regclass[])";
        let failed = pair.source.rows(&format!("{checks} WHERE NOT ok"))?;
        assert_eq!(failed, vec![vec![Some("backend".to_owned()), Some("t".to_owned())]]);
        control.clear()?;
        assert!(pair.source.rows(&format!("{checks} WHERE NOT ok"))?.is_empty());
        pair.start_mirror(&["item"])?;
        pair.wait()
    });
}

#[test]
fn a_wrong_password_is_refused_and_not_shown() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY)")?;
        pair.source.execute(
            "ALTER USER MAPPING FOR CURRENT_USER SERVER starrocks OPTIONS (SET password 'wrong-secret')",
        )?;
        let error = refused(pair, "tables => ARRAY['item']::regclass[]", "{}")?;
        assert_clear(&error, &["28P01", "28000", "08006", "08001", "08004"], &["denied"]);
        assert!(!text_of(&error).contains("wrong-secret"), "{}", text_of(&error));
        assert!(
            !pair
                .source
                .cluster()
                .log()
                .lines()
                .any(|line| line.contains("wrong-secret") && !line.contains("STATEMENT"))
        );
        Ok(())
    });
}

#[test]
fn a_caller_without_rights_is_refused() {
    on_a_pair(|pair| {
        let role = format!("reader_{}", pair.source.name());
        pair.source.execute(&format!(
            "CREATE TABLE item (id int PRIMARY KEY); CREATE ROLE {role}; GRANT SELECT ON item TO {role}; SET ROLE {role}"
        ))?;
        let start = pair.start_statement("tables => ARRAY['item']::regclass[]", "{}");
        let error = pair.source.error_of(&start)?;
        pair.source.execute("RESET ROLE")?;
        assert_eq!(error.code().code(), "42501", "{}", text_of(&error));
        Ok(())
    });
}

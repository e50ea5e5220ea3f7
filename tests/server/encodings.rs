//! Source databases whose encoding is not UTF8: what arrives is UTF-8 on every path, and what cannot be is refused.

use crate::harness::{Outcome, PATIENCE, Pair, wait_until};
use crate::{run_with, shared_cluster};

const COLUMNS: &str =
    "t text, v varchar(20), c char(4), e mood, j json, jb jsonb, a text[], r pair, n numeric, b bytea";

fn in_encoding(encoding: &str, test: impl FnOnce(&mut Pair) -> Outcome) {
    let pair = Pair::in_encoding(&shared_cluster(), encoding).unwrap_or_else(|failure| panic!("{failure}"));
    run_with(pair, test);
}

/// A table whose key and values all have the word in them, once streamed from the tuple and once by pgoutput.
fn send(pair: &mut Pair, word: &str) -> Outcome {
    let row = |key: &str| {
        format!(
            "('{key}{word}', '{word}', '{word}', '{word}', '{word}', '{{\"k{word}\": \"{word}\"}}', '{{\"k{word}\": \"{word}\"}}',
              ARRAY['{word}', NULL], ROW(1, '{word}'), 1.5, '\\x00ff')"
        )
    };
    let has_lists = !pair.is_before(15, "encodings", "column lists");
    let tables: &[&str] = if has_lists { &["plain", "listed"] } else { &["plain"] };
    pair.source.execute(&format!(
        "CREATE TYPE mood AS ENUM ('sad', '{word}'); CREATE TYPE pair AS (n int, t text);"
    ))?;
    for table in tables {
        pair.source.execute(&format!(
            "CREATE TABLE {table} (k varchar(30) PRIMARY KEY, {COLUMNS}, secret text);
             ALTER TABLE {table} ALTER t SET STORAGE EXTERNAL; INSERT INTO {table} VALUES {}",
            row("copied")
        ))?;
    }
    let list = if has_lists { ", listed (k, t, v, c, e, j, jb, a, r, n, b)" } else { "" };
    pair.source.execute(&format!("CREATE PUBLICATION words FOR TABLE plain{list}"))?;
    pair.start_mirror_with("publication => 'words'", "{}")?;
    pair.wait()?;
    for table in tables {
        pair.source.execute(&format!(
            "INSERT INTO {table} VALUES {}, {}, {};
             UPDATE {table} SET t = repeat(t, 5000) WHERE k = 'moved{word}'",
            row("sent"),
            row("moved"),
            row("gone")
        ))?;
        pair.wait()?;
        // The long text is not in the log of these: one goes as a partial update, of the other the row is read by its key.
        pair.source.execute(&format!("UPDATE {table} SET n = 2.5 WHERE k = 'moved{word}'"))?;
        pair.source.execute(&format!("UPDATE {table} SET k = 'new{word}' WHERE k = 'moved{word}'"))?;
        pair.source.execute(&format!("DELETE FROM {table} WHERE k = 'gone{word}'"))?;
        pair.wait()?;
        check(pair, table, word)?;
    }
    Ok(())
}

fn check(pair: &mut Pair, table: &str, word: &str) -> Outcome {
    let target = pair.target.table(table);
    let rows =
        pair.target.rows(&format!("SELECT k, v, c, e, a, r, n, j, jb, t FROM {target} ORDER BY n, k"))?;
    let padded = format!("{word}{}", " ".repeat(4 - word.chars().count()));
    let expected = |key: &str, number: &str, text: String| {
        let (array, pair) = (format!("{{{word},NULL}}"), format!("(1,{word})"));
        [
            format!("{key}{word}"),
            word.to_owned(),
            padded.clone(),
            word.to_owned(),
            array,
            pair,
            number.to_owned(),
            text,
        ]
    };
    let mut found = vec![];
    for row in rows {
        let mut row: Vec<String> = row.into_iter().flatten().collect();
        let text = row.pop().unwrap_or_default();
        for _ in 0..2 {
            let document: serde_json::Value = serde_json::from_str(&row.pop().unwrap_or_default())?;
            assert_eq!(document, serde_json::json!({ (format!("k{word}")): word }), "{table}");
        }
        row.push(text);
        found.push(row);
    }
    assert_eq!(
        found,
        [
            expected("copied", "1.5", word.to_owned()).to_vec(),
            expected("sent", "1.5", word.to_owned()).to_vec(),
            expected("new", "2.5", word.repeat(5000)).to_vec(),
        ],
        "{table}"
    );
    Ok(())
}

#[test]
fn texts_of_a_latin1_database_arrive_in_utf8() {
    in_encoding("LATIN1", |pair| send(pair, "äßÿ"));
}

#[test]
fn texts_of_a_euc_jp_database_arrive_in_utf8() {
    in_encoding("EUC_JP", |pair| send(pair, "日本語"));
}

#[test]
fn valid_texts_of_an_sql_ascii_database_arrive_as_they_are() {
    // Its characters are bytes: three letters of two bytes each would not fit into char(4).
    in_encoding("SQL_ASCII", |pair| send(pair, "abc"));
}

#[test]
fn text_that_has_no_form_in_utf8_puts_its_table_into_error() {
    for (encoding, text) in [("SQL_ASCII", "E'\\xff'"), ("EUC_JP", "convert_from('\\xfefe', 'EUC_JP')")] {
        in_encoding(encoding, |pair| {
            pair.source.execute(&format!(
                "CREATE TABLE copied (id int PRIMARY KEY, t text); CREATE TABLE sent (id int PRIMARY KEY, t text);
                 CREATE TABLE listed (id int PRIMARY KEY, t text, secret text);
                 CREATE TABLE fine (id int PRIMARY KEY, t text); INSERT INTO copied VALUES (1, {text})"
            ))?;
            let has_lists = !pair.is_before(15, "encodings", "column lists");
            let list = if has_lists { "listed (id, t)" } else { "listed" };
            pair.source.execute(&format!("CREATE PUBLICATION texts FOR TABLE copied, sent, fine, {list}"))?;
            pair.start_mirror_with("publication => 'texts'", "{}")?;
            pair.wait_for_state("streaming")?;
            for table in ["sent", "listed"] {
                pair.source.execute(&format!("INSERT INTO {table} VALUES (1, {text})"))?;
            }
            pair.source.execute("INSERT INTO fine VALUES (1, 'x')")?;
            for table in ["copied", "sent", "listed"] {
                let what = format!("table {table} in error");
                wait_until(&what, PATIENCE, || Ok(pair.table_state(table)?.as_deref() == Some("e")))?;
                let reason = pair.source.value(&format!(
                    "SELECT last_error FROM dbmazz_stat_table WHERE relation = '{table}'::regclass"
                ))?;
                assert!(reason.contains("column \"t\": its value is not UTF-8"), "{encoding}: {reason}");
            }
            assert_eq!(
                pair.source.value("SELECT count(*) FROM dbmazz_rejected_row WHERE key = '{\"id\":1}'")?,
                "3"
            );
            wait_until("the other table follows", PATIENCE, || Ok(pair.target.count("fine")? == 1))
        });
    }
}

#[test]
fn names_beyond_ascii_are_refused_where_texts_are_converted() {
    in_encoding("LATIN1", |pair| {
        pair.source.execute("CREATE TABLE item (id int PRIMARY KEY, \"größe\" int)")?;
        let error =
            pair.source.error_of(&pair.start_statement("tables => ARRAY['item']::regclass[]", "{}"))?;
        assert!(error.message().contains("characters beyond ASCII"), "{}", error.message());
        Ok(())
    });
}

/// What the administrator sets for clients must not reach what pgoutput writes.
#[test]
fn client_encoding_of_the_database_changes_nothing() {
    in_encoding("UTF8", |pair| {
        let database = pair.source.name().to_owned();
        pair.source.execute(&format!("ALTER DATABASE {database} SET client_encoding = 'LATIN1'"))?;
        send(pair, "äßÿ")
    });
}

/// Keys are written down in the encoding of the database, and known again after a restart.
#[test]
fn rejected_rows_are_told_and_known_again_in_any_encoding() {
    for (encoding, word) in [("LATIN1", "äßÿ"), ("EUC_JP", "日本語"), ("UTF8", "日本語😀")] {
        in_encoding(encoding, |pair| {
            pair.source.execute(&format!(
                "CREATE TABLE item (k text PRIMARY KEY, v text, body text);
                 ALTER TABLE item ALTER body SET STORAGE EXTERNAL;
                 INSERT INTO item VALUES ('\\u00e4\"{word}', 'much too long {word}', repeat('{word}', 1000))"
            ))?;
            let options = r#"{"on_reject": "continue", "column_map": {"public.item.v": "VARCHAR(12)"}}"#;
            pair.start_mirror_with("tables => ARRAY['item']::regclass[]", options)?;
            pair.wait()?;
            assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_rejected_row")?, "1", "{encoding}");
            pair.source.execute("UPDATE item SET v = 'short'")?;
            pair.wait()?;
            assert_eq!(pair.source.value("SELECT count(*) FROM dbmazz_rejected_row")?, "0", "{encoding}");
            let target = pair.target.table("item");
            let row = pair.target.rows(&format!("SELECT v, char_length(body) FROM {target}"))?;
            let length = (1000 * word.chars().count()).to_string();
            assert_eq!(row, [[Some("short".to_owned()), Some(length)]], "{encoding}");
            Ok(())
        });
    }
}

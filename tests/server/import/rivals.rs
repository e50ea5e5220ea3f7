//! Imports at once, and clients that write meanwhile.

use super::{checked, database, digests, ended, import, keep_rows_out, start, wait_for_step};
use crate::harness::{Database, HandExport, Outcome, PATIENCE, wait_until};

const TABLE: &str = "CREATE TABLE t (id integer PRIMARY KEY, v text)";

/// An export of a thousand rows, and a database that has their table.
fn prepared(chunks: u32) -> Outcome<(Database, HandExport, Database)> {
    let (mut source, mut target) = (database(), database());
    source.execute(
        "CREATE TABLE t (id integer, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 1000) i",
    )?;
    let export = HandExport::of(&mut source, chunks)?;
    target.execute("CREATE TABLE t (id integer, v text)")?;
    Ok((source, export, target))
}

#[test]
fn equal_imports_at_once_load_rows_once() {
    let run = || -> Outcome {
        let (mut source, export, mut target) = prepared(2)?;
        let mut writer = keep_rows_out(&target, "t")?;
        let (mut first, mut second) = (target.another_session()?, target.another_session()?);
        let arguments = format!("'{}'", export.destination());
        first.execute("BEGIN")?;
        second.execute("BEGIN")?;
        let ids = [start(&mut first, &arguments)?, start(&mut second, &arguments)?];
        first.execute("COMMIT")?;
        second.execute("COMMIT")?;
        let looked = "SELECT count(*) = 2 FROM dbmazz.import i WHERE state = 'failed' OR EXISTS (
            SELECT FROM dbmazz.import_step s WHERE s.import_id = i.import_id AND s.phase = 1 AND s.state = 'r')";
        wait_until("both have looked whether the table is empty", PATIENCE, || target.is_true(looked))?;
        writer.execute("COMMIT")?;
        let mut states = Vec::new();
        for id in &ids {
            states.push(ended(&mut target, id)?);
        }
        assert_eq!(digests(&mut source)?, digests(&mut target)?, "{states:?}");
        states.sort();
        assert_eq!(states[0].0, "done", "{states:?}");
        assert!(states[1].0 == "failed" && states[1].1.contains("is filling public.t"), "{states:?}");
        // Asked for again, there is nothing to go on with.
        let (state, error) = import(&mut target, &arguments)?;
        assert!(state == "failed" && error.contains("has rows already"), "{state}: {error}");
        Ok(())
    };
    checked(run());
}

#[test]
fn import_with_other_options_is_refused_while_one_fills_the_table() {
    let run = || -> Outcome {
        let (mut source, export, mut target) = prepared(1)?;
        let mut writer = keep_rows_out(&target, "t")?;
        let first = start(&mut target, &format!("'{}'", export.destination()))?;
        wait_for_step(&mut target, &first, "phase = 1")?;
        let other = format!(
            r#"'{}', ARRAY['t'], options => '{{"workers": 1, "schema": false}}'"#,
            export.destination()
        );
        let second = start(&mut target, &other)?;
        let failure = target.error_of(&format!("SELECT dbmazz_wait_export({second})"))?;
        assert!(failure.message().contains(&format!("import {first} is filling public.t")), "{failure}");
        assert!(failure.hint().is_some_and(|hint| hint.contains("dbmazz_cancel_export")), "{failure:?}");
        let error = target.error_of(&format!("SELECT dbmazz_import('{}')", export.destination()))?;
        assert!(error.message().contains("is running"), "{error}");
        writer.execute("COMMIT")?;
        assert_eq!(ended(&mut target, &first)?.0, "done");
        assert_eq!(digests(&mut source)?, digests(&mut target)?);
        // What was planned beside the other one is forgotten.
        let (state, error) = import(&mut target, &other)?;
        assert!(state == "failed" && error.contains("has rows already"), "{state}: {error}");
        Ok(())
    };
    checked(run());
}

#[test]
fn rows_that_clients_write_meanwhile_stay() {
    let run = || -> Outcome {
        let (_source, export, mut target) = prepared(1)?;
        let mut writer = keep_rows_out(&target, "t")?;
        let id = start(&mut target, &format!("'{}'", export.destination()))?;
        wait_for_step(&mut target, &id, "phase = 1")?;
        writer.execute("INSERT INTO t VALUES (-1, 'mine'); COMMIT")?;
        assert_eq!(ended(&mut target, &id)?.0, "done");
        assert_eq!(target.value("SELECT count(*) || ' ' || min(id) FROM t")?, "1001 -1");
        Ok(())
    };
    checked(run());
}

#[test]
fn table_that_is_named_twice_is_loaded_once() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source
            .execute("CREATE TABLE p (id integer); CREATE TABLE q (id integer); INSERT INTO p VALUES (1)")?;
        let export = HandExport::of(&mut source, 1)?;
        let named = format!("'{}', ARRAY['p', 'q', 'public.p']", export.destination());
        assert_eq!(import(&mut target, &named)?.0, "done");
        assert_eq!(digests(&mut source)?, digests(&mut target)?);
        Ok(())
    };
    checked(run());
}

#[test]
fn table_that_somebody_else_creates_first_must_be_empty() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(TABLE)?;
        source.execute("CREATE TABLE a (); INSERT INTO t VALUES (1, 'theirs')")?;
        let export = HandExport::of(&mut source, 1)?;
        // The import waits for the name, and finds the table there.
        let mut other = target.another_session()?;
        other.execute("BEGIN")?;
        other.execute(TABLE)?;
        other.execute("INSERT INTO t VALUES (2, 'mine')")?;
        let id = start(&mut target, &format!("'{}'", export.destination()))?;
        wait_for_step(&mut target, &id, "relation = 'public.a'")?;
        other.execute("COMMIT")?;
        let (state, error) = ended(&mut target, &id)?;
        assert!(
            state == "failed" && (error.contains("has rows already") || error.contains("duplicate key")),
            "{state}: {error}"
        );
        assert_eq!(target.value("SELECT string_agg(v, ',') FROM t")?, "mine");
        Ok(())
    };
    checked(run());
}

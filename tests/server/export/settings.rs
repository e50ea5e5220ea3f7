//! What a database says of its sessions, and its encoding.

use super::{export, place, start, wait};
use crate::harness::Pair;
use crate::{on_a_pair, run_with, shared_cluster};

/// Each statement of pg_dump's would wait for a moment without transactions like that which waits for the export.
#[test]
fn an_export_does_not_wait_for_transactions_of_its_database() {
    on_a_pair(|pair| {
        let database = pair.source.name().to_owned();
        pair.source.execute("CREATE TABLE calm AS SELECT n FROM generate_series(1, 10) n")?;
        for setting in ["isolation = serializable", "deferrable = on", "read_only = on"] {
            pair.source.execute(&format!("ALTER DATABASE {database} SET default_transaction_{setting}"))?;
        }
        pair.source.reconnect()?;
        pair.source.execute("SET default_transaction_read_only = off")?;
        let directory = place(pair, "calm")?;
        let id = start(pair, &directory, &[], "{}")?;
        let outcome = pair.source.is_true(&format!("SELECT dbmazz_wait_export({id}, '30 s')"));
        pair.source.execute(&format!("ALTER DATABASE {database} RESET ALL"))?;
        assert!(outcome?, "it waits");
        Ok(())
    });
}

#[test]
fn a_transaction_that_may_not_write_starts_no_export() {
    on_a_pair(|pair| {
        let path = place(pair, "read_only")?.display().to_string();
        for call in [format!("dbmazz_export('{path}')"), "dbmazz_resume_export(1)".to_owned()] {
            let error = pair.source.error_of(&format!("BEGIN READ ONLY; SELECT {call}"))?;
            assert_eq!(error.code().code(), "25006", "{error}");
            pair.source.execute("ROLLBACK")?;
        }
        Ok(())
    });
}

#[test]
fn what_a_database_in_another_encoding_cannot_export_is_refused() {
    let pair = Pair::in_encoding(&shared_cluster(), "LATIN1").unwrap_or_else(|failure| panic!("{failure}"));
    run_with(pair, |pair| {
        let path = place(pair, "latin1")?.display().to_string();
        let refused = |pair: &mut Pair, call: &str, words: &str| {
            let error = pair.source.error_of(&format!("SELECT {call}"))?;
            assert_eq!(error.code().code(), "0A000", "{error}");
            assert!(error.message().contains(words), "{error}");
            assert!(error.hint().is_some(), "{error}");
            crate::harness::Outcome::Ok(())
        };
        pair.source.execute("CREATE TABLE plain AS SELECT 'äöü'::text AS v")?;
        export(pair, path.as_ref(), &[], "{}")?;
        refused(pair, &format!("dbmazz_export('{path}/ü')"), "argument \"destination\"")?;
        refused(pair, &format!("dbmazz_export('{path}2', server => 'ü')"), "argument \"server\"")?;
        refused(pair, &format!("* FROM dbmazz_estimate_export(destination => '{path}/ü')"), "destination")?;
        for (make, drop) in [
            ("CREATE TABLE \"ü\" (n int)", "DROP TABLE \"ü\""),
            ("CREATE TABLE named (\"ü\" int)", "DROP TABLE named"),
            (
                "CREATE TYPE \"ü\" AS ENUM ('a'); CREATE TABLE typed (n \"ü\")",
                "DROP TABLE typed; DROP TYPE \"ü\"",
            ),
            ("CREATE SEQUENCE \"ü\"", "DROP SEQUENCE \"ü\""),
        ] {
            pair.source.execute(make)?;
            refused(pair, &format!("dbmazz_export('{path}2')"), "name \"")?;
            if !make.contains("SEQUENCE") {
                refused(pair, "* FROM dbmazz_estimate_export()", "name \"")?;
            }
            pair.source.execute(drop)?;
        }
        let id = start(pair, format!("{path}2").as_ref(), &["plain"], "{}")?;
        wait(pair, id)
    });
}

//! Foreign keys that are there before the rows.

use super::{checked, database, import, import_all, start};
use crate::harness::{Database, HandExport, Outcome};

/// The tables of both databases, with rows in the first.
fn both(tables: &str, rows: &str) -> Outcome<(Database, HandExport, Database)> {
    let (mut source, mut target) = (database(), database());
    source.execute(tables)?;
    source.execute(rows)?;
    let export = HandExport::of(&mut source, 1)?;
    target.execute(tables)?;
    Ok((source, export, target))
}

#[test]
fn references_to_a_partitioned_table_hold() {
    let run = || -> Outcome {
        let (_source, export, mut target) = both(
            "CREATE TABLE p (id integer PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             CREATE TABLE c (id integer REFERENCES p) PARTITION BY LIST (id);
             CREATE TABLE c1 PARTITION OF c DEFAULT; CREATE TABLE d (id integer REFERENCES p)",
            "INSERT INTO p VALUES (1), (11); INSERT INTO c VALUES (1), (11), (NULL); INSERT INTO d VALUES (1), (11)",
        )?;
        import_all(&mut target, &export, "{}")
    };
    checked(run());
}

#[test]
fn references_of_partitions_are_looked_at() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(
            "CREATE TABLE c (id integer) PARTITION BY LIST (id);
             CREATE TABLE c1 PARTITION OF c FOR VALUES IN (1); CREATE TABLE c2 PARTITION OF c FOR VALUES IN (2);
             INSERT INTO c VALUES (1), (2)",
        )?;
        let export = HandExport::of(&mut source, 1)?;
        // A partition is there, and the other one comes to it.
        target.execute(
            "CREATE TABLE p (id integer PRIMARY KEY); CREATE TABLE c (id integer REFERENCES p) PARTITION BY LIST (id);
             CREATE TABLE c1 PARTITION OF c FOR VALUES IN (1)",
        )?;
        let (state, error) = import(&mut target, &format!("'{}'", export.destination()))?;
        let named =
            ["public.c1", "public.c2"].iter().all(|name| error.contains(&format!("rows of {name} violate")));
        assert!(state == "failed" && named, "{state}: {error}");
        Ok(())
    };
    checked(run());
}

/// A type whose equality is another one than that of the search path.
const LOOSE: &str = "
    CREATE SCHEMA loose; CREATE DOMAIN loose.word AS text;
    CREATE COLLATION loose.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE p (w text COLLATE loose.any_case PRIMARY KEY); CREATE TABLE c (w text REFERENCES p)";

#[test]
fn references_are_compared_as_the_constraint_does() {
    let run = || -> Outcome {
        let (_source, export, mut target) =
            both(LOOSE, "INSERT INTO p VALUES ('Word'); INSERT INTO c VALUES ('wORD')")?;
        import_all(&mut target, &export, "{}")?;
        let citext = "SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'";
        if target.value(citext)? == "0" {
            return Ok(());
        }
        let (_source, export, mut target) = both(
            "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext;
             CREATE TABLE p (w ext.citext, n bigint, v varchar(5), PRIMARY KEY (w, n, v));
             CREATE TABLE c (w ext.citext, n integer, v varchar(9), FOREIGN KEY (w, n, v) REFERENCES p)",
            "INSERT INTO p VALUES ('Word', 1, 'x'); INSERT INTO c VALUES ('wORD', 1, 'x')",
        )?;
        import_all(&mut target, &export, "{}")
    };
    checked(run());
}

#[test]
fn rows_that_are_null_in_part_violate_match_full() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(
            "CREATE TABLE c (a integer, b integer); INSERT INTO c VALUES (1, NULL), (NULL, NULL), (1, 2)",
        )?;
        let export = HandExport::of(&mut source, 1)?;
        target.execute(
            "CREATE TABLE p (a integer, b integer, PRIMARY KEY (a, b)); INSERT INTO p VALUES (1, 2);
             CREATE TABLE c (a integer, b integer, CONSTRAINT full_one FOREIGN KEY (a, b) REFERENCES p MATCH FULL,
                 CONSTRAINT simple_one FOREIGN KEY (a, b) REFERENCES p)",
        )?;
        let arguments = format!("'{}'", export.destination());
        let id = start(&mut target, &arguments)?;
        let failure = target.error_of(&format!("SELECT dbmazz_wait_export({id})"))?;
        let message = failure.message();
        assert!(message.contains("full_one") && !message.contains("simple_one"), "{message}");
        assert!(message.contains("they are committed"), "{message}");
        // The error has the query that finds them.
        let search = message.split('"').nth(1).unwrap_or_default();
        assert_eq!(target.value(&format!("SELECT count(*) FROM ({search}) found"))?, "1");
        target.execute("DELETE FROM c WHERE a = 1 AND b IS NULL")?;
        assert_eq!(import(&mut target, &arguments)?.0, "done");
        Ok(())
    };
    checked(run());
}

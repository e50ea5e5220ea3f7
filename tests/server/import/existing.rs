//! Tables and other objects that are there.

use dbmazz::export::checksum::Checksum;

use super::{checked, comes_back, database, definition, digests, import, import_all, start};
use crate::harness::{Database, HandExport, Outcome};

#[test]
fn partitioned_table_with_a_primary_key_may_be_there() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        let tables = "CREATE TABLE p (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE INDEX ON p (v)";
        source.execute(tables)?;
        target.execute(tables)?;
        source.execute("INSERT INTO p SELECT i, i FROM generate_series(0, 9) i")?;
        comes_back(&mut source, &mut target)
    };
    checked(run());
}

#[test]
fn partition_comes_to_a_table_that_is_there() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        let tables =
            "CREATE TABLE p (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE INDEX ON p (v);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)";
        source.execute(tables)?;
        target.execute(tables)?;
        source.execute("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)")?;
        source.execute("INSERT INTO p SELECT i, i FROM generate_series(0, 19) i")?;
        comes_back(&mut source, &mut target)
    };
    checked(run());
}

#[test]
fn index_whose_name_is_taken_is_an_error_at_the_end() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(
            "CREATE TABLE t (id integer CONSTRAINT taken PRIMARY KEY, v text); CREATE INDEX ti ON t (v)",
        )?;
        source.execute("INSERT INTO t VALUES (1, 'x')")?;
        let export = HandExport::of(&mut source, 1)?;
        target.execute("CREATE TABLE other (id integer); CREATE INDEX ti ON other (id); CREATE INDEX taken ON other (id)")?;
        let arguments = format!("'{}'", export.destination());
        let (state, error) = import(&mut target, &arguments)?;
        let named = ["ti", "taken"]
            .iter()
            .all(|name| error.contains(&format!("could not create index {name} on public.t")));
        assert!(state == "failed" && named, "{state}: {error}");
        assert_eq!(target.value("SELECT v FROM t")?, "x");
        target.execute("DROP TABLE other")?;
        assert_eq!(import(&mut target, &arguments)?.0, "done");
        assert_eq!(definition(&source)?, definition(&target)?);
        Ok(())
    };
    checked(run());
}

#[test]
fn view_in_the_place_of_a_table_is_named_as_such() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute("CREATE TABLE t (id integer)")?;
        let export = HandExport::of(&mut source, 1)?;
        target.execute("CREATE SEQUENCE t")?;
        assert!(import(&mut target, &format!("'{}'", export.destination()))?.1.contains("public.t is there"));
        target.execute("DROP SEQUENCE t; CREATE VIEW t AS SELECT 1 AS id")?;
        let (state, error) = import(&mut target, &format!("'{}'", export.destination()))?;
        assert!(
            state == "failed" && error.contains("public.t is there and is not a table"),
            "{state}: {error}"
        );
        Ok(())
    };
    checked(run());
}

#[test]
fn csv_with_values_outside_is_refused_before_anything_is_done() {
    use dbmazz::export::chunk::Format;
    use dbmazz::export::manifest::Blobs;
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute("CREATE TABLE t (v text)")?;
        let mut export = HandExport::of(&mut source, 1)?;
        export.manifest.options.format = Format::Csv;
        export.manifest.options.blobs = Blobs::External;
        export.manifest.tables[0].columns[0].external = true;
        export.write_manifest()?;
        let (state, error) = import(&mut target, &format!("'{}'", export.destination()))?;
        assert!(state == "failed" && error.contains("CSV with values outside"), "{state}: {error}");
        assert!(target.is_true("SELECT to_regclass('t') IS NULL")?);
        Ok(())
    };
    checked(run());
}

#[test]
fn advice_comes_with_the_error() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute("CREATE TABLE t (id integer); INSERT INTO t VALUES (1)")?;
        let export = HandExport::of(&mut source, 1)?;
        target.execute("CREATE TABLE t (id integer); INSERT INTO t VALUES (1)")?;
        let id = start(&mut target, &format!("'{}'", export.destination()))?;
        let failure = target.error_of(&format!("SELECT dbmazz_wait_export({id})"))?;
        assert!(failure.hint().is_some_and(|hint| hint.contains("truncate")), "{failure:?}");
        let mut source = database();
        source.execute("SELECT lo_create(4242)")?;
        let export = HandExport::of(&mut source, 1)?;
        target.execute("TRUNCATE t; SELECT lo_create(4242)")?;
        let id = start(&mut target, &format!("'{}', options => '{{\"workers\": 2}}'", export.destination()))?;
        let failure = target.error_of(&format!("SELECT dbmazz_wait_export({id})"))?;
        assert!(failure.hint().is_some_and(|hint| hint.contains("large_objects")), "{failure:?}");
        Ok(())
    };
    checked(run());
}

/// Replaces words of a script.
fn rewrite(export: &mut HandExport, words: &[(&str, &str)]) -> Outcome {
    let schema = &mut export.manifest.schema;
    for file in [&mut schema.pre_data, &mut schema.post_data] {
        let path = export.path.join(&file.file);
        let mut text = std::fs::read_to_string(&path)?;
        for (from, to) in words {
            text = text.replace(from, to);
        }
        std::fs::write(&path, &text)?;
        let mut hasher = Checksum::Xxh3.hasher();
        hasher.update(text.as_bytes());
        file.checksum = hasher.finish();
        file.bytes = text.len() as u64;
        file.compressed_bytes = file.bytes;
    }
    export.write_manifest()
}

#[test]
fn roles_tablespaces_and_dictionaries_do_not_stop_an_import() {
    let run = |source: &mut Database, target: &mut Database| -> Outcome {
        source.execute(
            "CREATE TABLE t (id integer); INSERT INTO t VALUES (1); CREATE INDEX ti ON t (id);
             CREATE POLICY p ON t TO pg_read_all_data USING (true);
             CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
             CREATE USER MAPPING FOR pg_read_all_data SERVER s;
             CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = simple);
             CREATE TEXT SEARCH CONFIGURATION c (PARSER = default);
             ALTER TEXT SEARCH CONFIGURATION c ADD MAPPING FOR word WITH d",
        )?;
        let mut export = HandExport::of(source, 1)?;
        let missing = [
            ("pg_read_all_data", "missing_role"),
            ("default_tablespace = ''", "default_tablespace = missing_space"),
        ];
        rewrite(&mut export, &missing)?;
        target.execute(
            "CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION c (PARSER = default);
             ALTER TEXT SEARCH CONFIGURATION c ADD MAPPING FOR word WITH d",
        )?;
        import_all(target, &export, "{}")?;
        assert_eq!(digests(source)?, digests(target)?);
        let notes = target.value("SELECT string_agg(note, E'\\n') FROM dbmazz.import_step")?;
        for word in ["\"missing_role\" does not exist", "missing_space", "already exists"] {
            assert!(notes.contains(word), "{word}: {notes}");
        }
        Ok(())
    };
    checked(run(&mut database(), &mut database()));
}

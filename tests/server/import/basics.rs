//! All of a database, some tables, rights, and an import that goes on.

use super::{SHOP, checked, database, database_in, definition, digests, import, import_all};
use crate::harness::{HandExport, Outcome, PATIENCE, wait_for};

#[test]
fn whole_database_comes_back_as_it_was() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(SHOP)?;
        let export = HandExport::of(&mut source, 3)?;
        import_all(&mut target, &export, r#"{"workers": 2}"#)?;
        assert_eq!(digests(&mut source)?, digests(&mut target)?);
        assert_eq!(definition(&source)?, definition(&target)?);
        for sql in [
            "SELECT string_agg(format('%s %s %s', schemaname, sequencename, last_value), ',' ORDER BY 1) FROM pg_sequences
             WHERE schemaname <> 'dbmazz'",
            "SELECT md5(lo_get(4242)) || obj_description(4242, 'pg_largeobject') || length(lo_get(4343))",
            "SELECT count(*) FROM pg_index WHERE NOT indisvalid",
        ] {
            assert_eq!(source.value(sql)?, target.value(sql)?);
        }
        Ok(())
    };
    checked(run());
}

#[test]
fn tables_with_rows_are_refused_or_emptied_as_asked() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(SHOP)?;
        let export = HandExport::of(&mut source, 2)?;
        import_all(&mut target, &export, r#"{"large_objects": false}"#)?;
        let again = format!("'{}'", export.destination());
        let (state, error) = import(
            &mut target,
            &format!(r#"{again}, options => '{{"large_objects": false, "workers": 3}}'"#),
        )?;
        assert_eq!((state.as_str(), error.contains("has rows already")), ("failed", true), "{error}");
        // Triggers and foreign keys are there by now, and rows come in any order.
        import_all(&mut target, &export, r#"{"truncate": true, "schema": false, "large_objects": false}"#)?;
        assert_eq!(digests(&mut source)?, digests(&mut target)?);
        Ok(())
    };
    checked(run());
}

#[test]
fn some_tables_come_with_what_belongs_to_them() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(SHOP)?;
        let export = HandExport::of(&mut source, 2)?;
        let (state, error) =
            import(&mut target, &format!("'{}', ARRAY['sales.customer', 'log_1']", export.destination()))?;
        // A partition needs the table that it is a part of only when it is attached.
        assert_eq!(state, "done", "{error}");
        let digests_there = digests(&mut target)?;
        assert_eq!(digests_there.len(), 2, "{digests_there:?}");
        let all = digests(&mut source)?;
        assert!(digests_there.iter().all(|line| all.contains(line)), "{digests_there:?}");
        assert_eq!(target.value("SELECT nextval('sales.customer_id_seq')")?, "2001");
        assert!(target.is_true("SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = 'sales.customer'::regclass AND indisprimary)")?);
        let error = import(&mut target, &format!("'{}', ARRAY['missing']", export.destination()))?.1;
        assert!(error.contains("table \"missing\" is not part of the export"), "{error}");
        Ok(())
    };
    checked(run());
}

#[test]
fn rows_of_a_changed_file_are_not_committed() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute("CREATE TABLE t (id integer, v bytea); INSERT INTO t SELECT i, '\\x00010203' FROM generate_series(1, 1000) i")?;
        let export = HandExport::of(&mut source, 2)?;
        export.flip("public.t.2.copy")?;
        let (state, error) = import(&mut target, &format!("'{}'", export.destination()))?;
        assert!(state == "failed" && error.contains("public.t.2.copy"), "{state}: {error}");
        let good = export.manifest.tables[0].chunks[0].rows.to_string();
        // The other process may not have begun by then.
        let there = target.value("SELECT count(*) FROM t")?;
        assert!(there == good || there == "0", "{there} rows are there");
        // Mended, it goes on: the other chunk is not read again.
        export.flip("public.t.2.copy")?;
        import_all(&mut target, &export, "{}")?;
        assert_eq!(digests(&mut source)?, digests(&mut target)?);
        Ok(())
    };
    checked(run());
}

#[test]
fn rows_that_break_a_foreign_key_of_the_target_are_an_error() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(
            "CREATE TABLE child (id integer, parent integer); INSERT INTO child VALUES (1, 1), (2, 7)",
        )?;
        let export = HandExport::of(&mut source, 1)?;
        target.execute(
            "CREATE TABLE parent (id integer PRIMARY KEY); INSERT INTO parent VALUES (1);
             CREATE TABLE child (id integer, parent integer REFERENCES parent)",
        )?;
        let (state, error) = import(&mut target, &format!("'{}'", export.destination()))?;
        assert!(
            state == "failed" && error.contains("violate foreign key child_parent_fkey"),
            "{state}: {error}"
        );
        Ok(())
    };
    checked(run());
}

#[test]
fn import_goes_on_after_its_processes_were_killed() {
    let run = || -> Outcome {
        // Its own, because any process of any import may pass the point.
        let cluster =
            std::sync::Arc::new(crate::harness::Cluster::start(&crate::harness::Settings::default())?);
        let (mut source, mut target) = (database_in(&cluster), database_in(&cluster));
        source.execute(SHOP)?;
        let export = HandExport::of(&mut source, 4)?;
        for passes in [3, 25, 40] {
            let _ = target.value(&format!("SELECT dbmazz_import('{}')", export.destination()));
            let failpoint =
                target.cluster().arm("import_step_done", crate::harness::Action::Error, passes)?;
            wait_for("the import has ended", PATIENCE, || {
                target.value_or_null("SELECT state FROM dbmazz.import WHERE state IN ('done', 'failed')")
            })?;
            drop(failpoint);
        }
        import_all(&mut target, &export, "{}").or_else(|failure| {
            if failure.to_string().contains("has rows already") { Ok(()) } else { Err(failure) }
        })?;
        assert_eq!(digests(&mut source)?, digests(&mut target)?);
        assert_eq!(definition(&source)?, definition(&target)?);
        Ok(())
    };
    checked(run());
}

#[test]
fn an_import_is_waited_for_like_an_export() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute("CREATE TABLE t (id integer); INSERT INTO t VALUES (1)")?;
        let export = HandExport::of(&mut source, 1)?;
        let start = format!("SELECT dbmazz_import('{}')", export.destination());
        // It begins at the commit, which would never come.
        let error = target.error_of(&format!("BEGIN; SELECT dbmazz_wait_export(({start}))"))?;
        assert!(error.message().contains("cannot wait for an import"), "{error}");
        target.execute("ROLLBACK")?;
        target.execute("CREATE TABLE t (id integer); INSERT INTO t VALUES (7)")?;
        let id = target.value(&start)?;
        let error = target.error_of(&format!("SELECT dbmazz_wait_export({id})"))?;
        assert!(error.message().contains("has rows already"), "{error}");
        let error = target.error_of(&format!("SELECT dbmazz_resume_export({id})"))?;
        assert!(error.message().contains("is an import"), "{error}");
        target.execute("TRUNCATE t")?;
        assert_eq!(target.value(&start)?, id, "the same call goes on with it");
        assert!(target.is_true(&format!("SELECT dbmazz_wait_export({id})"))?);
        assert_eq!(target.value("SELECT id FROM t")?, "1");
        target.error_of("SELECT dbmazz_wait_export(999999)")?;
        Ok(())
    };
    checked(run());
}

#[test]
fn only_who_may_read_files_and_write_tables_imports() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute("CREATE TABLE t (id integer); INSERT INTO t VALUES (1)")?;
        let export = HandExport::of(&mut source, 1)?;
        let role = format!("reader_{}", target.name());
        target.execute(&format!("CREATE ROLE {role} LOGIN; CREATE TABLE t (id integer); SET ROLE {role}"))?;
        let call = format!("SELECT dbmazz_import('{}')", export.destination());
        assert_eq!(target.error_of(&call)?.code().code(), "42501");
        target.execute(&format!("RESET ROLE; GRANT pg_read_server_files TO {role}; SET ROLE {role}"))?;
        let id = target.value(&call)?;
        let verified = format!("SELECT bool_and(ok) FROM dbmazz_verify_export('{}')", export.destination());
        assert!(target.is_true(&verified)?);
        target.execute("RESET ROLE")?;
        let sql = format!("SELECT last_error FROM dbmazz.import WHERE import_id = {id} AND state = 'failed'");
        let error = wait_for("the import has failed", PATIENCE, || target.value_or_null(&sql))?;
        assert!(error.contains("permission denied"), "{error}");
        target.execute(&format!("GRANT INSERT, SELECT ON t TO {role}; SET ROLE {role}"))?;
        target.value(&call)?;
        target.execute("RESET ROLE")?;
        wait_for("the row is there", PATIENCE, || target.value_or_null("SELECT id FROM t"))?;
        for bad in
            ["'relative'", "'/tmp/../etc'", "'s3://bucket/x'", "NULL", "'/tmp', options => '{\"x\": 1}'"]
        {
            target.error_of(&format!("SELECT dbmazz_import({bad})"))?;
        }
        Ok(())
    };
    checked(run());
}

#[test]
fn verify_names_each_file_that_is_not_as_it_was_written() {
    let run = || -> Outcome {
        let mut source = database();
        source.execute(SHOP)?;
        let export = HandExport::of(&mut source, 2)?;
        let sql =
            format!("SELECT file, detail FROM dbmazz_verify_export('{}') WHERE NOT ok", export.destination());
        assert!(source.rows(&sql)?.is_empty());
        for file in
            ["manifest.json", "schema/post-data.sql", "sales.order.2.copy", "pages.copy", "objects.copy"]
        {
            export.flip(file)?;
            let wrong = source.rows(&sql)?;
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert_eq!(wrong[0][0].as_deref(), Some(file));
            export.flip(file)?;
        }
        assert!(source.rows(&sql)?.is_empty());
        Ok(())
    };
    checked(run());
}

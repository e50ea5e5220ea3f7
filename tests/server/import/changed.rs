//! What has changed since an import was interrupted.

use super::{
    checked, database, definition, digests, ended, import, keep_rows_out, start, wait_for_step,
    wait_until_gone,
};
use crate::harness::{Database, HandExport, Outcome};

const TABLES: &str = "
    CREATE TABLE a (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text UNIQUE, at date DEFAULT now());
    CREATE INDEX ON a (at);
    CREATE TABLE z (id integer REFERENCES a)";

/// An import that was cancelled with the rows of `a` in, and those of `z` not.
fn interrupted() -> Outcome<(Database, HandExport, Database)> {
    let (mut source, mut target) = (database(), database());
    source.execute(TABLES)?;
    source.execute("INSERT INTO a (v) SELECT i FROM generate_series(1, 2000) i; INSERT INTO z VALUES (7)")?;
    let export = HandExport::of(&mut source, 1)?;
    target.execute("CREATE TABLE z (id integer)")?;
    let mut writer = keep_rows_out(&target, "z")?;
    let id = start(&mut target, &arguments(&export, ""))?;
    wait_for_step(&mut target, &id, "kind = 'c' AND relation = 'public.a'")?;
    target.execute(&format!("SELECT dbmazz_cancel_export({id})"))?;
    wait_until_gone(&mut target)?;
    writer.execute("COMMIT")?;
    Ok((source, export, target))
}

fn arguments(export: &HandExport, options: &str) -> String {
    format!(r#"'{}', options => '{{"workers": 1{options}}}'"#, export.destination())
}

/// The same call is refused with these words, and one that starts over brings everything.
fn refused_until_restarted(
    (mut source, export, mut target): (Database, HandExport, Database),
    change: &str,
    words: &str,
    options: &str,
) -> Outcome {
    target.execute(change)?;
    let id = start(&mut target, &arguments(&export, ""))?;
    let (state, error) = ended(&mut target, &id)?;
    assert!(state == "failed" && error.contains(words), "{state}: {error}");
    let failure = target.error_of(&format!("SELECT dbmazz_wait_export({id})"))?;
    assert!(failure.hint().is_some_and(|hint| hint.contains("restart")), "{failure:?}");
    let (state, error) = import(&mut target, &arguments(&export, options))?;
    assert_eq!(state, "done", "{error}");
    assert_eq!(digests(&mut source)?, digests(&mut target)?);
    target.execute("ALTER TABLE z ADD FOREIGN KEY (id) REFERENCES a")?;
    assert_eq!(definition(&source)?, definition(&target)?);
    let failure = target.error_of(&format!("SELECT dbmazz_wait_export({id})"))?;
    assert!(failure.message().contains("replaced"), "{failure}");
    Ok(())
}

#[test]
fn import_that_is_left_alone_goes_on() {
    let run = || -> Outcome {
        let (mut source, export, mut target) = interrupted()?;
        let (state, error) = import(&mut target, &arguments(&export, ""))?;
        assert_eq!(state, "done", "{error}");
        assert_eq!(digests(&mut source)?, digests(&mut target)?);
        Ok(())
    };
    checked(run());
}

#[test]
fn tables_that_were_truncated_are_not_gone_on_with() {
    let run = || {
        refused_until_restarted(
            interrupted()?,
            "TRUNCATE a, z",
            "public.a was truncated",
            r#", "restart": true"#,
        )
    };
    checked(run());
}

#[test]
fn tables_that_were_dropped_are_not_gone_on_with() {
    let run = || {
        refused_until_restarted(
            interrupted()?,
            "DROP TABLE a",
            "public.a does not exist any more",
            r#", "restart": true"#,
        )
    };
    checked(run());
}

#[test]
fn tables_that_were_made_again_are_not_gone_on_with() {
    let change = "DROP TABLE z; CREATE TABLE z (id integer)";
    let options = r#", "restart": true, "truncate": true"#;
    let run = || refused_until_restarted(interrupted()?, change, "public.z is another table", options);
    checked(run());
}

#[test]
fn another_export_at_the_same_place_is_not_gone_on_with() {
    let run = || -> Outcome {
        let (source, mut export, target) = interrupted()?;
        export.manifest.export_id += 1;
        export.write_manifest()?;
        let options = r#", "restart": true, "truncate": true"#;
        refused_until_restarted((source, export, target), "", "is not the one that import", options)
    };
    checked(run());
}

#[test]
fn import_that_starts_over_completes_what_the_first_one_has_created() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(TABLES)?;
        // Everything is done but for the view, which cannot be filled.
        source
            .execute("CREATE TABLE n (n integer); CREATE MATERIALIZED VIEW m AS SELECT 1 / n AS x FROM n")?;
        source
            .execute("INSERT INTO n VALUES (0); INSERT INTO a (v) VALUES ('x'); INSERT INTO z VALUES (1)")?;
        let export = HandExport::of(&mut source, 1)?;
        assert_eq!(import(&mut target, &arguments(&export, ""))?.0, "failed");
        target.execute("ALTER TABLE a DROP CONSTRAINT a_v_key; DROP INDEX a_at_idx")?;
        let again = arguments(&export, r#", "restart": true, "truncate": true"#);
        let (state, error) = import(&mut target, &again)?;
        assert!(state == "failed" && error.contains("materialized view public.m"), "{state}: {error}");
        assert_eq!(definition(&source)?, definition(&target)?);
        assert_eq!(target.value("SELECT a.v || z.id || n.n FROM a, z, n")?, "x10");
        Ok(())
    };
    checked(run());
}

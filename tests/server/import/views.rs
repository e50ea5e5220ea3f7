//! Materialized views.

use super::{checked, comes_back, database, definition, digests, ended, import, import_all, start};
use crate::harness::{HandExport, Outcome};

#[test]
fn view_that_needs_a_primary_key_has_its_index() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(
            "CREATE TABLE t (id integer PRIMARY KEY, n integer); INSERT INTO t VALUES (1, 2), (2, 3);
             CREATE MATERIALIZED VIEW m AS SELECT id, n, count(*) FROM t GROUP BY id;
             CREATE UNIQUE INDEX mi ON m (id); COMMENT ON MATERIALIZED VIEW m IS 'grouped'",
        )?;
        comes_back(&mut source, &mut target)
    };
    checked(run());
}

#[test]
fn views_are_filled_after_those_that_they_read() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(
            "CREATE MATERIALIZED VIEW c AS SELECT 1 AS x; CREATE MATERIALIZED VIEW b AS SELECT * FROM c;
             CREATE MATERIALIZED VIEW d AS SELECT * FROM b; CREATE MATERIALIZED VIEW a AS SELECT * FROM d",
        )?;
        let export = HandExport::of(&mut source, 1)?;
        import_all(&mut target, &export, "{}")?;
        assert_eq!(digests(&mut source)?, digests(&mut target)?);
        Ok(())
    };
    checked(run());
}

#[test]
fn view_that_cannot_be_filled_keeps_nothing_else_from_being_done() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(
            "CREATE TABLE t (n integer PRIMARY KEY); CREATE TABLE u (n integer REFERENCES t);
             CREATE MATERIALIZED VIEW bad AS SELECT 1 / n AS x FROM t;
             CREATE MATERIALIZED VIEW good AS SELECT n FROM t;
             INSERT INTO t VALUES (0); INSERT INTO u VALUES (0); COMMENT ON TABLE u IS 'last'",
        )?;
        let export = HandExport::of(&mut source, 1)?;
        let arguments = format!("'{}'", export.destination());
        let id = start(&mut target, &arguments)?;
        let (state, error) = ended(&mut target, &id)?;
        assert_eq!(
            (state.as_str(), error.as_str()),
            ("failed", "could not refresh materialized view public.bad: division by zero")
        );
        assert_eq!(target.value("SELECT n FROM good")?, "0");
        assert_eq!(definition(&source)?, definition(&target)?);
        target.execute("ALTER TABLE u DROP CONSTRAINT u_n_fkey; UPDATE t SET n = 1")?;
        assert_eq!(start(&mut target, &arguments)?, id);
        let (state, error) = ended(&mut target, &id)?;
        assert_eq!(state, "done", "{error}");
        assert_eq!(target.value("SELECT x FROM bad")?, "1");
        assert_eq!(import(&mut target, &format!("{arguments}, ARRAY['u']"))?.0, "failed");
        Ok(())
    };
    checked(run());
}

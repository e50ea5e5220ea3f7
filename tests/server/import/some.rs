//! Some tables of an export.

use super::{checked, database, definition, digests, import, start};
use crate::harness::{HandExport, Outcome};

#[test]
fn partitioned_table_comes_with_its_partitions() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(
            "CREATE TABLE p (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (30) PARTITION BY RANGE (id);
             CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (10) TO (20);
             CREATE INDEX ON p (v); COMMENT ON TABLE p IS 'whole'; CREATE TABLE other (id integer);
             INSERT INTO p SELECT i, i FROM generate_series(0, 19) i",
        )?;
        let export = HandExport::of(&mut source, 1)?;
        let (state, error) =
            import(&mut target, &format!("'{}', ARRAY['p', 'public.p21']", export.destination()))?;
        assert_eq!(state, "done", "{error}");
        source.execute("DROP TABLE other")?;
        assert_eq!(digests(&mut source)?, digests(&mut target)?);
        assert_eq!(definition(&source)?, definition(&target)?);
        Ok(())
    };
    checked(run());
}

#[test]
fn types_come_with_those_that_they_are_made_of() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(
            "CREATE SCHEMA s; CREATE SCHEMA other; CREATE TYPE other.a AS ENUM ('x');
             CREATE DOMAIN s.\"a b\" AS integer CHECK (VALUE > 0); CREATE TYPE s.pair AS (a s.\"a b\", b s.\"a b\"[]);
             CREATE TYPE s.span AS RANGE (subtype = s.\"a b\");
             CREATE TABLE t (p s.pair[], r s.span); INSERT INTO t VALUES (ARRAY[(1, ARRAY[2])::s.pair], '[1,3)')",
        )?;
        let export = HandExport::of(&mut source, 1)?;
        let (state, error) = import(&mut target, &format!("'{}', ARRAY['t']", export.destination()))?;
        assert_eq!(state, "done", "{error}");
        source.execute("DROP SCHEMA other CASCADE")?;
        assert_eq!(digests(&mut source)?, digests(&mut target)?);
        assert_eq!(definition(&source)?, definition(&target)?);
        Ok(())
    };
    checked(run());
}

#[test]
fn what_some_tables_need_besides_is_missed_before_their_rows() {
    let run = || -> Outcome {
        let (mut source, mut target) = (database(), database());
        source.execute(
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE FUNCTION d() RETURNS integer LANGUAGE sql AS 'SELECT 1';
             CREATE TABLE t (id integer); CREATE TABLE u (id integer DEFAULT d());
             CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
             INSERT INTO t VALUES (1); INSERT INTO u VALUES (2)",
        )?;
        let export = HandExport::of(&mut source, 1)?;
        for (table, missing) in [("t", "function public.f"), ("u", "function public.d()")] {
            let id = start(&mut target, &format!("'{}', ARRAY['{table}']", export.destination()))?;
            let failure = target.error_of(&format!("SELECT dbmazz_wait_export({id})"))?;
            assert!(failure.message().contains(missing), "{failure}");
            assert!(failure.hint().is_some_and(|hint| hint.contains("\"schema\": false")), "{failure:?}");
            assert!(target.is_true(&format!("SELECT to_regclass('{table}') IS NULL"))?);
        }
        Ok(())
    };
    checked(run());
}

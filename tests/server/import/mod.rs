//! Imports of exports that dbmazz has not written, compared by means of PostgreSQL's own.
//!
//! * [`basics`]: all of a database, some tables, rights, and an import that goes on.
//! * [`rivals`]: imports at once, and clients that write meanwhile.
//! * [`changed`]: what has changed since an import was interrupted.
//! * [`existing`]: tables and other objects that are there.
//! * [`references`]: foreign keys that are there.
//! * [`slots`]: no background worker is free.
//! * [`some`]: some tables of an export.
//! * [`views`]: materialized views.

mod basics;
mod changed;
mod existing;
mod references;
mod rivals;
mod slots;
mod some;
mod views;

use crate::harness::{Database, Failure, HandExport, Outcome, PATIENCE, wait_for, wait_until};
use crate::shared_cluster;

fn database() -> Database {
    database_in(&shared_cluster())
}

fn database_in(cluster: &std::sync::Arc<crate::harness::Cluster>) -> Database {
    let mut database = Database::create(cluster).unwrap_or_else(|failure| panic!("{failure}"));
    database.execute("CREATE EXTENSION dbmazz").unwrap_or_else(|failure| panic!("{failure}"));
    database
}

fn checked(outcome: Outcome) {
    if let Err(failure) = outcome {
        panic!("{failure}\n{}", shared_cluster().end_of_log());
    }
}

/// Asks for an import; its state and last error when it has ended.
fn import(target: &mut Database, arguments: &str) -> Outcome<(String, String)> {
    let id = start(target, arguments)?;
    ended(target, &id)
}

/// Asks for an import; its number.
fn start(target: &mut Database, arguments: &str) -> Outcome<String> {
    target.value(&format!("SELECT dbmazz_import({arguments})"))
}

/// State and last error of an import when it has ended.
fn ended(target: &mut Database, id: &str) -> Outcome<(String, String)> {
    let sql = format!(
        "SELECT state, coalesce(last_error, '') FROM dbmazz.import WHERE import_id = {id} AND state NOT IN ('starting', 'running')"
    );
    let row = wait_for("the import has ended", PATIENCE, || Ok(target.rows(&sql)?.into_iter().next()))?;
    let text = |at: usize| row[at].clone().unwrap_or_default();
    Ok((text(0), text(1)))
}

/// Keeps rows out of a table, and lets everybody read it, until the session commits.
fn keep_rows_out(target: &Database, table: &str) -> Outcome<Database> {
    let mut session = target.another_session()?;
    session.execute(&format!("BEGIN; LOCK TABLE {table} IN SHARE MODE"))?;
    Ok(session)
}

/// Waits until no import has a process: it says how it has ended a moment before.
fn wait_until_gone(target: &mut Database) -> Outcome {
    let sql = "SELECT count(*) = 0 FROM pg_stat_activity
         WHERE backend_type LIKE 'dbmazz import%' AND datname = current_database()";
    wait_until("its processes are gone", PATIENCE, || target.is_true(sql))
}

/// Waits until a step of an import is done.
fn wait_for_step(target: &mut Database, id: &str, what: &str) -> Outcome {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM dbmazz.import_step WHERE import_id = {id} AND state = 'r' AND {what})"
    );
    wait_until("the step is done", PATIENCE, || target.is_true(&sql))
}

fn import_all(target: &mut Database, export: &HandExport, options: &str) -> Outcome {
    let (state, error) = import(target, &format!("'{}', options => '{options}'", export.destination()))?;
    if state == "done" { Ok(()) } else { Err(Failure::new(format!("the import is {state}: {error}"))) }
}

/// The whole database of one is that of the other, once it is exported and imported.
fn comes_back(source: &mut Database, target: &mut Database) -> Outcome {
    let export = HandExport::of(source, 1)?;
    import_all(target, &export, "{}")?;
    assert_eq!(digests(source)?, digests(target)?);
    assert_eq!(definition(source)?, definition(target)?);
    Ok(())
}

/// One line per table: its rows, and a digest of them in order.
fn digests(database: &mut Database) -> Outcome<Vec<String>> {
    let tables = database.rows(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
         WHERE c.relkind IN ('r', 'm', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'dbmazz') ORDER BY 1",
    )?;
    let mut lines = Vec::new();
    for row in tables {
        let name = row[0].clone().unwrap_or_default();
        let digest = database.value(&format!(
            "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\")), '') FROM {name} t"
        ))?;
        lines.push(format!("{name}: {digest}"));
    }
    Ok(lines)
}

/// The definition of everything, as pg_dump has it.
fn definition(database: &Database) -> Outcome<String> {
    let output =
        database.cluster().client_program("pg_dump").args(["--schema-only", database.name()]).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n"))
}

const SHOP: &str = r#"
    CREATE SCHEMA sales;
    CREATE TYPE sales.mood AS ENUM ('good', 'it''s bad');
    CREATE DOMAIN sales.price AS numeric(12, 2) CHECK (VALUE >= 0);
    CREATE TYPE sales.point3 AS (x double precision, y double precision, label text);
    CREATE FUNCTION sales.twice(n numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS $f$ SELECT n * 2; $f$;
    CREATE TABLE sales.customer (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, mood sales.mood,
        tags text[], points sales.point3[], at timestamptz, raw bytea, doc jsonb, net inet, span int4range,
        u uuid, iv interval, b bit(5), n numeric, f real, "odd ""name" text);
    CREATE TABLE sales."order" (
        id bigserial PRIMARY KEY, customer integer NOT NULL REFERENCES sales.customer ON DELETE CASCADE,
        price sales.price, doubled numeric GENERATED ALWAYS AS (sales.twice(price)) STORED);
    CREATE INDEX ON sales."order" (customer, price DESC);
    CREATE TABLE log (at date NOT NULL, text text) PARTITION BY RANGE (at);
    CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE INDEX ON log (at);
    CREATE TABLE nothing ();
    CREATE VIEW rich AS SELECT * FROM sales.customer WHERE n > 10;
    CREATE MATERIALIZED VIEW totals AS SELECT customer, sum(price) AS total FROM sales."order" GROUP BY 1;
    CREATE UNIQUE INDEX ON totals (customer);
    CREATE FUNCTION sales.shout() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'fired'; END $$;
    INSERT INTO sales.customer (name, mood, tags, points, at, raw, doc, net, span, u, iv, b, n, f, "odd ""name")
    SELECT 'name ' || i, CASE WHEN i % 3 = 0 THEN 'it''s bad'::sales.mood END, ARRAY['a', NULL, 'ü"' || i],
        ARRAY[(i, 'NaN', 'x')::sales.point3], 'epoch'::timestamptz + i * '1 day'::interval,
        decode(repeat(to_hex(i % 250 + 5), i % 50), 'escape'), jsonb_build_object('i', i), '10.0.0.1', int4range(i, i + 5),
        md5(i::text)::uuid, make_interval(days => i), B'10101', i / 7.0, i / 3.0, repeat('long ', i)
    FROM generate_series(1, 2000) i;
    INSERT INTO sales."order" (customer, price) SELECT i % 2000 + 1, i / 100.0 FROM generate_series(1, 20000) i;
    INSERT INTO log SELECT '2025-06-01'::date + i, 'line ' || i FROM generate_series(1, 500) i;
    INSERT INTO nothing SELECT FROM generate_series(1, 3);
    REFRESH MATERIALIZED VIEW totals;
    CREATE TRIGGER shout BEFORE INSERT ON sales."order" FOR EACH ROW EXECUTE FUNCTION sales.shout();
    COMMENT ON TABLE sales.customer IS 'who buys';
    COMMENT ON COLUMN log.text IS 'what happened';
    SELECT setval('sales.order_id_seq', 77777);
    SELECT lo_from_bytea(4242, repeat('large', 10000)::bytea);
    COMMENT ON LARGE OBJECT 4242 IS 'a large one';
    SELECT lo_create(4343);
"#;

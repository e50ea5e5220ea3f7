//! Everything that a database has comes back.

use std::fs;
use std::path::Path;
use std::process::Command;

use dbmazz::export::manifest::Chunk;

use super::{assert_equal, export, place, psql, restore, unpacked};
use crate::harness::{Database, Failure, Outcome, Pair};
use crate::on_a_pair;

const ALL_TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN positive AS int CHECK (value > 0);
    CREATE TABLE types (
        id bigint PRIMARY KEY, b boolean, s smallint, i int, o oid, r real, d double precision, n numeric, t text,
        v varchar(20), c char(5), c1 \"char\", na name, by bytea, u uuid, da date, ti time, tz timetz, ts timestamp,
        tt timestamptz, iv interval, j json, jb jsonb, x xml, m money, ip inet, ci cidr, ma macaddr, bi bit(5), vb varbit,
        p point, a int[], ta text[], e mood, co pair, po positive, ra int4range, mr int4multirange, tv tsvector, l pg_lsn);
    INSERT INTO types VALUES
        (1, true, -32768, 2147483647, 4294967295, 'NaN', '-Infinity', 'NaN', 'tab\t, \"quote\" and
line', 'ünïcode', 'ab', 'x', 'a name',
         '\\x00ff5c78', '01234567-89ab-cdef-0123-456789abcdef', 'infinity', '24:00', '12:00+05', '-infinity',
         '2000-01-01 00:00:00.000001+00', '1 year -2 days 3.5 s', '{\"a\": [1, null]}', '{\"b\": \"ü\"}', '<a>1</a>', '-1.23',
         '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', B'10101', B'1', '(1,2)', '{1,NULL,3}', '{\"a,b\",\"\"}', 'sad', '(1,\"x y\")', 7,
         '[1,5)', '{[1,2),[5,6)}', 'a:1 b:2', '16/B374D848'),
        (2, false, 0, 0, 0, 0, 0, 0, '', '', '', '', '', '', NULL, '0001-01-01 BC', '00:00', '00:00-15', '294276-12-31', NULL,
         '0', '1', '1', '', 0, '0.0.0.0', '::/0', '00:00:00:00:00:00', B'00000', B'', '(0,0)', '{}', '{{a},{b}}', 'happy', NULL, 1,
         'empty', '{}', '', '0/0');
    INSERT INTO types (id) VALUES (3);
    INSERT INTO types (id, n) SELECT 10 + n, v::numeric FROM unnest(ARRAY['0.00', '1e100', '-1e-100', '123456789.987654321', 'Infinity',
        '-Infinity', '-0.5', '10000', '9999.9999', '1e131071', '0.0001']) WITH ORDINALITY AS u (v, n);
    INSERT INTO types (id, n) SELECT 100 + n, (random() - 0.5)::numeric * 10.0 ^ (n % 60 - 30) FROM generate_series(1, 500) n;
    INSERT INTO types (id, t, by) SELECT 1000 + n, repeat('x\"y' || n, n * 200), decode(repeat(md5(n::text), n * 60), 'hex') FROM generate_series(1, 60) n;
    INSERT INTO types (id, t) VALUES (2000, '\\.'), (2001, 'NULL'), (2002, E'\\r\\n'), (2003, ',')";

#[test]
fn every_type_comes_back_by_plain_copy() {
    on_a_pair(|pair| {
        pair.source.execute(ALL_TYPES)?;
        for (name, options) in [
            ("zstd", r#"{"chunk_size": "64kB", "workers": 2}"#),
            ("csv", r#"{"format": "csv", "compression": "gzip"}"#),
            ("lz4", r#"{"compression": "lz4", "checksum": "sha256"}"#),
            ("none", r#"{"compression": "none"}"#),
        ] {
            let directory = place(pair, name)?;
            let manifest = export(pair, &directory, &["types"], options)?;
            assert!(manifest.consistent);
            if name == "zstd" {
                assert!(manifest.tables.iter().all(|table| table.chunks.len() > 1), "one chunk only");
            }
            let rows: u64 =
                manifest.tables.iter().flat_map(|table| &table.chunks).map(|chunk| chunk.rows).sum();
            assert_eq!(rows.to_string(), pair.source.value("SELECT count(*) FROM types")?, "{name}");
            // pg_dump of one table leaves out the types that it needs.
            let mut restored = restore_types(pair, &directory)?;
            assert_equal(pair, &mut restored, &["types"])?;
        }
        Ok(())
    });
}

/// The types first: a dump of single tables does not have them.
fn restore_types(pair: &Pair, directory: &Path) -> Outcome<Database> {
    let path = directory.join("schema/pre-data.sql");
    let dumped = fs::read_to_string(&path)?;
    let types = "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b text);
        CREATE DOMAIN positive AS int CHECK (value > 0);\n";
    fs::write(&path, format!("{types}{dumped}"))?;
    restore(pair, directory)
}

#[test]
fn a_whole_database_comes_back() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE SCHEMA \"odd/schema\"; CREATE TABLE \"odd/schema\".\"a.b \"\"c\"\" %\" (\"x,y\" int, \"select\" text);
             INSERT INTO \"odd/schema\".\"a.b \"\"c\"\" %\" SELECT n, 'v' || n FROM generate_series(1, 100) n;
             CREATE TABLE holes (a int, gone text, g int GENERATED ALWAYS AS (a * 2) STORED, b text);
             INSERT INTO holes (a, gone, b) SELECT n, 'gone', 'b' || n FROM generate_series(1, 1000) n;
             ALTER TABLE holes DROP COLUMN gone; ALTER TABLE holes ADD late int DEFAULT 7;
             INSERT INTO holes (a, b, late) VALUES (-1, NULL, NULL);
             CREATE TABLE parts (id int, v text) PARTITION BY RANGE (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (500);
             CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (500) TO (1000);
             INSERT INTO parts SELECT n, 'p' || n FROM generate_series(0, 999) n;
             CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS a;
             CREATE TABLE nothing ();
             INSERT INTO nothing DEFAULT VALUES;
             CREATE TABLE empty (id int PRIMARY KEY);
             CREATE TABLE numbered (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text);
             INSERT INTO numbered (v) SELECT 'n' || n FROM generate_series(1, 50) n;
             CREATE MATERIALIZED VIEW summary AS SELECT count(*) FROM numbered;
             CREATE VIEW looks AS SELECT * FROM numbered;
             CREATE TEMP TABLE temporary AS SELECT 1 AS a",
        )?;
        let directory = place(pair, "whole")?;
        let manifest = export(pair, &directory, &[], "{}")?;
        let mut restored = restore(pair, &directory)?;
        let tables = [
            "\"odd/schema\".\"a.b \"\"c\"\" %\"",
            "holes",
            "parts_1",
            "parts_2",
            "unlogged",
            "nothing",
            "empty",
            "numbered",
        ];
        assert_equal(pair, &mut restored, &tables)?;
        let names: Vec<_> = manifest.tables.iter().map(|table| table.name.as_str()).collect();
        assert!(
            names.contains(&"summary") && !names.contains(&"temporary") && !names.contains(&"parts"),
            "{names:?}"
        );
        let sequence = manifest.sequences.iter().find(|it| it.name == "numbered_id_seq");
        assert_eq!(sequence.map(|it| (it.last_value, it.is_called)), Some((50, true)));
        Ok(())
    });
}

#[test]
fn large_objects_are_exported_in_batches() {
    on_a_pair(|pair| {
        pair.source.execute(
            "SELECT lo_from_bytea(50000 + n, decode(repeat(md5(n::text), n), 'hex')) FROM generate_series(1, 200) n;
             SELECT lo_create(60000); COMMENT ON LARGE OBJECT 60000 IS 'nothing in it'",
        )?;
        let directory = place(pair, "objects")?;
        let manifest = export(pair, &directory, &[], "{}")?;
        let objects = manifest.large_objects.clone().ok_or_else(|| Failure::new("no large objects"))?;
        assert_eq!(objects.objects.rows, 201);
        pair.source.execute(
            "CREATE TABLE objects (oid oid, owner text, acl text, description text);
             CREATE TABLE pages (loid oid, pageno int, data bytea)",
        )?;
        let into = |table: &str, chunk: &Chunk| {
            psql(
                &pair.source,
                &["-c", &format!("COPY {table} FROM STDIN (FORMAT binary)")],
                &unpacked(&directory, &manifest, chunk)?,
            )
        };
        into("objects", &objects.objects)?;
        for chunk in &objects.pages {
            into("pages", chunk)?;
        }
        assert!(pair.source.is_true(
            "SELECT NOT EXISTS (SELECT * FROM pages EXCEPT SELECT loid, pageno, data FROM pg_largeobject)
                 AND NOT EXISTS (SELECT loid, pageno, data FROM pg_largeobject EXCEPT SELECT * FROM pages)"
        )?);
        let described = "SELECT description FROM objects WHERE oid = 60000 AND owner = 'postgres'";
        assert_eq!(pair.source.value(described)?, "nothing in it");
        Ok(())
    });
}

#[test]
fn values_are_stored_outside_once() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE files (id int PRIMARY KEY, body bytea, note text);
             INSERT INTO files SELECT n, decode(repeat(md5((n % 3)::text), 20000), 'hex'), 'small' FROM generate_series(1, 30) n;
             INSERT INTO files VALUES (100, '\\x01', 'dbmazz-blob: looks like one'), (101, NULL, repeat('t', 50000))",
        )?;
        let directory = place(pair, "blobs")?;
        let options = r#"{"blobs": "external", "blob_threshold": "10kB", "chunk_size": "8kB", "workers": 2}"#;
        let manifest = export(pair, &directory, &["files"], options)?;
        let count = |path: &Path| Command::new("find").arg(path).args(["-type", "f"]).output();
        let blobs = String::from_utf8_lossy(&count(&directory.join("blobs"))?.stdout).lines().count();
        assert_eq!(blobs, 5, "three bodies, one note that is long, one that looks like a reference");
        let references: u64 = manifest.tables.iter().flat_map(|it| &it.chunks).map(|chunk| chunk.blobs).sum();
        assert_eq!(references, 32);
        let mut restored = restore(pair, &directory)?;
        let reference = restored.value("SELECT convert_from(body, 'UTF8') FROM files WHERE id = 1")?;
        let sha = pair.source.value("SELECT encode(sha256(body), 'hex') FROM files WHERE id = 1")?;
        assert_eq!(reference, format!("dbmazz-blob:{sha}:320000"));
        let blob = directory.join(format!("blobs/{}/{}.zst", &sha[..2], &sha[2..]));
        let mut bytes = Vec::new();
        std::io::copy(&mut manifest.options.compression.decoder(fs::File::open(blob)?)?, &mut bytes)?;
        assert_eq!(bytes.len(), 320_000);
        Ok(())
    });
}

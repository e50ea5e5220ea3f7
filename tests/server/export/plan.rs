//! Chunks, estimates, and tables that cannot be divided.

use super::{assert_equal, export, import, place};
use crate::harness::{Database, Outcome};
use crate::on_a_pair;

#[test]
fn a_plan_covers_every_row_once() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE planned AS SELECT n AS id, repeat('x', 500) AS v FROM generate_series(1, 20000) n; ANALYZE planned",
        )?;
        let counted = "SELECT sum((SELECT count(*) FROM planned p WHERE p.ctid >= c.first_ctid AND p.ctid <= c.last_ctid))
            || ' ' || count(*) FROM dbmazz_ctid_chunks('planned', '1MB') c";
        let answer = pair.source.value(counted)?;
        assert!(answer.starts_with("20000 ") && answer != "20000 1", "{answer}");
        let directory = place(pair, "estimate")?;
        let estimate = "SELECT rows_estimate BETWEEN 19000 AND 21000 AND chunks = 11 FROM dbmazz_estimate_export('{planned}', '{\"compression\": \"none\", \"chunk_size\": \"1MB\"}')";
        let shown = pair
            .source
            .rows(&estimate.replace("rows_estimate BETWEEN 19000 AND 21000 AND chunks = 11", "*"))?;
        assert!(pair.source.is_true(&estimate.replace("chunks = 11", "chunks > 8"))?, "{shown:?}");
        let manifest = export(pair, &directory, &["planned"], r#"{"compression": "none"}"#)?;
        let real: u64 =
            manifest.files().filter(|it| it.file.starts_with("data/")).map(|it| it.compressed_bytes).sum();
        let guess: f64 = pair.source.value("SELECT bytes_estimate FROM dbmazz_estimate_export('{planned}', '{\"compression\": \"none\"}')")?.parse().unwrap_or(0.0);
        assert!((guess / real as f64 - 1.0).abs() < 0.2, "estimated {guess}, became {real}");
        Ok(())
    });
}

/// What psql prints beside the rows.
fn told(database: &Database, sql: &str) -> Outcome<String> {
    let mut psql = database.cluster().client_program("psql");
    let output = psql.args(["-X", "-d", database.name(), "-c", sql]).output()?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_estimate_tells_the_free_space_of_a_destination() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE measured AS SELECT n FROM generate_series(1, 10000) n")?;
        let estimate = |place: &str| {
            format!("SELECT * FROM dbmazz_estimate_export('{{measured}}', destination => '{place}')")
        };
        let directory = place(pair, "free")?.display().to_string();
        let words = told(&pair.source, &estimate(&directory))?;
        assert!(words.contains("NOTICE") && words.contains("free; the export would take about"), "{words}");
        // Nothing ever fits in there.
        let words = told(&pair.source, &estimate("/proc/dbmazz"))?;
        assert!(words.contains("WARNING") && words.contains("has only 0"), "{words}");
        let words = told(&pair.source, "SELECT * FROM dbmazz_estimate_export('{measured}')")?;
        assert_eq!(words, "");
        pair.source.error_of(&estimate("relative"))?;
        Ok(())
    });
}

#[test]
fn an_estimate_of_large_values_is_near() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE heavy (id int, v bytea); ALTER TABLE heavy ALTER v SET STORAGE EXTERNAL;
             INSERT INTO heavy SELECT n, decode(repeat(md5(n::text), 32768), 'hex') FROM generate_series(1, 150) n;
             CREATE TABLE mixed (id int, v bytea); ALTER TABLE mixed ALTER v SET STORAGE EXTERNAL;
             INSERT INTO mixed SELECT n, decode(repeat(md5(n::text), CASE WHEN n % 10 = 0 THEN 65536 ELSE 1 END), 'hex')
                 FROM generate_series(1, 500) n",
        )?;
        for (table, real) in [("heavy", 150 * (512 << 10)), ("mixed", 50 * (1 << 20))] {
            let guess: f64 = pair
                .source
                .value(&format!("SELECT bytes_estimate FROM dbmazz_estimate_export('{{{table}}}', '{{\"compression\": \"none\"}}')"))?
                .parse()
                .unwrap_or(0.0);
            let ratio = guess / f64::from(real);
            assert!((1.0 / 1.5..1.5).contains(&ratio), "{table}: estimated {guess}, is {real}");
        }
        Ok(())
    });
}

#[test]
fn a_type_without_a_binary_form_is_refused_by_name() {
    on_a_pair(|pair| {
        let path = place(pair, "unsendable")?.display().to_string();
        pair.source.execute(
            "CREATE DOMAIN allowed AS aclitem; CREATE TYPE pairing AS (n int, a aclitem[]);
             CREATE TABLE plain (id int, a aclitem); CREATE TABLE domains (id int, a allowed);
             CREATE TABLE arrays (id int, a aclitem[]); CREATE TABLE composites (id int, a pairing[]);
             CREATE TABLE fine (id int, p point[], v oidvector, r int4range, m int8multirange)",
        )?;
        for table in ["plain", "domains", "arrays", "composites"] {
            for call in [
                format!("dbmazz_export('{path}', '{{fine,{table}}}'::regclass[])"),
                format!("* FROM dbmazz_estimate_export('{{{table}}}')"),
            ] {
                let error = pair.source.error_of(&format!("SELECT {call}"))?;
                assert!(
                    error.message().contains(&format!("column \"a\" of table \"public.{table}\"")),
                    "{error}"
                );
                assert!(error.hint().is_some_and(|hint| hint.contains("\"format\": \"csv\"")), "{error}");
            }
        }
        pair.source.execute("INSERT INTO plain VALUES (1, 'postgres=r/postgres')")?;
        export(pair, path.as_ref(), &[], r#"{"format": "csv"}"#)?;
        export(pair, format!("{path}2").as_ref(), &["fine"], "{}").map(drop)
    });
}

#[test]
fn an_export_of_no_tables_is_refused() {
    on_a_pair(|pair| {
        let path = place(pair, "nothing")?.display().to_string();
        let error = pair.source.error_of(&format!("SELECT dbmazz_export('{path}', ARRAY[]::regclass[])"))?;
        assert!(error.hint().is_some_and(|hint| hint.contains("NULL means the whole database")), "{error}");
        Ok(())
    });
}

#[test]
fn a_table_that_cannot_be_scanned_by_ranges_is_one_chunk() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE FUNCTION rangeless(internal) RETURNS table_am_handler LANGUAGE c AS 'dbmazz', 'rangeless_method_wrapper';
             CREATE ACCESS METHOD rangeless TYPE TABLE HANDLER rangeless;
             CREATE TABLE whole (id int, v int) USING rangeless;
             INSERT INTO whole SELECT n, n % 7 FROM generate_series(1, 20000) n",
        )?;
        let estimate = "SELECT chunks = 1 AND rows_estimate = 20000 FROM dbmazz_estimate_export('{whole}', '{\"chunk_size\": \"256kB\"}')";
        assert!(pair.source.is_true(estimate)?);
        let directory = place(pair, "whole")?;
        let manifest = export(pair, &directory, &["whole"], r#"{"chunk_size": "256kB"}"#)?;
        let chunks: Vec<_> = manifest.tables.iter().flat_map(|table| &table.chunks).collect();
        assert_eq!(chunks.iter().map(|chunk| chunk.rows).collect::<Vec<_>>(), [20_000]);
        pair.source.execute("ALTER TABLE whole SET ACCESS METHOD heap")?;
        let directory = place(pair, "ordinary")?;
        let manifest = export(pair, &directory, &["whole"], r#"{"chunk_size": "256kB"}"#)?;
        assert!(manifest.tables.iter().all(|table| table.chunks.len() > 1));
        let mut imported = import(pair, &directory)?;
        assert_equal(pair, &mut imported, &["whole"])
    });
}

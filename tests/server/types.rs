//! Every type that is promised, with its extremes, once through the copy, once through the stream, and once through
//! pgoutput. The target must show the same value whichever way it came.

use crate::harness::{Comparison, Outcome, Pair};
use crate::on_a_pair;

const COLUMNS: &str = "id int PRIMARY KEY, i2 smallint, i4 integer, i8 bigint, b boolean, f4 real, f8 double precision,
    n numeric, n2 numeric(20,5), n0 numeric(38,0), t text, v varchar(40), c char(6), d date, ts timestamp, tz timestamptz,
    u uuid, by bytea, j json, jb jsonb";

/// One row of values each; the first column is left to the caller.
const ROWS: &[&str] = &[
    "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
    // The least of everything.
    r#"-32768, -2147483648, -9223372036854775808, false, -3.4028235e38, -1.7976931348623157e308,
       -12345678901234567890.123456789, -999999999999999.99999, -99999999999999999999999999999999999999, '', '', '',
       '0001-01-01', '0001-01-01 00:00:00', '0001-01-01 00:00:00+00', '00000000-0000-0000-0000-000000000000', '\x',
       '[]', '{}'"#,
    // The most.
    r#"32767, 2147483647, 9223372036854775807, true, 3.4028235e38, 1.7976931348623157e308,
       0.000000000000000000000000000000000001, 999999999999999.99999, 99999999999999999999999999999999999999,
       repeat('x', 100000), repeat('y', 40), 'zzzzzz', '9999-12-31', '9999-12-31 23:59:59.999999',
       '9999-12-31 23:59:59.999999+00', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '\x00ff01fe7f80',
       '[1, -2.5, "x", null, true, {"a": []}]', '[1, -2.5, "x", null, true, {"a": []}]'"#,
    // What an encoder trips over: quotes, backslashes, control characters, characters of 2, 3 and 4 bytes.
    r#"0, 0, 0, true, '-0', '-0', 0, 0.00001, 0, E'"\\\b\f\n\r\t\x01\x1f\x7f/ end', E'\\N', E'a\nb',
       '1999-12-31', '2000-01-01 00:00:00.000001', '1999-12-31 23:59:59.5+05:30',
       'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', E'\\x5c6e0a22', E'{"a":\n "\\u00e9\\n\\"" }', '{"k": "\u00e9\n\"", "": {}}'"#,
    r#"1, -1, 1, false, 1e-45, 5e-324, 1.50, -1.50000, -1, 'äöü ß € 𝄞 🐘', 'zwölf Boxkämpfer', 'äö',
       '2024-02-29', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56.789-11', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
       '\x22', '"text"', '1.25'"#,
    r#"7, 7, 7, true, 0.1, 0.1, 100, 100, 100, ' leading and trailing ', ' x ', 'a', '1582-10-15',
       '1582-10-15 10:00:00', '1970-01-01 00:00:00+00', '12345678-1234-1234-1234-123456789abc', '\xdeadbeef',
       '{"n": 12345678901234567, "e": 1e10}', '{"n": 12345678901234567, "e": 1.5e-3}'"#,
    r#"1, 1, 1, false, 16777217, 123456789012345680, 1e30, 12345.678, 1, E'line\r\nline', 'x', 'y', '2026-11-20',
       '2026-11-20 00:00:00.1', '2026-11-20 00:00:00.100001+14', '00000000-0000-0000-0000-000000000001', '\x0d0a',
       '{}', '{"z": 1, "a": {"y": [], "b": [[]]}}'"#,
];

fn insert(table: &str, first_id: usize) -> String {
    let row =
        |(n, values): (usize, &&str)| format!("INSERT INTO {table} VALUES ({}, {values});", first_id + n);
    ROWS.iter().enumerate().map(row).collect()
}

/// The rows from `first_id` on as the target has them, without their ids.
fn at_target(pair: &mut Pair, first_id: usize) -> Outcome<Vec<Vec<Option<String>>>> {
    let last_id = first_id + ROWS.len() - 1;
    let table = pair.target.table("every_type");
    let names = "i2, i4, i8, b, f4, f8, n, n2, n0, t, v, c, d, ts, tz, u, `by`, j, jb";
    pair.target.rows_in_hexadecimal(&format!(
        "SELECT {names} FROM {table} WHERE id BETWEEN {first_id} AND {last_id} ORDER BY id"
    ))
}

#[test]
fn copy_and_stream_deliver_every_value_alike() {
    on_a_pair(|pair| {
        pair.source.execute(&format!("CREATE TABLE every_type ({COLUMNS}); {}", insert("every_type", 1)))?;
        pair.start_mirror(&["every_type"])?;
        pair.wait_and_compare(&["every_type"])?;
        pair.source.execute(&insert("every_type", 1001))?;
        pair.source.execute(&format!(
            "INSERT INTO every_type (id) SELECT generate_series(2001, {})",
            2000 + ROWS.len()
        ))?;
        for (n, _) in ROWS.iter().enumerate() {
            pair.source.execute(&format!(
                "UPDATE every_type SET (i2, i4, i8, b, f4, f8, n, n2, n0, t, v, c, d, ts, tz, u, by, j, jb) =
                 (SELECT i2, i4, i8, b, f4, f8, n, n2, n0, t, v, c, d, ts, tz, u, by, j, jb FROM every_type WHERE id = {})
                 WHERE id = {}",
                n + 1,
                n + 2001
            ))?;
        }
        pair.wait_and_compare(&["every_type"])?;
        let copied = at_target(pair, 1)?;
        assert_eq!(copied, at_target(pair, 1001)?, "inserted rows");
        assert_eq!(copied, at_target(pair, 2001)?, "updated rows");
        assert_eq!(copied.len(), ROWS.len());
        Ok(())
    });
}

#[test]
fn pgoutput_delivers_every_value_like_the_copy() {
    on_a_pair(|pair| {
        pair.source.execute(&format!(
            "CREATE TABLE every_type ({COLUMNS}, secret text); {}",
            insert("every_type", 1)
        ))?;
        pair.source.execute(
            "CREATE PUBLICATION chosen FOR TABLE every_type
                 (id, i2, i4, i8, b, f4, f8, n, n2, n0, t, v, c, d, ts, tz, u, by, j, jb) WHERE (id < 5000)",
        )?;
        pair.start_mirror_with("publication => 'chosen'", "{}")?;
        pair.source.execute(&insert("every_type", 1001))?;
        pair.source.execute("INSERT INTO every_type (id, secret) VALUES (6000, 'x')")?;
        let names = [
            "id", "i2", "i4", "i8", "b", "f4", "f8", "n", "n2", "n0", "t", "v", "c", "d", "ts", "tz", "u",
            "by", "j", "jb",
        ];
        let comparison = Comparison::of("every_type").columns(&names).rows_where("id < 5000");
        pair.wait()?;
        pair.compare(&comparison)?;
        assert_eq!(at_target(pair, 1)?, at_target(pair, 1001)?);
        let database = pair.target.database().to_owned();
        let secret = pair.target.rows(&format!(
            "SELECT column_name FROM information_schema.columns
             WHERE table_schema = '{database}' AND table_name = 'every_type' AND column_name = 'secret'"
        ))?;
        assert!(secret.is_empty(), "a column that is not published must not leave");
        Ok(())
    });
}

#[test]
fn a_row_filter_inserts_and_deletes_rows_that_cross_it() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int, shown bool NOT NULL, v text, PRIMARY KEY (id, shown));
             INSERT INTO item SELECT n, n % 2 = 0, 'v' || n FROM generate_series(1, 100) n;
             CREATE PUBLICATION chosen FOR TABLE item WHERE (shown)",
        )?;
        pair.start_mirror_with("publication => 'chosen'", "{}")?;
        pair.wait()?;
        pair.compare(&Comparison::of("item").rows_where("shown"))?;
        pair.source.execute(
            "UPDATE item SET shown = true WHERE id = 1; UPDATE item SET shown = false WHERE id = 2",
        )?;
        pair.source
            .execute("DELETE FROM item WHERE id = 4; UPDATE item SET v = 'changed' WHERE id IN (5, 6)")?;
        pair.wait()?;
        pair.compare(&Comparison::of("item").rows_where("shown"))
    });
}

#[test]
fn known_values_read_as_expected_at_the_target() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, tz timestamptz, u uuid, n numeric(10,2), t text, d date, b boolean);
             INSERT INTO item VALUES (1, '2026-01-01 00:30:00+02', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 12.5, 'ä\"b', '2026-01-01', true)",
        )?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        let table = pair.target.table("item");
        let row = pair.target.rows(&format!("SELECT tz, u, n, t, d FROM {table}"))?;
        let texts: Vec<_> = row.into_iter().flatten().flatten().collect();
        let [tz, rest @ ..] = texts.as_slice() else { panic!("no row") };
        assert!(tz.starts_with("2025-12-31 22:30:00"), "{tz}");
        assert_eq!(rest, ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "12.50", "ä\"b", "2026-01-01"]);
        assert_eq!(pair.target.value(&format!("SELECT count(*) FROM {table} WHERE b = true"))?, "1");
        Ok(())
    });
}

/// StarRocks reads `null` in a load as SQL NULL, also where a JSON value is meant; the README says so.
#[test]
fn a_json_null_arrives_as_an_sql_null_and_no_other_json_value_is_touched() {
    on_a_pair(|pair| {
        let values = r#"(1, 'null'), (2, NULL), (3, '"null"'), (4, '[null]'), (5, '{"a": null}'), (6, '0'), (7, 'false'), (8, '""')"#;
        pair.source.execute(&format!(
            "CREATE TABLE item (id int PRIMARY KEY, j json, jb jsonb);
             INSERT INTO item SELECT id, v::json, v::jsonb FROM (VALUES {values}) AS t (id, v)"
        ))?;
        pair.start_mirror(&["item"])?;
        pair.wait()?;
        pair.source.execute("INSERT INTO item SELECT id + 10, j, jb FROM item")?;
        pair.wait()?;
        let table = pair.target.table("item");
        let nulls = pair
            .target
            .rows(&format!("SELECT id FROM {table} WHERE j IS NULL AND jb IS NULL ORDER BY id"))?;
        let expected: Vec<_> = ["1", "2", "11", "12"].map(|id| vec![Some(id.to_owned())]).to_vec();
        assert_eq!(nulls, expected);
        let others = format!("SELECT count(*) FROM {table} WHERE j IS NOT NULL AND jb IS NOT NULL");
        assert_eq!(pair.target.value(&others)?, "12");
        // With the JSON nulls away both sides are equal.
        pair.source.execute("UPDATE item SET j = NULL, jb = NULL WHERE jb = 'null'")?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn types_without_a_form_of_their_own_travel_as_text() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
             CREATE TABLE item (id positive PRIMARY KEY, m mood, i inet, r int4range, iv interval, tm time);
             INSERT INTO item VALUES (1, 'happy', '10.0.0.1/24', '[1,5)', '1 mon 2 days', '12:34:56.789')",
        )?;
        pair.start_mirror(&["item"])?;
        pair.source.execute("INSERT INTO item SELECT 2, m, i, r, iv, tm FROM item")?;
        pair.wait()?;
        let table = pair.target.table("item");
        let rows = pair.target.rows(&format!("SELECT m, i, r FROM {table} ORDER BY id"))?;
        let expected = ["happy", "10.0.0.1/24", "[1,5)"].map(|value| Some(value.to_owned())).to_vec();
        assert_eq!(rows, vec![expected.clone(), expected]);
        let times = pair.target.rows(&format!("SELECT iv, tm FROM {table} ORDER BY id"))?;
        assert_eq!(times.first(), times.last(), "copy and stream alike");
        Ok(())
    });
}

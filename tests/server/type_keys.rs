//! Keys of every type that can be one: rows are copied, updated, deleted, inserted and moved by them, on every path.

use crate::harness::{Outcome, Pair};
use crate::on_a_pair;

/// A type, and four values of it as they are written here and as the target has them.
struct Key {
    type_name: &'static str,
    values: [(&'static str, &'static str); 4],
}

fn same(type_name: &'static str, values: [&'static str; 4]) -> Key {
    Key { type_name, values: values.map(|value| (value, value)) }
}

fn keys() -> Vec<Key> {
    let told = |type_name, values| Key { type_name, values };
    vec![
        same("smallint", ["0", "-1", "32767", "-32768"]),
        same("integer", ["0", "-1", "2147483647", "-2147483648"]),
        same("bigint", ["0", "9007199254740993", "9223372036854775807", "-9223372036854775808"]),
        same("oid", ["0", "1", "2147483648", "4294967295"]),
        told("numeric", [("1.00", "1"), ("2.50", "2.5"), ("-3", "-3"), ("1e3", "1000")]),
        told("numeric(10,2)", [("1", "1"), ("2.5", "2.5"), ("0", "0"), ("-99999999.99", "-99999999.99")]),
        told(
            "numeric(50,0)",
            [
                ("1", "1"),
                ("10", "10"),
                ("0", "0"),
                ("1e49", "10000000000000000000000000000000000000000000000000"),
            ],
        ),
        same("text", ["a", "ü 🐘", "q\"'\\", " "]),
        same("varchar(10)", ["a", "A", "a ", ""]),
        told("char(3)", [("a", "a  "), ("ü", "ü  "), ("abc", "abc"), ("", "   ")]),
        same("name", ["a", "b", "ü", "d e"]),
        same("\"char\"", ["a", "b", "c", "d"]),
        same("date", ["2026-11-20", "0001-01-01", "9999-12-31", "1970-01-01"]),
        same(
            "uuid",
            [
                "00000000-0000-0000-0000-000000000000",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "ffffffff-ffff-ffff-ffff-ffffffffffff",
                "12345678-1234-1234-1234-123456789abc",
            ],
        ),
        told("bytea", [("\\x00", "00"), ("\\xff", "ff"), ("\\x5c22", "5c22"), ("\\xdeadbeef", "deadbeef")]),
        same("shade", ["red", "dark red", "ü", "b\"c"]),
        same("whole", ["1", "2", "3", "4"]),
        same("inet", ["10.0.0.1", "10.0.0.1/24", "::1", "2001:db8::1/64"]),
        same("macaddr", ["08:00:2b:01:02:03", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:01"]),
        same("bit(4)", ["0000", "0001", "1111", "1010"]),
        same("time", ["00:00:00", "12:34:56.7", "24:00:00", "23:59:59.999999"]),
        same("interval", ["1 day", "1 mon", "00:00:01", "-1 days"]),
        same("integer[]", ["{}", "{1,NULL}", "{{1},{2}}", "[0:0]={1}"]),
        same("text[]", ["{a}", "{\"a,b\"}", "{NULL}", "{\"NULL\"}"]),
        same("int4range", ["[1,5)", "empty", "(,)", "[5,6)"]),
        same("spot", ["(1,a)", "(1,)", "(2,\"b c\")", "(,)"]),
        same("pg_lsn", ["0/0", "0/1", "16/B374D848", "FFFFFFFF/FFFFFFFF"]),
    ]
}

fn table(prefix: &str, number: usize) -> String {
    format!("{prefix}_{number}")
}

fn literal(key: &Key, value: usize) -> String {
    format!("'{}'::{}", key.values[value].0.replace('\'', "''"), key.type_name)
}

fn check(pair: &mut Pair, prefix: &str, number: usize, key: &Key) -> Outcome {
    let target = pair.target.table(&table(prefix, number));
    let rows = pair.target.rows(&format!("SELECT k, v FROM {target} ORDER BY v"))?;
    // Of the four the first was updated, the second deleted and its key given to the third, and the last one inserted.
    let expected = [(1, "2"), (3, "3"), (0, "10")]
        .map(|(value, v)| vec![Some(key.values[value].1.to_owned()), Some(v.to_owned())]);
    assert_eq!(rows, expected, "{} of type {}", table(prefix, number), key.type_name);
    Ok(())
}

#[test]
fn rows_are_found_by_keys_of_every_type_on_every_path() {
    on_a_pair(|pair| {
        let has_lists = !pair.is_before(15, "pgoutput", "column lists");
        let prefixes: &[&str] = if has_lists { &["plain", "listed"] } else { &["plain"] };
        let keys = keys();
        pair.source.execute(
            "CREATE TYPE shade AS ENUM ('red', 'dark red', 'ü', 'b\"c'); CREATE DOMAIN whole AS int CHECK (VALUE > 0);
             CREATE TYPE spot AS (n int, t text)",
        )?;
        let mut published = vec![];
        for (number, key) in keys.iter().enumerate() {
            for prefix in prefixes {
                let (name, type_name) = (table(prefix, number), key.type_name);
                let [first, second, third] = [0, 1, 2].map(|value| literal(key, value));
                // Of the large value of the third row nothing is in the log when its key changes.
                pair.source.execute(&format!(
                    "CREATE TABLE {name} (k {type_name} PRIMARY KEY, v int, big text, secret text);
                     ALTER TABLE {name} ALTER big SET STORAGE EXTERNAL;
                     INSERT INTO {name} VALUES ({first}, 0, 's'), ({second}, 1, 's'), ({third}, 2, repeat('x', 5000))"
                ))?;
                published.push(if *prefix == "listed" { format!("{name} (k, v, big)") } else { name });
            }
        }
        pair.source.execute(&format!("CREATE PUBLICATION keys FOR TABLE {}", published.join(", ")))?;
        pair.start_mirror_with("publication => 'keys'", "{}")?;
        pair.wait()?;
        for (number, key) in keys.iter().enumerate() {
            for prefix in prefixes {
                let name = table(prefix, number);
                pair.source.execute(&format!(
                    "UPDATE {name} SET v = 10 WHERE v = 0; DELETE FROM {name} WHERE v = 1;
                     UPDATE {name} SET k = {} WHERE v = 2; INSERT INTO {name} VALUES ({}, 3)",
                    literal(key, 1),
                    literal(key, 3)
                ))?;
            }
        }
        pair.wait()?;
        for (number, key) in keys.iter().enumerate() {
            for prefix in prefixes {
                check(pair, prefix, number, key)?;
                let target = pair.target.table(&table(prefix, number));
                let long = pair.target.value(&format!("SELECT length(big) FROM {target} WHERE v = 2"))?;
                assert_eq!(long, "5000", "large value of {}", key.type_name);
            }
        }
        Ok(())
    });
}

#[test]
fn equal_keys_that_are_printed_differently_are_one_row() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (k numeric PRIMARY KEY, v text); INSERT INTO item VALUES (1.0, 'a'), (20, 'b')",
        )?;
        pair.start_mirror(&["item"])?;
        pair.source.execute("UPDATE item SET k = 1.000 WHERE k = 1; UPDATE item SET v = 'c' WHERE k = 1")?;
        pair.wait()?;
        let table = pair.target.table("item");
        let rows = pair.target.rows(&format!("SELECT k, v FROM {table} ORDER BY k"))?;
        let expected = [["1", "c"], ["20", "b"]].map(|row| row.map(|value| Some(value.to_owned())).to_vec());
        assert_eq!(rows, expected);
        Ok(())
    });
}

//! What the encoder promises, whole rows at a time.

use super::{Adjusted, ColumnSet, OutOfRange, Reason, Row, RowEncoder, Value};
use crate::table::{Column, Kind, MAX_TEXT_BYTES, SourceColumn, TableSpec, TargetTable};

struct Values<'a>(Vec<Value<'a>>);

impl Row for Values<'_> {
    fn value(&self, column: usize) -> Value<'_> {
        self.0[column]
    }
}

fn spec(key_len: usize, columns: &[(&str, Kind)]) -> TableSpec {
    let column = |(number, &(name, kind)): (usize, &(&str, Kind))| Column {
        source: SourceColumn { attnum: number as i16 + 1, name: name.to_owned(), type_oid: 0, typmod: -1 },
        name: name.to_owned(),
        kind,
        target_type: "STRING".to_owned(),
    };
    TableSpec {
        relid: 1,
        source_name: "public.t".to_owned(),
        target: TargetTable { database: "d".to_owned(), table: "t".to_owned() },
        columns: columns.iter().enumerate().map(column).collect(),
        key_len,
    }
}

fn encoder(key_len: usize, columns: &[(&str, Kind)], policy: OutOfRange) -> RowEncoder {
    let names: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    RowEncoder::new(&spec(key_len, columns), &names, policy)
}

fn line(encoder: &RowEncoder, values: Vec<Value<'_>>) -> String {
    let mut out = Vec::new();
    encoder.encode_row(&Values(values), &ColumnSet::ALL, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

const NARROW: &[(&str, Kind)] = &[("id", Kind::Int), ("b", Kind::Text)];

#[test]
fn row_is_key_values_and_operation() {
    let encoder = encoder(1, NARROW, OutOfRange::Error);
    assert_eq!(line(&encoder, vec![Value::Int(7), Value::Text(b"x")]), "{\"id\":7,\"b\":\"x\",\"__op\":0}\n");
    assert_eq!(line(&encoder, vec![Value::Int(-7), Value::Null]), "{\"id\":-7,\"b\":null,\"__op\":0}\n");
    let mut out = b"before".to_vec();
    let row = encoder.encode_delete(&Values(vec![Value::Int(7)]), &mut out).unwrap();
    assert_eq!(&out[row.start..row.end], b"{\"id\":7,\"__op\":1}\n");
    assert_eq!(&out[row.start..row.key_end], b"{\"id\":7");
}

#[test]
fn names_are_escaped() {
    let names = ["a\"b\\c\n".to_owned()];
    let encoder = RowEncoder::new(&spec(1, &[("x", Kind::Int)]), &names, OutOfRange::Error);
    let line = line(&encoder, vec![Value::Int(1)]);
    let row: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(row["a\"b\\c\n"], 1);
}

#[test]
fn text_of_every_kind_gives_the_bytes_of_the_value() {
    let float = Value::Float8(1.0);
    let uuid = *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";
    let stored = [0x8100_u16.to_ne_bytes(), 12_u16.to_ne_bytes(), 5000_u16.to_ne_bytes()].concat();
    let cases = [
        (Kind::Bool, "t", Value::Bool(true), "true"),
        (Kind::Int, "-42", Value::Int(-42), "-42"),
        (Kind::Float4, "0.1", Value::Float4(0.1), "0.1"),
        (Kind::Float8, "1", float, "1.0"),
        (Kind::Float8, "1e+300", Value::Float8(1e300), "1e+300"),
        (Kind::Numeric, "12.50", Value::Numeric(&stored), "\"12.50\""),
        (Kind::Date, "2000-01-02", Value::Date(1), "\"2000-01-02\""),
        (Kind::Date, "0001-01-01 BC", Value::Date(-730_485), "\"0000-01-01\""),
        (
            Kind::Timestamp,
            "2000-01-01 00:00:01.5+00",
            Value::Timestamp(1_500_000),
            "\"2000-01-01 00:00:01.500000\"",
        ),
        (
            Kind::Uuid,
            "00112233-4455-6677-8899-aabbccddeeff",
            Value::Uuid(uuid),
            "\"00112233-4455-6677-8899-aabbccddeeff\"",
        ),
        (Kind::Bytes, "\\x00ff", Value::Bytes(b"\x00\xFF"), "\"00ff\""),
        (Kind::Json, "{\"a\":\n1}", Value::Json(b"{\"a\":\n1}"), "{\"a\": 1}"),
        (Kind::Text, "é\"", Value::Text("é\"".as_bytes()), "\"é\\\"\""),
    ];
    for (kind, text, value, json) in cases {
        let encoder = encoder(1, &[("id", Kind::Int), ("c", kind)], OutOfRange::Error);
        let expected = format!("{{\"id\":1,\"c\":{json},\"__op\":0}}\n");
        let from_text = Value::from_text(kind, text.as_bytes()).unwrap();
        assert_eq!(line(&encoder, vec![Value::Int(1), from_text]), expected);
        assert_eq!(line(&encoder, vec![Value::Int(1), value]), expected);
        assert!(serde_json::from_str::<serde_json::Value>(&expected).is_ok());
    }
}

#[test]
fn equal_keys_are_equal_prefixes() {
    let numeric = encoder(1, &[("id", Kind::Numeric)], OutOfRange::Error);
    let float = encoder(1, &[("id", Kind::Float8)], OutOfRange::Error);
    let equal = [
        (&numeric, Value::NumericText(b"1.00"), Value::NumericText(b"1")),
        (&float, Value::Float8(-0.0), Value::Float8(0.0)),
    ];
    for (encoder, one, other) in equal {
        assert_eq!(line(encoder, vec![one]), line(encoder, vec![other]));
    }
}

#[test]
fn refused_row_leaves_the_buffer_as_it_was() {
    let encoder = encoder(1, NARROW, OutOfRange::Error);
    let long = vec![b'x'; MAX_TEXT_BYTES + 1];
    let refused = [
        (vec![Value::Null, Value::Null], Reason::NullKey, "id"),
        (vec![Value::Unchanged, Value::Null], Reason::Unchanged, "id"),
        (vec![Value::Int(1), Value::Unchanged], Reason::Unchanged, "b"),
        (vec![Value::Int(1), Value::Text(b"\xFF")], Reason::InvalidUtf8, "b"),
        (vec![Value::Int(1), Value::Malformed], Reason::Malformed, "b"),
        (vec![Value::Int(1), Value::Text(&long)], Reason::OutOfRange, "b"),
        (vec![Value::Float8(f64::NAN), Value::Null], Reason::OutOfRange, "id"),
    ];
    for (values, reason, column) in refused {
        let mut out = b"before".to_vec();
        let error = encoder.encode_row(&Values(values), &ColumnSet::ALL, &mut out).unwrap_err();
        assert_eq!((error.reason, error.column.as_deref()), (reason, Some(column)));
        assert_eq!(out, b"before");
    }
}

#[test]
fn row_longer_than_a_load_is_refused() {
    let columns: Vec<(String, Kind)> = (0..91).map(|number| (format!("c{number}"), Kind::Text)).collect();
    let columns: Vec<(&str, Kind)> = columns.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
    let encoder = encoder(1, &columns, OutOfRange::Error);
    let text = vec![b'x'; MAX_TEXT_BYTES];
    let mut out = Vec::new();
    let error =
        encoder.encode_row(&Values(vec![Value::Text(&text); 91]), &ColumnSet::ALL, &mut out).unwrap_err();
    assert_eq!((error.reason, error.column), (Reason::RowTooLong, None));
    assert!(out.is_empty());
}

#[test]
fn out_of_range_values_are_nulled_or_clamped_and_counted() {
    let columns = [("id", Kind::Int), ("f", Kind::Float8), ("d", Kind::Date), ("t", Kind::Timestamp)];
    let row = || {
        vec![Value::Int(1), Value::Float8(f64::INFINITY), Value::Date(i32::MAX), Value::Timestamp(i64::MIN)]
    };

    let nulling = encoder(1, &columns, OutOfRange::Null);
    assert_eq!(line(&nulling, row()), "{\"id\":1,\"f\":null,\"d\":null,\"t\":null,\"__op\":0}\n");
    let counted: Vec<_> = nulling.take_adjusted().collect();
    assert_eq!(counted, ["f", "d", "t"].map(|column| Adjusted { column, nulled: 1, clamped: 0 }));
    assert_eq!(nulling.take_adjusted().count(), 0);

    let clamping = encoder(1, &columns, OutOfRange::Clamp);
    assert_eq!(
        line(&clamping, row()),
        "{\"id\":1,\"f\":1.7976931348623157e+308,\"d\":\"9999-12-31\",\"t\":\"0000-01-01 00:00:00\",\"__op\":0}\n"
    );
    let counted: Vec<_> = clamping.take_adjusted().collect();
    assert_eq!(counted, ["f", "d", "t"].map(|column| Adjusted { column, nulled: 0, clamped: 1 }));
}

#[test]
fn row_that_is_refused_counts_no_adjusted_value() {
    let encoder = encoder(1, &[("id", Kind::Int), ("d", Kind::Date), ("b", Kind::Text)], OutOfRange::Null);
    let row = Values(vec![Value::Int(1), Value::Date(i32::MAX), Value::Text(b"\xFF")]);
    assert!(encoder.encode_row(&row, &ColumnSet::ALL, &mut Vec::new()).is_err());
    assert_eq!(encoder.take_adjusted().count(), 0);
}

#[test]
fn clamped_text_ends_with_a_whole_character() {
    let encoder = encoder(1, NARROW, OutOfRange::Clamp);
    let text = "é".repeat(MAX_TEXT_BYTES / 2 + 1).replacen('é', "ab", 1).replacen("ab", "a", 1);
    let line = line(&encoder, vec![Value::Int(1), Value::Text(text.as_bytes())]);
    let row: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(row["b"].as_str().unwrap().len(), MAX_TEXT_BYTES - 1);
}

#[test]
fn unchanged_values_are_taken_from_the_earlier_row() {
    let columns = [("id", Kind::Int), ("a", Kind::Json), ("b", Kind::Text), ("c", Kind::Int)];
    let encoder = encoder(1, &columns, OutOfRange::Error);
    let earlier = line(
        &encoder,
        vec![
            Value::Int(1),
            Value::Json(b" {\"x\": [\"}\", {}]} "),
            Value::Text("\\\"é".as_bytes()),
            Value::Int(1),
        ],
    );
    let row = Values(vec![Value::Int(1), Value::Unchanged, Value::Unchanged, Value::Int(2)]);
    let mut out = Vec::new();
    encoder.upsert_over(earlier.as_bytes(), &row, &ColumnSet::ALL, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), earlier.replace("\"c\":1", "\"c\":2"));
}

#[test]
fn partial_row_has_only_the_columns_of_its_set() {
    let encoder = encoder(1, &[("id", Kind::Int), ("a", Kind::Text), ("b", Kind::Text)], OutOfRange::Error);
    let row = Values(vec![Value::Int(1), Value::Unchanged, Value::Text(b"x")]);
    let mut out = Vec::new();
    encoder.encode_row(&row, &ColumnSet::carried_by(&row, 3), &mut out).unwrap();
    assert_eq!(out, b"{\"id\":1,\"b\":\"x\",\"__op\":0}\n");
}

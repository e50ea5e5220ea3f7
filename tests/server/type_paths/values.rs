//! The values of the type test: type, literal, and what the target must show.
//!
//! A family is a column. `same` values must be shown as they are written here; `told` values are given with what
//! becomes of them.

/// How what the target shows is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// Byte by byte.
    Exact,
    /// As a value of this type of PostgreSQL: 1.50 is 1.5, and 1e2 is 100.
    Like(&'static str),
    /// As hexadecimal digits.
    Digits,
}

/// The values of one column.
pub(super) struct Family {
    pub(super) type_name: &'static str,
    pub(super) form: Form,
    /// An SQL expression, and the text at the target.
    pub(super) values: Vec<(String, Option<String>)>,
}

impl Family {
    /// The same values, and one more that is written as an expression.
    fn and(mut self, expression: &str, shown: String) -> Self {
        self.values.push((expression.to_owned(), Some(shown)));
        self
    }

    fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }
}

fn same(type_name: &'static str, values: &[&str]) -> Family {
    let pairs: Vec<_> = values.iter().map(|value| (*value, *value)).collect();
    told(type_name, &pairs)
}

fn told(type_name: &'static str, values: &[(&str, &str)]) -> Family {
    let values: Vec<_> = values.iter().map(|(literal, shown)| (*literal, Some(*shown))).collect();
    changed(type_name, &values)
}

fn changed(type_name: &'static str, values: &[(&str, Option<&str>)]) -> Family {
    let value = |(literal, shown): &(&str, Option<&str>)| {
        (format!("'{}'::{type_name}", literal.replace('\'', "''")), shown.map(str::to_owned))
    };
    Family { type_name, form: Form::Exact, values: values.iter().map(value).collect() }
}

pub(super) fn numbers() -> Vec<Family> {
    vec![
        same("smallint", &["0", "1", "-1", "32767", "-32768"]),
        same("integer", &["0", "7", "-7", "2147483647", "-2147483648"]),
        same(
            "bigint",
            &["0", "9007199254740993", "-9007199254740993", "9223372036854775807", "-9223372036854775808"],
        ),
        same("oid", &["0", "1", "2147483648", "4294967295"]),
        same("boolean", &["true", "false"]).form(Form::Like("boolean")),
        told(
            "real",
            &[
                ("0", "0"),
                ("0.1", "0.1"),
                ("1e-45", "1e-45"),
                ("-1.1754944e-38", "-1.1754944e-38"),
                ("3.4028235e38", "3.4028235e38"),
                ("-3.4028235e38", "-3.4028235e38"),
                ("16777217", "16777216"),
                ("1e10", "1e10"),
            ],
        )
        .form(Form::Like("real")),
        told(
            "double precision",
            &[
                ("0", "0"),
                ("0.1", "0.1"),
                ("0.30000000000000004", "0.30000000000000004"),
                ("5e-324", "5e-324"),
                ("2.2250738585072014e-308", "2.2250738585072014e-308"),
                ("1.7976931348623157e308", "1.7976931348623157e308"),
                ("-1.7976931348623157e308", "-1.7976931348623157e308"),
                ("9007199254740993", "9007199254740992"),
                ("1e23", "1e23"),
                ("123456789.12345679", "123456789.12345679"),
            ],
        )
        .form(Form::Like("double precision")),
        same("money", &["$0.00", "$1.00", "-$92,233,720,368,547,758.08", "$92,233,720,368,547,758.07"]),
    ]
}

pub(super) fn decimals() -> Vec<Family> {
    let decimal = Form::Like("numeric");
    let nines = |count| "9".repeat(count);
    vec![
        told(
            "numeric",
            &[
                ("0", "0"),
                ("0.0", "0.0"),
                ("-0.00", "0.00"),
                ("1.50", "1.50"),
                ("100", "100"),
                ("1e10", "10000000000"),
                ("10000", "10000"),
                ("9999.0001", "9999.0001"),
                ("-1e-20", "-0.00000000000000000001"),
                ("12345678901234567890.123456789", "12345678901234567890.123456789"),
                ("9007199254740993", "9007199254740993"),
            ],
        )
        .and("repeat('7', 1000)::numeric", "7".repeat(1000))
        .and("('-0.' || repeat('3', 1000))::numeric", format!("-0.{}", "3".repeat(1000)))
        .and("('1e131000')::numeric", format!("1{}", "0".repeat(131_000)))
        .and("('1e-16383')::numeric", format!("0.{}1", "0".repeat(16_382))),
        same("numeric(10,2)", &["0.00", "12.50", "-99999999.99", "99999999.99", "0.01"]).form(decimal),
        told("numeric(38,0)", &[("0", "0"), ("1e37", &format!("1{}", "0".repeat(37)))])
            .and("repeat('9', 38)::numeric(38,0)", nines(38))
            .and("('-' || repeat('9', 38))::numeric(38,0)", format!("-{}", nines(38)))
            .form(decimal),
        same("numeric(38,38)", &["0", "0.00000000000000000000000000000000000001"])
            .and("('-0.' || repeat('9', 38))::numeric(38,38)", format!("-0.{}", nines(38)))
            .form(decimal),
        same("numeric(39,0)", &["0", "-1"]).and("repeat('9', 39)::numeric(39,0)", nines(39)),
        same("numeric(76,10)", &["0.0000000000", "-1.5000000000"]).and(
            "(repeat('9', 66) || '.' || repeat('9', 10))::numeric(76,10)",
            format!("{}.{}", nines(66), nines(10)),
        ),
        same("numeric(1000,500)", &[])
            .and("0::numeric(1000,500)", format!("0.{}", "0".repeat(500)))
            .and("repeat('9', 500)::numeric(1000,500)", format!("{}.{}", nines(500), "0".repeat(500))),
    ]
}

/// A scale that is negative, or above the precision: since PostgreSQL 15.
pub(super) fn numbers_since_15() -> Vec<Family> {
    let decimal = Form::Like("numeric");
    vec![
        told("numeric(5,-3)", &[("0", "0"), ("12345678", "12346000"), ("-99999000", "-99999000")])
            .form(decimal),
        told("numeric(2,5)", &[("0", "0"), ("0.00099", "0.00099"), ("-0.000014", "-0.00001")]).form(decimal),
        told("numeric(3,-40)", &[("0", "0")])
            .and("('999e40')::numeric(3,-40)", format!("999{}", "0".repeat(40))),
    ]
}

pub(super) fn times() -> Vec<Family> {
    let (plain, zoned) = (Form::Like("timestamp without time zone"), Form::Like("timestamp with time zone"));
    vec![
        told("date", &[("0001-01-01 BC", "0000-01-01"), ("0001-12-31 BC", "0000-12-31")]),
        same(
            "date",
            &[
                "0001-01-01",
                "0099-12-31",
                "1582-10-10",
                "1970-01-01",
                "2000-02-29",
                "2026-11-20",
                "9999-12-31",
            ],
        ),
        told("timestamp", &[("0001-01-01 00:00:00 BC", "0000-01-01 00:00:00")]).form(plain),
        same(
            "timestamp",
            &[
                "0001-01-01 00:00:00",
                "1969-12-31 23:59:59.999999",
                "1999-12-31 23:59:59.5",
                "2000-01-01 00:00:00.000001",
                "2024-02-29 12:34:56.123456",
                "9999-12-31 23:59:59.999999",
            ],
        )
        .form(plain),
        told(
            "timestamptz",
            &[
                ("0001-01-01 00:00:00+00", "0001-01-01 00:00:00"),
                ("2026-01-01 00:30:00+02", "2025-12-31 22:30:00"),
                ("2026-06-30 23:59:59.9-11", "2026-07-01 10:59:59.9"),
                ("1999-12-31 23:59:59.5+05:30", "1999-12-31 18:29:59.5"),
                ("1901-01-01 00:00:00+15:59:59", "1900-12-31 08:00:01"),
                ("9999-12-31 23:59:59.999999+00", "9999-12-31 23:59:59.999999"),
            ],
        )
        .form(zoned),
        same("time", &["00:00:00", "00:00:00.000001", "12:34:56.7", "23:59:59.999999", "24:00:00"]),
        same(
            "timetz",
            &["00:00:00+00", "12:34:56.789+05:30", "24:00:00-15:59:59", "23:59:59.999999+15:59:59"],
        ),
        same(
            "interval",
            &[
                "00:00:00",
                "24:00:00",
                "1 day",
                "30 days",
                "1 mon",
                "-1 days +23:59:59.999999",
                "1 year 2 mons 3 days 04:05:06.789",
                "2562047788:00:54.775807",
                "-178956969 years -11 mons -2147483648 days -2562047788:00:54.775807",
            ],
        ),
    ]
}

/// Texts that somebody may take for something else.
const TEXTS: [&str; 44] = [
    "",
    " ",
    "\\N",
    "\\\\N",
    "NULL",
    "null",
    "\"",
    "\"\"",
    "'",
    "\\",
    "\\u0041",
    "\\n",
    "`",
    "{}",
    "[1,2]",
    "{\"a\":1}",
    "__op",
    ",",
    "\t",
    "\r\n",
    "\n\n",
    "a\u{7f}b",
    "äöü ß €",
    "日本語テキスト",
    "𝄞🐘👩‍👩‍👧‍👦",
    "e\u{301}",
    "\u{feff}x",
    "\u{200b}",
    "\u{2028}\u{2029}",
    "\u{85}",
    "\u{a0}",
    "\u{ffff}",
    "\u{10ffff}",
    "עברית العربية",
    "  both ends  ",
    "0",
    "-",
    "true",
    "1.50",
    "$$",
    "%s %d",
    "-- comment",
    "/* x */",
    "</script>",
];

pub(super) fn texts() -> Vec<Family> {
    let control = (1..0x20_u8).chain([0x7f]).map(|byte| format!("a{}b", char::from(byte)));
    let control: Vec<String> = control.collect();
    let control: Vec<&str> = control.iter().map(String::as_str).collect();
    vec![
        same("text", &TEXTS)
            .and("repeat('x', 1048576)", "x".repeat(1_048_576))
            .and("repeat('é', 524288)", "é".repeat(524_288))
            .and("repeat('🐘', 262144)", "🐘".repeat(262_144))
            .and("repeat('\"\\', 20000)", "\"\\".repeat(20_000)),
        same("text", &control),
        same("varchar(10)", &["", "x", "0123456789", "äöüßäöüßäö", "🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘", "a  "]),
        same("varchar", &["", "x", "no limit"]),
        told("char(5)", &[("", "     "), ("ab", "ab   "), ("🐘🐘🐘🐘🐘", "🐘🐘🐘🐘🐘"), (" x", " x   ")]),
        same("char(1)", &["a", "ß", "🐘"]),
        same("bpchar", &["", "a", "a b"]),
        same("name", &["", "pg_class", "Größe"]),
        same("\"char\"", &["", "a", "~"]),
        same("xml", &["<a/>", "<a b=\"c\">ü &amp; x</a>", "text only"]),
    ]
}

pub(super) fn documents() -> Vec<Family> {
    let json = [
        "{}",
        "[]",
        "0",
        "-1",
        "1.5",
        "true",
        "false",
        "\"\"",
        "\"text\"",
        "\"null\"",
        "[null]",
        "{\"a\": null}",
        "{\"\": {\"\": []}}",
        "[[[[[[]]]]]]",
        "9007199254740993",
        "9223372036854775807",
        "-9223372036854775808",
        "{\"n\": 12345678901234567}",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\u00e9\\ud83d\\ude00\"",
        "{\"k\\n\": \"ü 🐘\", \"__op\": 1}",
        "{\"a\": {\"b\": [1, 2, {\"c\": \"d\"}]}}",
        "[1, -2.5, \"x\", null, true, {\"a\": []}]",
    ];
    let depth = |count| format!("{}{}", "[".repeat(count), "]".repeat(count));
    let nested = "(repeat('[', 100) || repeat(']', 100))";
    vec![
        same("json", &json)
            .form(Form::Like("json"))
            .and("E'{\\n\"a\" :\\r\\n 1\\n}'::json", "{\"a\": 1}".to_owned())
            .and(&format!("{nested}::json"), depth(100)),
        same("jsonb", &json).form(Form::Like("jsonb")).and(&format!("{nested}::jsonb"), depth(100)),
        same("jsonpath", &["$.\"a\"[*]", "$.\"a\"?(@ > 1)"]),
    ]
}

pub(super) fn built_in() -> Vec<Family> {
    vec![
        told(
            "uuid",
            &[
                ("00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"),
                ("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
                ("{ffffffffffffffffffffffffffffffff}", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
            ],
        ),
        told(
            "bytea",
            &[
                ("\\x", ""),
                ("\\x00", "00"),
                ("\\xff", "ff"),
                ("\\x5c4e0a220d", "5c4e0a220d"),
                ("\\xdeadbeef", "deadbeef"),
                ("\\xc3a9", "c3a9"),
            ],
        )
        .and("decode(repeat('00ff', 5000), 'hex')", "00ff".repeat(5000))
        .and("decode(repeat('ab', 1048576), 'hex')", "ab".repeat(1_048_576))
        .form(Form::Digits),
        same("bit(1)", &["0", "1"]),
        same("bit(9)", &["000000000", "101010101"]),
        same("bit varying", &["", "1", "0011"]),
        same("bit varying(8)", &["", "11111111"]),
        same(
            "inet",
            &["0.0.0.0", "10.0.0.1/24", "255.255.255.255", "::", "2001:db8::1/64", "::ffff:1.2.3.4"],
        ),
        same("cidr", &["0.0.0.0/0", "10.0.0.0/8", "2001:db8::/32", "::1/128"]),
        same("macaddr", &["00:00:00:00:00:00", "08:00:2b:01:02:03"]),
        same("macaddr8", &["08:00:2b:01:02:03:04:05"]),
        same("pg_lsn", &["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"]),
        same("xid", &["0", "4294967295"]),
        same("cid", &["0", "4294967295"]),
        same("xid8", &["0", "18446744073709551615"]),
        same("tid", &["(0,0)", "(4294967295,65535)"]),
        same("pg_snapshot", &["10:20:10,14,15"]),
        same("txid_snapshot", &["10:20:10,14,15"]),
        same("tsvector", &["", "'a':1A,2 'b'", "'it''s'"]),
        same("tsquery", &["'a' & !'b'", "'x' <-> 'y':*"]),
        same("point", &["(0,0)", "(0.1,-1e+100)"]),
        same("line", &["{1,-1,0}"]),
        same("lseg", &["[(0,0),(1,1.5)]"]),
        same("box", &["(1,1),(0,0)"]),
        same("path", &["((0,0),(1,1))", "[(0,0),(1,1)]"]),
        same("polygon", &["((0,0),(1,1),(1,0))"]),
        same("circle", &["<(0,0),1.5>"]),
        same("int2vector", &["", "1 2 -3"]),
        same("oidvector", &["", "1 4294967295"]),
        same("regtype", &["integer", "text", "-"]),
        same("regclass", &["pg_class", "-"]),
        same("regproc", &["now"]),
        told("aclitem", &[("postgres=r/postgres", "postgres=r/postgres")]),
    ]
}

pub(super) fn ranges() -> Vec<Family> {
    vec![
        told("int4range", &[("[1,5)", "[1,5)"), ("(1,5]", "[2,6)"), ("empty", "empty"), ("(,)", "(,)")]),
        same("int8range", &["[-9223372036854775808,9223372036854775807)", "[1,)"]),
        same("numrange", &["[1.50,2.0]", "(,1)", "[NaN,NaN]", "[1,Infinity)"]),
        same(
            "daterange",
            &["[2026-01-01,2026-02-01)", "[2026-01-01,infinity)", "[\"0044-03-15 BC\",0001-01-01)"],
        ),
        same("tsrange", &["[\"2026-01-01 00:00:00\",\"2026-01-01 00:00:00.5\"]", "(-infinity,infinity)"]),
        told(
            "tstzrange",
            &[("[2026-01-01 00:00:00+02,)", "[\"2025-12-31 22:00:00+00\",)"), ("empty", "empty")],
        ),
        same("int4multirange", &["{}", "{[1,2),[5,6)}"]),
        same("nummultirange", &["{(,1.0),[2.5,)}"]),
        told("tstzmultirange", &[("{[2026-01-01 00:00:00+02,)}", "{[\"2025-12-31 22:00:00+00\",)}")]),
    ]
}

/// Types that the test makes itself; [`MADE_TYPES`] comes first.
pub(super) fn made() -> Vec<Family> {
    vec![
        same("mood", &["sad", "Happy", "with 'quotes' \"x\"", "ü"]),
        same("positive", &["1", "2147483647"]),
        same("very_positive", &["11", "2147483647"]),
        told("price", &[("12.5", "12.50"), ("-99999999.99", "-99999999.99")]).form(Form::Like("numeric")),
        same("label", &["", "0123456789"]),
        same("pair", &["(1,a)", "(,)", "(-1,\"a,b\")", "(1,\"\"\"q\"\" \\\\\")", "(2,\"\")"]),
        same("nested_pair", &["(\"(1,a)\",\"{1,2}\")", "(,)"]),
        same("pair_domain", &["(1,a)"]),
        same("numbers_domain", &["{1,2,NULL}"]),
        same("floatrange", &["[0.1,1.5)", "empty"]),
        same("mood[]", &["{sad,Happy}", "{}"]),
        same("pair[]", &["{\"(1,a)\",NULL}"]),
        same("positive[]", &["{1,2}"]),
    ]
}

pub(super) const MADE_TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'Happy', 'with ''quotes'' \"x\"', 'ü');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE DOMAIN very_positive AS positive CHECK (VALUE > 10);
    CREATE DOMAIN price AS numeric(10,2); CREATE DOMAIN label AS varchar(10);
    CREATE TYPE pair AS (n int, t text); CREATE TYPE nested_pair AS (p pair, a int[]);
    CREATE DOMAIN pair_domain AS pair; CREATE DOMAIN numbers_domain AS int[];
    CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi)";

pub(super) fn arrays() -> Vec<Family> {
    vec![
        same("integer[]", &["{}", "{1}", "{1,NULL,-2147483648}", "{{1,2},{3,4}}", "[0:1]={7,8}", "{{{1}}}"]),
        same("bigint[]", &["{9007199254740993,9223372036854775807}"]),
        same("smallint[]", &["{1,2,3}"]),
        same(
            "text[]",
            &["{}", "{a,NULL,\"NULL\",\"\"}", "{\"a,b\",\"\\\"\",\"\\\\\",\"{\",\" x\"}", "{ü🐘,\"\n\"}"],
        ),
        same("varchar(5)[]", &["{abc,NULL}"]),
        same("boolean[]", &["{t,f,NULL}"]),
        same("real[]", &["{0.1,NaN,Infinity,-Infinity,1e-45}"]),
        same("double precision[]", &["{0.1,NaN,-Infinity,0.30000000000000004}"]),
        same("numeric[]", &["{1.50,NaN,Infinity,12345678901234567890.123456789}"]),
        same("date[]", &["{2026-01-01,infinity,\"0044-03-15 BC\"}"]),
        same("timestamp[]", &["{\"2026-01-01 00:00:00.5\",-infinity,\"294276-12-31 23:59:59.999999\"}"]),
        told("timestamptz[]", &[("{2026-01-01 00:00:00+02}", "{\"2025-12-31 22:00:00+00\"}")]),
        same("time[]", &["{24:00:00}"]),
        same("interval[]", &["{\"1 mon 2 days\",-00:00:01}"]),
        same("uuid[]", &["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"]),
        told("bytea[]", &[("{\"\\\\x00ff\"}", "{\"\\\\x00ff\"}")]),
        same("jsonb[]", &["{\"{\\\"a\\\": null}\",\"null\"}"])
            .and("ARRAY['{}', NULL]::jsonb[]", "{\"{}\",NULL}".to_owned()),
        same("inet[]", &["{10.0.0.1/24}"]),
        same("int4range[]", &["{\"[1,5)\",empty}"]),
    ]
}

/// By the extension that brings the type.
pub(super) fn of_extensions() -> Vec<(&'static str, Family)> {
    vec![
        ("hstore", same("hstore", &["", "\"a\"=>\"1\", \"b\"=>NULL", "\"k \\\"q\\\"\"=>\"\""])),
        ("citext", same("citext", &["", "Mixed CASE", "straße"])),
        ("ltree", same("ltree", &["", "Top.Science.Astronomy"])),
        ("ltree", same("lquery", &["*.a@.b{1,2}"])),
        ("cube", same("cube", &["(1, 2),(3, 4)", "(0.1)"])),
        ("isn", same("isbn13", &["978-0-393-04002-9"])),
        ("seg", same("seg", &["1.5 .. 2.5", "~3"])),
        ("intarray", same("query_int", &["1 & ( 2 | 3 )"])),
    ]
}

/// Values that StarRocks does not have, and the nearest ones that it has.
pub(super) fn out_of_range() -> Vec<Family> {
    let mut all = numbers_out_of_range();
    all.extend(times_out_of_range());
    all.extend([
        changed("text", &[])
            .and("repeat('x', 1048577)", "x".repeat(1_048_576))
            .and("'x' || repeat('é', 524288)", format!("x{}", "é".repeat(524_287))),
        changed("bytea", &[])
            .and("decode(repeat('ab', 1048577), 'hex')", "ab".repeat(1_048_576))
            .form(Form::Digits),
    ]);
    all
}

fn times_out_of_range() -> Vec<Family> {
    let (day, instant) = ("9999-12-31", "9999-12-31 23:59:59.999999");
    let (first_day, first_instant) = ("0000-01-01", "0000-01-01 00:00:00");
    let (plain, zoned) = (Form::Like("timestamp without time zone"), Form::Like("timestamp with time zone"));
    vec![
        changed(
            "date",
            &[
                ("infinity", Some(day)),
                ("10000-01-01", Some(day)),
                ("5874897-12-31", Some(day)),
                ("-infinity", Some(first_day)),
                ("0002-12-31 BC", Some(first_day)),
                ("4713-01-01 BC", Some(first_day)),
            ],
        ),
        changed(
            "timestamp",
            &[
                ("infinity", Some(instant)),
                ("10000-01-01 00:00:00", Some(instant)),
                ("294276-12-31 23:59:59.999999", Some(instant)),
                ("-infinity", Some(first_instant)),
                ("0002-12-31 23:59:59.999999 BC", Some(first_instant)),
                ("4713-01-01 00:00:00 BC", Some(first_instant)),
            ],
        )
        .form(plain),
        changed(
            "timestamptz",
            &[
                ("infinity", Some(instant)),
                ("9999-12-31 23:00:00-02", Some(instant)),
                ("294276-12-31 23:59:59.999999+00", Some(instant)),
                ("-infinity", Some(first_instant)),
                ("0001-01-01 00:30:00+01 BC", Some(first_instant)),
            ],
        )
        .form(zoned),
    ]
}

fn numbers_out_of_range() -> Vec<Family> {
    vec![
        changed(
            "real",
            &[("NaN", None), ("Infinity", Some("3.4028235e38")), ("-Infinity", Some("-3.4028235e38"))],
        )
        .form(Form::Like("real")),
        changed(
            "double precision",
            &[
                ("NaN", None),
                ("Infinity", Some("1.7976931348623157e308")),
                ("-Infinity", Some("-1.7976931348623157e308")),
            ],
        )
        .form(Form::Like("double precision")),
        changed("numeric", &[("NaN", None), ("Infinity", None), ("-Infinity", None)]),
        changed("numeric(10,2)", &[("NaN", None)]),
    ]
}

/// Values that arrive exactly where `column_map` makes the column a text.
pub(super) fn kept_as_text() -> Vec<Family> {
    let nested = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let documents = [
        "null",
        "{\"a\": 1, \"a\": 2}",
        "{ \"b\":1,  \"a\":2 }",
        "1e400",
        "1.50",
        "12345678901234567890.123456789",
        "\"text\"",
        "true",
    ];
    vec![
        same("json", &documents).and(&format!("'{nested}'::json"), nested.clone()),
        same(
            "jsonb",
            &["null", "1.50", "12345678901234567890.123456789", "\"text\"", "true", "{\"a\": null}"],
        )
        .and(&format!("'{nested}'::jsonb"), nested.clone())
        .and("'1e400'::jsonb", format!("1{}", "0".repeat(400))),
        same("real", &["NaN", "Infinity", "-Infinity", "0.1", "-0", "1e-45"]),
        same("double precision", &["NaN", "Infinity", "-Infinity", "0.1", "-0", "5e-324"]),
        same("numeric", &["NaN", "Infinity", "-Infinity", "1.50"]),
        same("numeric(10,2)", &["NaN", "1.50"]),
        same("date", &["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "2026-11-20"]),
        same("timestamp", &["infinity", "294276-12-31 23:59:59.999999", "4713-01-01 00:00:00 BC"]),
        same("timestamptz", &["-infinity", "294276-12-31 23:59:59.999999+00"]),
        told("boolean", &[("true", "t"), ("false", "f")]),
        same("bigint", &["9223372036854775807"]),
        same("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
        same("bytea", &["\\x", "\\x00ff"]),
        same("text", &["x"]),
        same("name", &["x"]),
    ]
}

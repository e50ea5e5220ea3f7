//! Random values of the types that the mixed tables have, as literals. All of them can be held by the target.

use crate::harness::Random;

/// A literal of the type, or NULL now and then.
pub(super) fn value(type_name: &str, random: &mut Random) -> String {
    if random.below(8) == 0 { "NULL".to_owned() } else { present(type_name, random) }
}

/// A literal of the type.
pub(super) fn present(type_name: &str, random: &mut Random) -> String {
    let number = random.below(1_000_000);
    let text = match type_name {
        "smallint" => pick(random, &["0", "-32768", "32767", "7"]),
        "integer" => pick(random, &["0", "-2147483648", "2147483647", "42", "-1"]),
        "bigint" => pick(random, &["0", "-9223372036854775808", "9223372036854775807", "9007199254740993"]),
        "boolean" => pick(random, &["true", "false"]),
        "real" => pick(random, &["0", "1.5", "-3.4028235e38", "1e-45", "0.1"]),
        "double precision" => pick(random, &["0", "0.1", "1.7976931348623157e308", "5e-324", "-2.5"]),
        "date" => pick(random, &["0001-01-01", "9999-12-31", "1970-01-01", "2024-02-29"]),
        "uuid" => format!("00000000-0000-4000-8000-{number:012}"),
        "bytea" => format!("\\x{}", format!("{:02x}", number % 256).repeat(random.below(40) as usize)),
        "jsonb" => json(random),
        "interval" => pick(random, &["1 day", "-1 mon", "00:00:01.000001", "178000000 years"]),
        "inet" => pick(random, &["10.0.0.1", "::1/64", "0.0.0.0/0"]),
        "integer[]" => pick(random, &["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[0:1]={7,8}"]),
        "mood" => pick(random, &["calm", "very \"angry\"", "ü"]),
        other => of_a_family(other, random),
    };
    format!("'{}'", text.replace('\'', "''"))
}

/// Types with modifiers, and texts.
fn of_a_family(type_name: &str, random: &mut Random) -> String {
    let number = random.below(1_000_000);
    if type_name.starts_with("numeric") {
        return format!("{}{}.{:02}", pick(random, &["", "-"]), number, number % 100);
    }
    if type_name.starts_with("timestamp") {
        return pick(random, &["0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "2026-11-29 12:00:00.5"]);
    }
    if type_name.starts_with("time") {
        return pick(random, &["00:00:00", "23:59:59.999999", "12:00:00"]);
    }
    if type_name.starts_with("character") {
        return pick(random, &["", "a", "ü'\"\\", "\\N", "a b"]);
    }
    text(random)
}

/// Texts that are hard to quote, and long ones, which are stored out of line.
fn text(random: &mut Random) -> String {
    match random.below(8) {
        0 => String::new(),
        1 => "\\N".to_owned(),
        2 => (1..=0x1f_u8).map(char::from).collect(),
        3 => "quote ' double \" back \\ tick ` newline \n tab \t end".to_owned(),
        4 => "🐘 ü 漢字 \u{2028}".to_owned(),
        5 => format!("long {} ", random.below(1000)).repeat(600),
        _ => format!("t{}", random.below(1000)),
    }
}

fn json(random: &mut Random) -> String {
    let number = random.below(100_000);
    match random.below(5) {
        0 => "{}".to_owned(),
        1 => format!("[{number}, \"x\", null, true]"),
        2 => format!("{{\"a\": {{\"b\": [{number}]}}, \"ü\\\"\": \"\\u0001\"}}"),
        3 => format!("\"text {number}\""),
        _ => number.to_string(),
    }
}

fn pick(random: &mut Random, choices: &[&str]) -> String {
    choices[random.below(choices.len() as u64) as usize].to_owned()
}

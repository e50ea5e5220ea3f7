//! One text for values that are the same, however the two sides print them.

use serde_json::Value;

/// The normal form of a value of the PostgreSQL type `type_name` (as `regtype` prints it, without modifiers).
///
/// It never makes different values equal, with two exceptions: `character(n)` is compared without its padding, and
/// minus zero is zero (the stand-in's storage does not keep the sign).
pub(crate) fn normal_form(type_name: &str, text: &str) -> String {
    match type_name {
        "boolean" => boolean(text),
        "numeric" => numeric(text),
        // Adding zero takes the sign off a minus zero.
        "real" => {
            text.parse::<f32>().map_or_else(|_| text.to_owned(), |number| format!("{:?}", number + 0.0))
        }
        "double precision" => {
            text.parse::<f64>().map_or_else(|_| text.to_owned(), |number| format!("{:?}", number + 0.0))
        }
        "timestamp without time zone" | "timestamp with time zone" => timestamp(text),
        "character" => text.trim_end_matches(' ').to_owned(),
        "bytea" => text.strip_prefix("\\x").unwrap_or(text).to_ascii_lowercase(),
        "json" | "jsonb" => {
            serde_json::from_str(text).map_or_else(|_| text.to_owned(), |value: Value| json(&value))
        }
        _ => text.to_owned(),
    }
}

fn boolean(text: &str) -> String {
    match text {
        "t" | "1" | "true" => "true".to_owned(),
        "f" | "0" | "false" => "false".to_owned(),
        other => other.to_owned(),
    }
}

/// Trailing zeros of the fraction say nothing about the number.
fn numeric(text: &str) -> String {
    let trimmed = without_trailing_zeros(text);
    if trimmed == "-0" { "0".to_owned() } else { trimmed.to_owned() }
}

/// Both sides are in UTC; PostgreSQL alone says so.
fn timestamp(text: &str) -> String {
    let text = text.strip_suffix("+00").unwrap_or(text);
    without_trailing_zeros(text).to_owned()
}

fn without_trailing_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Members in the order of their names, no blanks.
fn json(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members =
                members.iter().map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), json(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(",")),
        Value::Number(number) => number.as_f64().map_or_else(
            || number.to_string(),
            |float| {
                if float.fract() == 0.0 && float.abs() < 9e15 {
                    format!("{float:.0}")
                } else {
                    number.to_string()
                }
            },
        ),
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::normal_form;

    #[test]
    fn the_same_value_has_one_form() {
        let same = [
            ("boolean", "t", "1"),
            ("numeric", "12.50", "12.5"),
            ("numeric", "100.00", "100"),
            ("real", "3.4028235e+38", "3.4028235e38"),
            ("double precision", "0.1", "0.10"),
            ("timestamp without time zone", "2026-01-01 00:00:00.5", "2026-01-01 00:00:00.500000"),
            ("timestamp with time zone", "2026-01-01 00:00:00+00", "2026-01-01 00:00:00.000000"),
            ("bytea", "\\x00FF", "00ff"),
            ("character", "ab   ", "ab"),
            ("jsonb", r#"{"b": [1, 2.0], "a": null}"#, r#"{"a":null,"b":[1.0,2]}"#),
        ];
        for (type_name, source, target) in same {
            assert_eq!(normal_form(type_name, source), normal_form(type_name, target), "{type_name}");
        }
    }

    #[test]
    fn different_values_have_different_forms() {
        let different = [
            ("numeric", "100", "1"),
            ("numeric", "10", "1"),
            ("text", "1.0", "1.00"),
            ("timestamp without time zone", "2026-01-01 00:00:00", "2026-01-01 00:00:10"),
            ("text", "ab ", "ab"),
            ("jsonb", "{}", "null"),
            ("jsonb", "12345678901234567", "12345678901234568"),
        ];
        for (type_name, source, target) in different {
            assert_ne!(normal_form(type_name, source), normal_form(type_name, target), "{type_name}");
        }
    }
}

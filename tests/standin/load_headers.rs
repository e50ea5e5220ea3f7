//! The headers of a load: which are known, which values they take, what a bad one answers.
//!
//! Unknown headers are ignored in silence, as the real server does. Known ones whose effect this stand-in does not have are refused.

use std::time::Duration;

use crate::body::Compression;
use crate::columns_header::{self, Entry};
use crate::http::{Framing, Head};

/// The longest JSON body by its Content-Length.
const MAX_JSON_BODY: u64 = 100 << 20;
/// The longest body of all.
const MAX_BODY: u64 = 102_400 << 20;
/// What the stand-in would have to obey and does not.
const UNSUPPORTED: &[&str] = &[
    "where",
    "jsonpaths",
    "json_root",
    "partitions",
    "temporary_partitions",
    "merge_condition",
    "envelope",
    "enable_merge_commit",
    "negative",
    "skip_header",
    "enclose",
    "escape",
];

/// The headers of one load, read and checked.
#[derive(Clone, Debug)]
pub(crate) struct LoadHeaders {
    pub(crate) columns: Option<Vec<Entry>>,
    pub(crate) strict: Strictness,
    pub(crate) max_filter_ratio: f64,
    pub(crate) update: UpdateScope,
    pub(crate) shape: BodyShape,
    pub(crate) compression: Compression,
    pub(crate) timeout: Duration,
}

/// What becomes of a value that does not fit its column.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Strictness {
    /// It becomes NULL.
    Lenient,
    /// Its row is filtered.
    Strict,
}

/// What an upsert does to columns that the load does not carry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum UpdateScope {
    /// They get their defaults.
    FullRows,
    /// They keep their values.
    ListedColumns,
}

/// How rows lie in the body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyShape {
    /// One object after another.
    Objects,
    /// One array of objects.
    Array,
}

impl LoadHeaders {
    /// Reads the headers; the error is the message of the answer.
    pub(crate) fn parse(head: &Head, framing: Framing) -> Result<Self, String> {
        check_format(head)?;
        if let Some(name) = UNSUPPORTED.iter().find(|name| head.header(name).is_some()) {
            return Err(format!("header {name} is not supported by this stand-in"));
        }
        let ignores_size = head.header("ignore_json_size").is_some_and(|value| value == "true");
        if let Framing::Length(length) = framing
            && length > MAX_JSON_BODY
            && !ignores_size
        {
            return Err(format!(
                "The size of this batch exceed the max size [{MAX_JSON_BODY}] of json type data, data size [{length}]. \
                 Set ignore_json_size to skip the check."
            ));
        }
        if let Framing::Length(length) = framing
            && length > MAX_BODY
        {
            return Err(format!("body size {length} exceed limit: {MAX_BODY}"));
        }
        let strict = flag(head, "strict_mode", "Invalid strict mode format")?;
        let partial = flag(head, "partial_update", "Invalid partial update flag format")?;
        Ok(Self {
            columns: head.header("columns").map(columns_header::parse).transpose()?,
            strict: if strict { Strictness::Strict } else { Strictness::Lenient },
            // A value that is no number counts as zero.
            max_filter_ratio: head.header("max_filter_ratio").and_then(|v| v.parse().ok()).unwrap_or(0.0),
            update: if partial { UpdateScope::ListedColumns } else { UpdateScope::FullRows },
            shape: match head.header("strip_outer_array") {
                Some("true") => BodyShape::Array,
                _ => BodyShape::Objects,
            },
            compression: compression(head)?,
            timeout: timeout(head)?,
        })
    }
}

fn check_format(head: &Head) -> Result<(), String> {
    match head.header("format").map(str::to_ascii_lowercase).as_deref() {
        Some("json") => Ok(()),
        None | Some("csv" | "gzip" | "bzip2" | "lz4" | "deflate" | "zstd") => {
            Err("format csv is not supported by this stand-in".into())
        }
        Some(other) => Err(format!("unknown data format, format={other}")),
    }
}

fn flag(head: &Head, name: &str, complaint: &str) -> Result<bool, String> {
    match head.header(name).map(str::to_ascii_lowercase).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(format!("{complaint}. Must be bool type, not {other}")),
    }
}

fn compression(head: &Head) -> Result<Compression, String> {
    let name = match (head.header("compression"), head.header("content-encoding")) {
        (Some(_), Some(_)) => {
            return Err("Only one of http header content-encoding and compression can be set".into());
        }
        (Some(name), None) | (None, Some(name)) => name,
        (None, None) => return Ok(Compression::None),
    };
    match name.to_ascii_uppercase().as_str() {
        "LZ4_FRAME" => Ok(Compression::Lz4Frame),
        "GZIP" => Ok(Compression::Gzip),
        _ => Err(format!("Unsupported compression type: {name}")),
    }
}

fn timeout(head: &Head) -> Result<Duration, String> {
    let Some(text) = head.header("timeout") else { return Ok(Duration::from_secs(600)) };
    match text.parse() {
        Ok(seconds @ 1..=259_200) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("Invalid timeout format: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(headers: &[(&str, &str)], length: u64) -> Result<LoadHeaders, String> {
        let head = Head {
            method: "PUT".into(),
            target: "/".into(),
            minor_version: 1,
            headers: headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        };
        LoadHeaders::parse(&head, Framing::Length(length))
    }

    fn complaint(name: &str, value: &str) -> String {
        parse(&[("format", "json"), (name, value)], 0).err().unwrap_or_default()
    }

    #[test]
    fn defaults_are_lenient_and_full() {
        let headers = parse(&[("format", "JSON")], 0).unwrap();
        assert_eq!((headers.strict, headers.update), (Strictness::Lenient, UpdateScope::FullRows));
        assert_eq!(headers.timeout, Duration::from_secs(600));
    }

    #[test]
    fn bad_values_are_named() {
        assert!(complaint("strict_mode", "yes").contains("Invalid strict mode format"));
        assert!(complaint("partial_update", "1").contains("Invalid partial update flag format"));
        assert!(complaint("timeout", "0").contains("Invalid timeout format"));
        assert!(complaint("compression", "rar").contains("Unsupported compression type: rar"));
        assert!(complaint("where", "a > 1").contains("not supported"));
        assert!(parse(&[("format", "xml")], 0).unwrap_err().contains("unknown data format, format=xml"));
        assert!(parse(&[], 0).unwrap_err().contains("csv"));
    }

    #[test]
    fn both_compression_headers_are_one_too_many() {
        let both = [("format", "json"), ("compression", "gzip"), ("content-encoding", "gzip")];
        assert!(parse(&both, 0).unwrap_err().contains("Only one of"));
    }

    #[test]
    fn large_bodies_need_a_header() {
        assert!(parse(&[("format", "json")], MAX_JSON_BODY).is_ok());
        assert!(parse(&[("format", "json")], MAX_JSON_BODY + 1).unwrap_err().contains("exceed the max size"));
        let ignoring = [("format", "json"), ("ignore_json_size", "true")];
        assert!(parse(&ignoring, MAX_JSON_BODY + 1).is_ok());
        assert!(parse(&ignoring, MAX_BODY + 1).unwrap_err().contains("exceed limit"));
    }

    #[test]
    fn unknown_headers_are_ignored() {
        assert!(parse(&[("format", "json"), ("strict-mode", "maybe")], 0).is_ok());
    }
}

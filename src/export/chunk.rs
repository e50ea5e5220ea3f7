//! The files of an export: their names, and the frame of a file of rows.
//!
//! ```text
//! manifest.json                                       written last: without it there is no export
//! schema/pre-data.sql  schema/post-data.sql           pg_dump's sections, never compressed
//! data/<schema>/<table>/000001.copy.zst               rows: a complete file of COPY, binary or CSV
//! large_objects/objects.copy.zst                      COPY of (oid, owner, acl, description)
//! large_objects/pages/000001.copy.zst                 COPY of (loid, pageno, data), as in pg_largeobject
//! blobs/ab/cdef….zst                                  a value by the SHA-256 of its bytes, with blobs = external
//! ```
//!
//! A value that is stored outside is replaced by a [`Reference`]: a text, so that a chunk with references can be loaded as it
//! is and shows where the values are. A value that begins like a reference is stored outside whatever its length, so
//! none is ever mistaken.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::codec::Compression;
use crate::options::Choice;

/// The form of a file of rows.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `COPY … (FORMAT binary)`.
    #[default]
    Binary,
    /// `COPY … (FORMAT csv)`, without a header, NULL as nothing.
    Csv,
}

impl Choice for Format {
    const WORDS: &'static [(&'static str, Self)] = &[("binary", Self::Binary), ("csv", Self::Csv)];
}

impl Format {
    /// What a file's name ends with before the compression's own, the dot included.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Binary => ".copy",
            Self::Csv => ".csv",
        }
    }

    /// The option of COPY that reads such a file.
    pub const fn copy_option(self) -> &'static str {
        match self {
            Self::Binary => "FORMAT binary",
            Self::Csv => "FORMAT csv",
        }
    }
}

/// How a file in the binary format begins: signature, flags, and a header extension of no bytes.
pub const BINARY_HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// How it ends: a tuple of -1 fields.
pub const BINARY_TRAILER: &[u8; 2] = &[0xff, 0xff];

/// `schema/pre-data.sql`: what must be there before the rows.
pub const PRE_DATA: &str = "schema/pre-data.sql";

/// `schema/post-data.sql`: indexes, constraints, triggers.
pub const POST_DATA: &str = "schema/post-data.sql";

/// Whose chunks a file has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content<'a> {
    /// Rows of a table.
    Table {
        /// Its schema.
        schema: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// Pages of large objects.
    LargeObjectPages,
}

/// The name of the file of a chunk; chunks are counted from 1.
pub fn file_name(content: Content<'_>, number: u32, format: Format, compression: Compression) -> String {
    let (format, compression) = (format.extension(), compression.extension());
    match content {
        Content::Table { schema, name } => {
            format!("data/{}/{}/{number:06}{format}{compression}", Safe(schema), Safe(name))
        }
        Content::LargeObjectPages => format!("large_objects/pages/{number:06}{format}{compression}"),
    }
}

/// The name of the file that lists the large objects.
pub fn large_objects_file(compression: Compression) -> String {
    format!("large_objects/objects{}{}", Format::Binary.extension(), compression.extension())
}

/// The name of the file of a value that is stored outside.
pub fn blob_name(sha256: &str, compression: Compression) -> String {
    let (first, rest) = sha256.split_at_checked(2).unwrap_or(("", sha256));
    format!("blobs/{first}/{rest}{}", compression.extension())
}

/// A name of the catalog as part of a file's name: letters, digits, `_` and `-` as they are, all else as `%` and two
/// hexadecimal digits per byte. Two names are never the same.
struct Safe<'a>(&'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => write!(f, "{}", char::from(byte)),
            _ => write!(f, "%{byte:02X}"),
        })
    }
}

/// What a chunk has in place of a value that is stored outside: `dbmazz-blob:<sha256>:<bytes>`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reference {
    /// SHA-256 of the value's bytes, in hexadecimal digits.
    pub sha256: String,
    /// How many bytes it has.
    pub bytes: u64,
}

/// How a reference begins.
pub const REFERENCE_PREFIX: &[u8] = b"dbmazz-blob:";

/// Whether a value looks like a reference, so that it must be stored outside whatever its length.
pub fn looks_like_reference(value: &[u8]) -> bool {
    value.starts_with(REFERENCE_PREFIX)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dbmazz-blob:{}:{}", self.sha256, self.bytes)
    }
}

/// A value that begins like a reference and is none: the file has been changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MalformedReference;

impl fmt::Display for MalformedReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value begins like a reference to a blob, but is none")
    }
}

impl std::error::Error for MalformedReference {}

impl FromStr for Reference {
    type Err = MalformedReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("dbmazz-blob:").ok_or(MalformedReference)?;
        let (sha256, bytes) = rest.split_once(':').ok_or(MalformedReference)?;
        let is_digest =
            sha256.len() == 64 && sha256.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
        let is_number = !bytes.is_empty() && bytes.bytes().all(|it| it.is_ascii_digit());
        if !is_digest || !is_number {
            return Err(MalformedReference);
        }
        let bytes = bytes.parse().map_err(|_| MalformedReference)?;
        Ok(Self { sha256: sha256.to_owned(), bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_are_safe_and_distinct() {
        let name =
            |schema, name| file_name(Content::Table { schema, name }, 7, Format::Binary, Compression::Zstd);
        assert_eq!(name("public", "orders"), "data/public/orders/000007.copy.zst");
        assert_eq!(name("..", "a/b\n%"), "data/%2E%2E/a%2Fb%0A%25/000007.copy.zst");
        assert_ne!(name("a", "é"), name("a", "%C3%A9"));
        let longest = "é".repeat(31);
        assert!(name(&longest, &longest).split('/').all(|part| part.len() <= 255));
    }

    #[test]
    fn reference_is_read_as_it_was_written() {
        let reference = Reference { sha256: "ab".repeat(32), bytes: 1 << 30 };
        let text = reference.to_string();
        assert!(looks_like_reference(text.as_bytes()));
        assert_eq!(text.parse(), Ok(reference.clone()));
        assert_eq!(blob_name(&reference.sha256, Compression::None), format!("blobs/ab/{}", "ab".repeat(31)));
        for bad in ["dbmazz-blob:", "dbmazz-blob:ab:1", &text[1..], &text.replace(":1", ":+1")] {
            assert_eq!(bad.parse::<Reference>(), Err(MalformedReference), "{bad}");
        }
    }
}

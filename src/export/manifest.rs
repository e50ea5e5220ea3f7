//! The manifest: what an export consists of. `manifest.json` is written last and atomically, so an export that has one is
//! complete.
//!
//! `docs/manifest.schema.json` describes it for other tools. A reader refuses a version that it does not know, and ignores
//! members that it does not know; a change that an old reader would misunderstand takes a new version.
//!
//! The last member, `checksum`, is the SHA-256 of all bytes before the comma in front of it: a manifest that was changed is
//! none, not even by white space.
//!
//! Positions are texts as `pg_lsn` prints them, times are RFC 3339 in UTC, digests are hexadecimal digits of the
//! files as they are stored.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::chunk::Format;
use super::codec::Compression;
use crate::options::Choice;

/// The name of the manifest's own file.
pub const MANIFEST: &str = "manifest.json";

/// The version that is written here.
pub const VERSION: u32 = 1;

/// What an export consists of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// The version of dbmazz that wrote it.
    pub dbmazz_version: String,
    /// `export_id` at the server that was exported.
    pub export_id: i64,
    /// When the export was asked for.
    pub started_at: String,
    /// When it was complete.
    pub finished_at: String,
    /// Whether all rows and definitions were read under one snapshot: the state of the database at `snapshot_lsn`.
    pub consistent: bool,
    /// Where the first snapshot was taken: all that committed before is in it, and nothing else.
    pub snapshot_lsn: String,
    /// The positions of all snapshots that chunks or definitions were read under, in ascending order: one if `consistent`.
    pub snapshot_lsns: Vec<String>,
    /// The slot that keeps the log from `snapshot_lsn` on, if one was asked for.
    pub slot: Option<String>,
    /// What was exported.
    pub server: Server,
    /// How.
    pub options: Options,
    /// pg_dump's sections.
    pub schema: SchemaFiles,
    /// The tables, in the order of their names. One without rows has a chunk as well.
    pub tables: Vec<Table>,
    /// Where sequences stood.
    pub sequences: Vec<Sequence>,
    /// The large objects; none when only some tables were exported, or when there are none.
    pub large_objects: Option<LargeObjects>,
}

/// The server and database that were exported.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Server {
    /// As of `server_version`.
    pub version: String,
    /// As of `server_version_num`.
    pub version_num: i32,
    /// As of `pg_control_system()`, in decimal digits.
    pub system_identifier: String,
    /// The database.
    pub database: String,
    /// Its encoding, as of `pg_encoding_to_char`. Texts of all files are in it.
    pub encoding: String,
}

/// The options that readers need.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Options {
    /// The form of the chunks of tables. What belongs to large objects is always binary.
    pub format: Format,
    /// Of chunks, of the files of large objects, and of blobs. The files of `schema` are not compressed.
    pub compression: Compression,
    /// As asked for; the codec's own level otherwise.
    pub compression_level: Option<i32>,
    /// The kind of all digests.
    pub checksum: Checksum,
    /// Whether large values are stored outside.
    pub blobs: Blobs,
    /// Values of more bytes than this are stored outside.
    pub blob_threshold: u64,
    /// Bytes of table and TOAST table that made a chunk.
    pub chunk_size: u64,
}

/// Where large values of `bytea`, `text` and `varchar` columns are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Blobs {
    /// In the chunks.
    #[default]
    Inline,
    /// In files of their own, by the hash of their bytes.
    External,
}

impl Choice for Blobs {
    const WORDS: &'static [(&'static str, Self)] = &[("inline", Self::Inline), ("external", Self::External)];
}

/// A file and what it must be.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct File {
    /// Its name, relative to the destination.
    pub file: String,
    /// Bytes before compression.
    pub bytes: u64,
    /// Bytes of the file.
    pub compressed_bytes: u64,
    /// Digest of the file.
    pub checksum: String,
}

/// pg_dump's sections.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SchemaFiles {
    /// What must be there before the rows.
    pub pre_data: File,
    /// What comes after them.
    pub post_data: File,
}

/// A table, or a materialized view.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its OID at the server that was exported.
    pub oid: u32,
    /// `table`, or `materialized view`: its rows are there to be read, but nobody can COPY into it.
    pub kind: TableKind,
    /// The columns of its chunks, in their order. Generated columns are not among them.
    pub columns: Vec<Column>,
    /// Its chunks, in the order of their numbers.
    pub chunks: Vec<Chunk>,
}

/// What the rows belong to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum TableKind {
    /// An ordinary table, or a partition.
    #[default]
    #[serde(rename = "table")]
    Table,
    /// A materialized view.
    #[serde(rename = "materialized view")]
    MaterializedView,
}

/// A column of the chunks of a table.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as of `format_type`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Whether its large values are stored outside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
}

/// A file of rows.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Chunk {
    /// The file.
    #[serde(flatten)]
    pub file: File,
    /// Its number within the table, from 1.
    pub chunk: u32,
    /// Where it begins in the table; none for what was not read by block ranges.
    pub first_ctid: Option<String>,
    /// Where it ends; none for the last chunk, which goes on to the end of the table.
    pub last_ctid: Option<String>,
    /// Its rows.
    pub rows: u64,
    /// References to blobs in it.
    #[serde(default)]
    pub blobs: u64,
    /// The position of the snapshot that it was read under.
    pub snapshot_lsn: String,
}

/// Where a sequence stood. Sequences know no snapshots: it is where it stood soon after the snapshot.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Sequence {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Second argument of `setval`.
    pub last_value: i64,
    /// Third argument of `setval`.
    pub is_called: bool,
}

/// The large objects.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LargeObjects {
    /// COPY binary of `(oid oid, owner text, acl text, description text)`, the latter two NULL where there is none. Its `rows` are
    /// the large objects.
    pub objects: Chunk,
    /// COPY binary of `(loid oid, pageno int4, data bytea)`. Page `n` begins at byte `n` times `page_bytes`; pages that are
    /// missing are holes.
    pub pages: Vec<Chunk>,
    /// Bytes of a page.
    pub page_bytes: u32,
}

/// Why a manifest cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is no JSON of this form.
    Malformed(serde_json::Error),
    /// It is of a version that this one does not know.
    Version(u64),
    /// It is not as it was written.
    Changed,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(problem) => write!(f, "could not read the manifest: {problem}"),
            Self::Version(version) => {
                write!(f, "the manifest is of version {version}, this is for {VERSION}")
            }
            Self::Changed => {
                f.write_str("the manifest is not as it was written: its checksum is another one")
            }
        }
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        let versioned: Versioned = serde_json::from_slice(json).map_err(ManifestError::Malformed)?;
        if versioned.version != u64::from(VERSION) {
            return Err(ManifestError::Version(versioned.version));
        }
        if !is_as_written(json) {
            return Err(ManifestError::Changed);
        }
        serde_json::from_slice(json).map_err(ManifestError::Malformed)
    }

    /// The text of `manifest.json`.
    ///
    /// # Errors
    /// Only if memory is short.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        if json.ends_with(b"\n}") {
            json.truncate(json.len() - 2);
        }
        let end = checksum_member(&json);
        json.extend_from_slice(end.as_bytes());
        Ok(json)
    }

    /// All files that it names, but for itself and blobs.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        let schema = [&self.schema.pre_data, &self.schema.post_data];
        let objects = self.large_objects.iter().flat_map(|it| std::iter::once(&it.objects).chain(&it.pages));
        let chunks = self.tables.iter().flat_map(|table| &table.chunks).chain(objects);
        schema.into_iter().chain(chunks.map(|chunk| &chunk.file))
    }
}

/// The end of a manifest that begins with `json`.
fn checksum_member(json: &[u8]) -> String {
    let mut hasher = Checksum::Sha256.hasher();
    hasher.update(json);
    format!("{CHECKSUM_MEMBER}{}\"\n}}\n", hasher.finish())
}

fn is_as_written(json: &[u8]) -> bool {
    let begin = memchr::memmem::rfind(json, CHECKSUM_MEMBER.as_bytes());
    let parts = begin.and_then(|begin| json.split_at_checked(begin));
    parts.is_some_and(|(begin, end)| end == checksum_member(begin).as_bytes())
}

const CHECKSUM_MEMBER: &str = ",\n  \"checksum\": \"";

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn file(name: &str) -> File {
        File { file: name.to_owned(), bytes: 21, compressed_bytes: 21, checksum: "00".repeat(16) }
    }

    /// The manifest of an export of one table.
    pub(in crate::export) fn example() -> Manifest {
        let chunk = Chunk {
            file: file("data/public/t/000001.copy"),
            chunk: 1,
            first_ctid: Some("(0,1)".to_owned()),
            last_ctid: None,
            rows: 0,
            blobs: 0,
            snapshot_lsn: "0/10".to_owned(),
        };
        let column = Column { name: "id".to_owned(), type_name: "integer".to_owned(), external: false };
        Manifest {
            version: VERSION,
            dbmazz_version: "0.1.0".to_owned(),
            export_id: 7,
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            finished_at: "2026-01-01T00:00:01Z".to_owned(),
            consistent: true,
            snapshot_lsn: "0/10".to_owned(),
            snapshot_lsns: vec!["0/10".to_owned()],
            slot: None,
            server: Server {
                version: "15.1".to_owned(),
                version_num: 150_001,
                system_identifier: "7".to_owned(),
                database: "shop".to_owned(),
                encoding: "UTF8".to_owned(),
            },
            options: Options {
                format: Format::Binary,
                compression: Compression::None,
                compression_level: None,
                checksum: Checksum::Xxh3,
                blobs: Blobs::Inline,
                blob_threshold: 1 << 20,
                chunk_size: 128 << 20,
            },
            schema: SchemaFiles {
                pre_data: file("schema/pre-data.sql"),
                post_data: file("schema/post-data.sql"),
            },
            tables: vec![Table {
                schema: "public".to_owned(),
                name: "t".to_owned(),
                oid: 16_384,
                kind: TableKind::Table,
                columns: vec![column],
                chunks: vec![chunk],
            }],
            sequences: Vec::new(),
            large_objects: None,
        }
    }

    #[test]
    fn manifest_is_read_as_it_was_written() {
        let json = example().to_json().expect("it can be written");
        assert_eq!(Manifest::parse(&json).expect("it can be read"), example());
        let names: Vec<_> = example().files().map(|file| file.file.clone()).collect();
        assert_eq!(names, ["schema/pre-data.sql", "schema/post-data.sql", "data/public/t/000001.copy"]);
    }

    #[test]
    fn version_that_is_not_known_is_refused() {
        let later = br#"{"version": 2, "tables": "in another form"}"#;
        assert!(matches!(Manifest::parse(later), Err(ManifestError::Version(2))));
        assert!(matches!(Manifest::parse(b"{"), Err(ManifestError::Malformed(_))));
    }

    #[test]
    fn changed_manifest_is_none() {
        let manifest = example();
        let json = manifest.to_json().expect("memory is not short");
        assert_eq!(Manifest::parse(&json).expect("nobody has changed it"), manifest);
        for bit in 0..8 * json.len() {
            let mut flipped = json.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::parse(&flipped).is_err(), "bit {bit} is flipped");
        }
    }
}

//! The options of an export: what they are called, what they may be, and what they are when nobody says.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use super::checksum::Checksum;
use super::chunk::Format;
use super::codec::Compression;
use super::manifest::{self, Blobs};
use crate::options::{OptionError, boolean, choice, parse_duration, refused, size, small_count};

/// Every option there is, in the order of the documentation.
pub const NAMES: [&str; 12] = [
    "format",
    "compression",
    "compression_level",
    "workers",
    "chunk_size",
    "blobs",
    "blob_threshold",
    "max_rate",
    "timeout",
    "overwrite",
    "slot",
    "checksum",
];

/// Processes that write chunks.
pub const WORKERS: RangeInclusive<u64> = 1..=32;
/// Bytes of table and TOAST table in a chunk.
pub const CHUNK_SIZE: RangeInclusive<u64> = 8 << 10..=1 << 40;
/// Bytes above which a value is stored outside. No value is larger than 1 GB.
pub const BLOB_THRESHOLD: RangeInclusive<u64> = 0..=1 << 30;
/// Bytes per second; zero for no limit.
pub const MAX_RATE: RangeInclusive<u64> = 0..=1 << 50;

/// What an export is to be like.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExportOptions {
    /// The form of the chunks.
    pub format: Format,
    /// How files are compressed.
    pub compression: Compression,
    /// How much; the codec's usual level when nobody says.
    pub compression_level: Option<i32>,
    /// Processes that write.
    pub workers: usize,
    /// Bytes of table and TOAST table in a chunk.
    pub chunk_bytes: u64,
    /// Where large values are.
    pub blobs: Blobs,
    /// Values of more bytes than this are large.
    pub blob_threshold: u64,
    /// Bytes before compression that all workers together write per second; zero for no limit.
    pub max_rate: u64,
    /// After this time the export fails, and can be resumed.
    pub timeout: Option<Duration>,
    /// Whether the destination may have other files.
    pub overwrite: bool,
    /// Whether a slot keeps the log from the export's position on.
    pub slot: bool,
    /// Digests of the files.
    pub checksum: Checksum,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            format: Format::default(),
            compression: Compression::default(),
            compression_level: None,
            workers: 4,
            chunk_bytes: 128 << 20,
            blobs: Blobs::default(),
            blob_threshold: 1 << 20,
            max_rate: 0,
            timeout: None,
            overwrite: false,
            slot: false,
            checksum: Checksum::default(),
        }
    }
}

impl ExportOptions {
    /// The defaults with what `set`, a JSON object, says instead.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(set: &Value) -> Result<Self, OptionError> {
        let set = set.as_object().ok_or(OptionError::NotAnObject)?;
        let mut options = Self::default();
        for (name, value) in set {
            options.set(name, value)?;
        }
        options.check_level()?;
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), OptionError> {
        match name {
            "format" => self.format = choice(name, value)?,
            "compression" => self.compression = choice(name, value)?,
            "compression_level" => self.compression_level = Some(level(name, value)?),
            "workers" => self.workers = small_count(name, value, &WORKERS)?,
            "chunk_size" => self.chunk_bytes = size(name, value, &CHUNK_SIZE)?,
            "blobs" => self.blobs = choice(name, value)?,
            "blob_threshold" => self.blob_threshold = size(name, value, &BLOB_THRESHOLD)?,
            "max_rate" => self.max_rate = size(name, value, &MAX_RATE)?,
            "timeout" => self.timeout = timeout(name, value)?,
            "overwrite" => self.overwrite = boolean(name, value)?,
            "slot" => self.slot = boolean(name, value)?,
            "checksum" => self.checksum = choice(name, value)?,
            _ => return Err(OptionError::Unrecognized { name: name.to_owned(), valid: &NAMES }),
        }
        Ok(())
    }

    fn check_level(&self) -> Result<(), OptionError> {
        let Some(level) = self.compression_level else { return Ok(()) };
        let allowed = match self.compression.levels() {
            Some((min, _, max)) if (min..=max).contains(&level) => return Ok(()),
            Some((min, _, max)) => format!("Write a whole number from {min} to {max}."),
            None => "This compression has no levels: leave the option out.".to_owned(),
        };
        Err(refused("compression_level", &Value::from(level), allowed))
    }

    /// What the manifest says of them.
    pub fn for_manifest(&self) -> manifest::Options {
        manifest::Options {
            format: self.format,
            compression: self.compression,
            compression_level: self.compression_level,
            checksum: self.checksum,
            blobs: self.blobs,
            blob_threshold: self.blob_threshold,
            chunk_size: self.chunk_bytes,
        }
    }
}

fn level(name: &str, value: &Value) -> Result<i32, OptionError> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_i64().and_then(|number| i32::try_from(number).ok()),
    };
    number.ok_or_else(|| refused(name, value, "Write a whole number.".to_owned()))
}

/// Zero is no time-out.
fn timeout(name: &str, value: &Value) -> Result<Option<Duration>, OptionError> {
    let time = match value {
        Value::Null => return Ok(None),
        Value::Number(number) if number.as_u64() == Some(0) => Some(Duration::ZERO),
        Value::String(text) => parse_duration(text),
        _ => None,
    };
    let allowed =
        || refused(name, value, "Write a time with its unit, such as \"2h\"; 0 for none.".to_owned());
    Ok(Some(time.ok_or_else(allowed)?).filter(|time| !time.is_zero()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_taken_and_mistakes_refused() {
        let options = ExportOptions::parse(&json!({
            "format": "csv", "compression": "gzip", "compression_level": 9, "workers": "2", "chunk_size": "64MB",
            "blobs": "external", "blob_threshold": "8kB", "max_rate": "10MB", "timeout": "2h", "overwrite": true,
            "slot": "on", "checksum": "sha256"
        }));
        let options = options.expect("all of them are valid");
        assert_eq!(
            (options.format, options.compression, options.workers),
            (Format::Csv, Compression::Gzip, 2)
        );
        assert_eq!(options.timeout, Some(Duration::from_secs(7_200)));
        for bad in [
            json!({"workers": 0}),
            json!({"format": "parquet"}),
            json!({"compression": "none", "compression_level": 1}),
            json!({"compression_level": 20}),
            json!({"chunk_size": 64}),
            json!({"timeout": "2 weeks"}),
            json!({"colour": "red"}),
            json!([]),
        ] {
            assert!(ExportOptions::parse(&bad).is_err(), "{bad}");
        }
    }
}

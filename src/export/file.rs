//! A file of an export while it is written: compressed, then digested and counted, then to its destination.
//!
//! ```text
//! rows ─► encoder (zstd, lz4, gzip, none) ─► pieces of 256 kB ─► digest, count ─► object
//! ```
//!
//! Dropped without [`ExportFile::finish`] it leaves nothing.

use std::io::{self, BufWriter, Write};

use super::checksum::{Checksum, Digesting};
use super::codec::{Compression, Encoder};
use super::destination::{Destination, Existing, ObjectWriter, StoreError};
use super::manifest::File;

/// What goes to the destination at once.
const PIECE: usize = 256 << 10;

/// How the files of an export are written.
#[derive(Clone, Copy, Debug)]
pub struct Writing {
    /// Compression.
    pub compression: Compression,
    /// Its level.
    pub level: Option<i32>,
    /// Digest.
    pub checksum: Checksum,
}

/// A file being written.
pub struct ExportFile {
    name: String,
    bytes: u64,
    encoder: Encoder<BufWriter<Digesting<ObjectSink>>>,
}

struct ObjectSink(Box<dyn ObjectWriter>);

impl Write for ObjectSink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl ExportFile {
    /// Begins the file `name`.
    ///
    /// # Errors
    /// The destination's.
    pub fn create(
        destination: &dyn Destination,
        name: &str,
        existing: Existing,
        writing: Writing,
    ) -> Result<Self, StoreError> {
        let object = ObjectSink(destination.create(name, existing)?);
        let out = BufWriter::with_capacity(PIECE, Digesting::new(object, writing.checksum));
        let encoder = writing.compression.encoder(out, writing.level);
        let encoder = encoder.map_err(|problem| StoreError::from_io(problem, "write", name))?;
        Ok(Self { name: name.to_owned(), bytes: 0, encoder })
    }

    /// Writes more of it.
    ///
    /// # Errors
    /// The destination's.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes += bytes.len() as u64;
        self.encoder.write_all(bytes).map_err(|problem| StoreError::from_io(problem, "write", &self.name))
    }

    /// Bytes before compression so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the file durable under its name.
    ///
    /// # Errors
    /// The destination's; the file is not there then.
    pub fn finish(self) -> Result<File, StoreError> {
        let Self { name, bytes, encoder } = self;
        let failed = |problem| StoreError::from_io(problem, "write", &name);
        let out = encoder.finish().map_err(failed)?;
        let digesting = out.into_inner().map_err(|problem| failed(problem.into_error()))?;
        let (object, checksum, compressed_bytes) = digesting.finish();
        object.0.finish()?;
        Ok(File { file: name, bytes, compressed_bytes, checksum })
    }
}

/// Writes a small file whole.
///
/// # Errors
/// The destination's.
pub fn write_whole(
    destination: &dyn Destination,
    name: &str,
    existing: Existing,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let mut object = destination.create(name, existing)?;
    object.write_all(bytes).map_err(|problem| StoreError::from_io(problem, "write", name))?;
    object.finish()
}

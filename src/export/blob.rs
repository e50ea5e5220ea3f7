//! Values that are stored outside of the chunks, once each over all tables and workers.
//!
//! The name of a blob is the SHA-256 of its bytes, so its bytes are gone through twice: once for the name, and once more to
//! write it, if nobody has done that yet. Two workers that write the same value at once do no harm: one of them finds
//! that it is there.

use std::collections::HashSet;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::checksum::to_hex;
use super::chunk::{Reference, blob_name};
use super::destination::{Destination, Existing, StoreError};
use super::file::{ExportFile, Writing};

/// Values that are remembered to be there. More are asked for at the destination.
const REMEMBERED: usize = 100_000;

/// Writes blobs.
pub struct BlobStore {
    destination: Arc<dyn Destination>,
    writing: Writing,
    there: HashSet<[u8; 32]>,
}

/// A value that can be gone through again and again.
pub trait BlobSource {
    /// Why it cannot be read.
    type Error: From<StoreError>;

    /// Gives its bytes to `take`, piece by piece.
    ///
    /// # Errors
    /// Its own, or that of `take`.
    fn each_piece(
        &mut self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), Self::Error>;
}

impl BlobStore {
    /// Into `destination`.
    pub fn new(destination: Arc<dyn Destination>, writing: Writing) -> Self {
        Self { destination, writing, there: HashSet::new() }
    }

    /// Stores a value, if it is not there yet. Returns what the chunk has in its place, and how many bytes were written.
    ///
    /// # Errors
    /// The destination's, or the source's.
    pub fn store<S: BlobSource>(&mut self, source: &mut S) -> Result<(Reference, u64), S::Error> {
        let mut hasher = Sha256::new();
        let mut bytes = 0;
        source.each_piece(&mut |piece| {
            hasher.update(piece);
            bytes += piece.len() as u64;
            Ok(())
        })?;
        let digest: [u8; 32] = hasher.finalize().into();
        let reference = Reference { sha256: to_hex(&digest), bytes };
        let written = if self.there.contains(&digest) { 0 } else { self.write(&reference, source)? };
        if self.there.len() < REMEMBERED {
            self.there.insert(digest);
        }
        Ok((reference, written))
    }

    fn write<S: BlobSource>(&mut self, reference: &Reference, source: &mut S) -> Result<u64, S::Error> {
        let name = blob_name(&reference.sha256, self.writing.compression);
        if self.destination.size(&name)?.is_some() {
            return Ok(0);
        }
        let mut file = match ExportFile::create(&*self.destination, &name, Existing::Keep, self.writing) {
            Err(StoreError::Exists { .. }) => return Ok(0),
            file => file?,
        };
        source.each_piece(&mut |piece| file.write(piece))?;
        match file.finish() {
            Ok(file) => Ok(file.compressed_bytes),
            Err(StoreError::Exists { .. }) => Ok(0),
            Err(problem) => Err(problem.into()),
        }
    }
}

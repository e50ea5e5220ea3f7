//! Where an export's files are: [`Local`], a directory of the server, and [`S3`], a bucket; [`Nowhere`] for estimates.
//!
//! What every destination guarantees:
//!
//! * [`ObjectWriter::finish`] returns when the object is durable under its name, all at once. Before that, and after
//!   [`ObjectWriter::abort`] or a drop, there is nothing under that name that was not there before.
//! * What a killed process leaves behind is no object: [`Destination::list`] does not show it, and
//!   [`Destination::remove_unfinished`] takes it away.
//! * Names are relative, as [`check_name`] wants them; none leads out of the destination, by `..` or by symbolic links.
//!
//! A destination is shared by threads. One that talks to a network does so in threads of its own, which it gets from its
//! [`Host`]: the main thread of a process that writes or reads an object waits in short pieces, and breathes between them.

mod error;
mod local;
mod location;
mod nowhere;
pub mod s3;

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

pub use error::StoreError;
pub use local::Local;
pub use location::{Location, LocationError};
pub use nowhere::Nowhere;
pub use s3::S3;

/// A place for objects that have names.
pub trait Destination: Send + Sync {
    /// Begins an object. Its bytes should come in pieces of some 100 kB: they are not collected here.
    ///
    /// # Errors
    /// When the name is not valid or nothing can be written there.
    fn create(&self, name: &str, existing: Existing) -> Result<Box<dyn ObjectWriter>, StoreError>;

    /// Reads an object from its beginning.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none of this name; later failures are errors of the reader.
    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError>;

    /// Bytes of an object; none when there is no such object.
    ///
    /// # Errors
    /// When the destination cannot be asked.
    fn size(&self, name: &str) -> Result<Option<u64>, StoreError>;

    /// All objects whose names begin with `prefix`, by name. Never anything unfinished.
    ///
    /// # Errors
    /// When the destination cannot be asked. A destination that is not there has no objects.
    fn list(&self, prefix: &str) -> Result<Vec<Object>, StoreError>;

    /// Removes an object; it is no error when there is none.
    ///
    /// # Errors
    /// When the destination refuses.
    fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// Removes what killed writers have left. Nobody may be writing.
    ///
    /// # Errors
    /// When the destination refuses.
    fn remove_unfinished(&self) -> Result<(), StoreError>;

    /// Bytes that still fit; none where there is no such limit.
    ///
    /// # Errors
    /// When the destination cannot be asked.
    fn free_bytes(&self) -> Result<Option<u64>, StoreError>;

    /// Keeps others from writing here for as long as the answer is kept; makes the place if need be.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when somebody else does, or the reason why nothing can be written there.
    fn lock(&self) -> Result<Claim, StoreError> {
        Ok(Claim::default())
    }

    /// What distinguishes the place from all others, whatever it is called; none where nothing does, or when it is not there.
    fn identity(&self) -> Option<Identity> {
        None
    }
}

/// Device and inode of a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

/// Nobody else writes to a destination while this is kept. It ends with the process at the latest.
#[derive(Debug, Default)]
pub struct Claim {
    /// The directory that is locked. None where nothing can be locked.
    pub directory: Option<OwnedFd>,
    /// Whether the file system knows no locks.
    pub is_unguarded: bool,
}

/// An object being written. Errors of [`Write`] have a [`StoreError`] inside; [`StoreError::from_io`] gets it out.
///
/// Dropped without [`Self::finish`] it is aborted.
pub trait ObjectWriter: Write + Send {
    /// Makes the object durable under its name.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is one already that was to be kept. The object is not there, whatever the error.
    fn finish(self: Box<Self>) -> Result<(), StoreError>;

    /// Takes away what has been written.
    fn abort(self: Box<Self>);
}

/// What to do with an object that has the name already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Existing {
    /// It stays, and finishing fails.
    Keep,
    /// It is replaced, at once.
    Replace,
}

/// An object that is there.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Object {
    /// Its name, relative to the destination.
    pub name: String,
    /// Its bytes.
    pub size: u64,
}

/// What a destination needs of the process that it is used in.
pub trait Host: Send + Sync {
    /// Called by a thread that waits for the network, every few milliseconds. In the main thread of a PostgreSQL process
    /// it serves interrupts, and may unwind.
    fn breathe(&self);

    /// Starts a thread. In a PostgreSQL process it has all signals blocked.
    ///
    /// # Errors
    /// When the system refuses.
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;
}

/// A process that nobody interrupts.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainHost;

impl Host for PlainHost {
    fn breathe(&self) {}

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(name.to_owned()).spawn(work)
    }
}

/// Names are paths of at least one part: no part is empty, `.`, `..`, or looks like something unfinished.
///
/// # Errors
/// [`StoreError::Name`].
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let good_part = |part: &str| !matches!(part, "" | "." | "..") && !part.starts_with(UNFINISHED);
    let good = name.len() <= MAX_NAME_BYTES && !name.contains(['\0', '\\']) && name.split('/').all(good_part);
    if good { Ok(()) } else { Err(StoreError::Name { name: name.to_owned() }) }
}

/// How the names of files begin that are being written.
const UNFINISHED: &str = ".dbmazz-unfinished-";

const MAX_NAME_BYTES: usize = 900;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\0b", ".dbmazz-unfinished-1"]
        {
            assert!(matches!(check_name(bad), Err(StoreError::Name { .. })), "{bad:?} is taken");
        }
        for good in ["manifest.json", "blobs/ab/cdef", "schema/pre-data.sql", "a b", "tables/öl.0.bin.zst"] {
            assert!(check_name(good).is_ok(), "{good:?} is refused");
        }
    }
}

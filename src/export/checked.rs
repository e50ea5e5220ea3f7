//! A file is compared with what the manifest says of it, while it is read for something else.
//!
//! The digest is of the bytes as they are stored. Whoever reads the content must not believe it before
//! [`CheckedFile::finish`] has said that it is the right one.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, sync::Arc};

use super::checksum::{Checksum, Digesting};
use super::codec::{Compression, Decoder};
use super::destination::{Destination, StoreError};
use super::manifest::File;

/// A file being read.
pub struct CheckedFile {
    stored: Shared<Digesting<Stoppable>>,
    content_bytes: Rc<RefCell<u64>>,
    expected: File,
}

/// Reading can be given up from another thread: set it, and the next read fails.
pub type Stop = Arc<AtomicBool>;

impl CheckedFile {
    /// Opens a file of a manifest.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(
        store: &dyn Destination,
        expected: &File,
        checksum: Checksum,
        stop: &Stop,
    ) -> Result<Self, StoreError> {
        let file = Stoppable { file: store.open(&expected.file)?, stop: Arc::clone(stop) };
        Ok(Self {
            stored: Shared(Rc::new(RefCell::new(Digesting::new(file, checksum)))),
            content_bytes: Rc::default(),
            expected: expected.clone(),
        })
    }

    /// Its content, before compression. To be asked for once.
    ///
    /// # Errors
    /// When the decompressor cannot be set up.
    pub fn content(&self, compression: Compression) -> io::Result<Content> {
        let decoder = compression.decoder(self.stored.clone())?;
        Ok(Content { decoder, bytes: Rc::clone(&self.content_bytes) })
    }

    /// Reads what is left of the file, and compares all of it.
    ///
    /// # Errors
    /// How it differs. The content that has been read is not what was written.
    pub fn finish(self) -> Result<(), Difference> {
        let mut stored = self.stored;
        io::copy(&mut stored, &mut io::sink()).map_err(Difference::Unreadable)?;
        let stored = stored.0.borrow();
        let (is, should) = (Digesting::bytes(&*stored), self.expected.compressed_bytes);
        let digest = stored.digest();
        if is != should {
            return Err(Difference::Size { is, should, checksum: digest });
        }
        if digest != self.expected.checksum {
            return Err(Difference::Checksum { is: digest });
        }
        Ok(())
    }

    /// Compares the bytes of the content, which has been read to its end; [`Self::finish`] comes first.
    pub fn content_bytes(&self) -> Rc<RefCell<u64>> {
        Rc::clone(&self.content_bytes)
    }
}

/// How a file differs from what the manifest says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Difference {
    /// It cannot be read to its end.
    Unreadable(io::Error),
    /// It has another size.
    Size {
        /// Its bytes.
        is: u64,
        /// What they should be.
        should: u64,
        /// Its digest.
        checksum: String,
    },
    /// It has other content.
    Checksum {
        /// Its digest.
        is: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(problem) => write!(f, "could not be read: {problem}"),
            Self::Size { is, should, .. } => write!(f, "has {is} bytes instead of {should}"),
            Self::Checksum { is } => write!(f, "has other content than was written: its checksum is {is}"),
        }
    }
}

impl std::error::Error for Difference {}

/// The content of a [`CheckedFile`], before compression.
pub struct Content {
    decoder: Decoder<Shared<Digesting<Stoppable>>>,
    bytes: Rc<RefCell<u64>>,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.decoder.read(buffer)?;
        *self.bytes.borrow_mut() += length as u64;
        Ok(length)
    }
}

/// Two hands on one reader: the decompressor's, and the one that reads what it has left.
struct Shared<R>(Rc<RefCell<R>>);

impl<R> Clone for Shared<R> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<R: Read> Read for Shared<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

/// A file whose reading can be given up.
struct Stoppable {
    file: Box<dyn Read + Send>,
    stop: Stop,
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("reading was given up"));
        }
        self.file.read(buffer)
    }
}

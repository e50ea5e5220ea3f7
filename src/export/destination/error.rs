//! Why an object could not be written or read. What may pass by itself has been retried before it comes here.

use std::{fmt, io};

/// Why a destination did not do what it was asked for. None of these repeats a secret.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// Not a name that an object can have.
    Name {
        /// The name.
        name: String,
    },
    /// There is no such object.
    Missing {
        /// Its name.
        name: String,
    },
    /// There is such an object already, and it was to be kept.
    Exists {
        /// Its name.
        name: String,
    },
    /// Somebody else is writing there.
    InUse {
        /// The destination.
        place: String,
    },
    /// A file of the server could not be used.
    File {
        /// What was tried: "write", "read", ….
        action: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A server does not answer, or not in the time that there is.
    Unreachable {
        /// `scheme://host:port`.
        endpoint: String,
        /// What happened last.
        reason: String,
    },
    /// A server answered, and repeating the request would bring the same answer.
    Refused {
        /// `scheme://host:port`.
        endpoint: String,
        /// HTTP status.
        status: u16,
        /// S3's name of the error.
        code: String,
        /// Its message.
        message: String,
    },
    /// The server's options cannot be used.
    Configuration {
        /// What is wrong with them.
        reason: String,
    },
    /// An object has more bytes than a bucket takes.
    TooLarge {
        /// Its name.
        name: String,
    },
    /// Memory is short.
    OutOfMemory {
        /// Bytes that were asked for.
        bytes: usize,
    },
}

impl StoreError {
    /// The error inside an error of a reader or a writer; `action` and `name` describe one that is the system's own.
    pub fn from_io(error: io::Error, action: &'static str, name: &str) -> Self {
        match error.downcast::<Self>() {
            Ok(inside) => inside,
            Err(source) => Self::File { action, path: name.to_owned(), source },
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name } => write!(f, "invalid name \"{}\" in an export", name.escape_debug()),
            Self::Missing { name } => write!(f, "\"{name}\" does not exist"),
            Self::Exists { name } => write!(f, "\"{name}\" exists already"),
            Self::InUse { place } => write!(f, "another server is writing to \"{place}\""),
            Self::File { action, path, source } => write!(f, "could not {action} \"{path}\": {source}"),
            Self::Unreachable { endpoint, reason } => {
                write!(f, "could not reach S3 at \"{endpoint}\": {reason}")
            }
            Self::Refused { endpoint, status, code, message } => {
                write!(f, "S3 at \"{endpoint}\" refused: {code} (HTTP status {status})")?;
                if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
            }
            Self::Configuration { reason } => write!(f, "could not use the server's options: {reason}"),
            Self::TooLarge { name } => write!(f, "\"{name}\" has more bytes than S3 takes"),
            Self::OutOfMemory { bytes } => write!(f, "out of memory allocating {bytes} bytes"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

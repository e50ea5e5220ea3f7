//! Why something did not reach the target. All of these are final: what may pass is retried inside the sink.

use std::fmt;

/// Why the rows of a load are not visible, or its label is not settled.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LoadError {
    /// The worker goes down. The outcome may be unknown: the label is settled at the next start.
    Stopped,
    /// The target answered, and repeating the same load would bring the same answer.
    Refused {
        /// Whether fewer rows could pass.
        refusal: Refusal,
        /// `Status` of the answer.
        status: String,
        /// `Message` of the answer.
        message: String,
        /// The first lines behind the answer's `ErrorURL`: the rows refused and why.
        error_log: Option<String>,
    },
    /// The label was in use before this load was sent for the first time: somebody else has the same label.
    LabelTaken {
        /// `Message` of the answer.
        message: String,
    },
    /// The target committed another number of rows than were sent.
    CountMismatch {
        /// Rows of the load.
        sent: u64,
        /// `NumberLoadedRows` of the answer.
        loaded: u64,
    },
    /// Labels are known to frontends only, and every load URL names a backend.
    NoFrontend,
    /// The body could not be compressed into memory at hand.
    OutOfMemory {
        /// Bytes that were asked for.
        bytes: usize,
    },
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Some of the rows, or their size: smaller loads find out which.
    Rows,
    /// The table, its columns or the request: every load of the table would be refused.
    Table,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("could not finish the load: the worker is shutting down"),
            Self::Refused { status, message, .. } => {
                write!(f, "could not load rows: status \"{status}\": {message}")
            }
            Self::LabelTaken { message } => {
                write!(f, "could not load rows: the label was used before it was sent: {message}")
            }
            Self::CountMismatch { sent, loaded } => {
                write!(f, "could not load all rows: {sent} were sent, the server counted {loaded}")
            }
            Self::NoFrontend => f.write_str("could not ask for a label: no load URL names a frontend"),
            Self::OutOfMemory { bytes } => {
                write!(f, "could not compress the load: out of memory allocating {bytes} bytes")
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Why a statement over the MySQL protocol did not succeed.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StatementError {
    /// The worker goes down. The statement may have been executed.
    Stopped,
    /// No connection, or it was lost.
    Unreachable {
        /// `host:port`.
        endpoint: String,
        /// What the connection said.
        reason: String,
    },
    /// The server knows the user not, or not with this password.
    Credentials {
        /// The server's message.
        message: String,
    },
    /// The server answered with an error.
    Refused {
        /// What was asked of it.
        statement: String,
        /// MySQL error code; 1064 for most things.
        code: u16,
        /// The server's message.
        message: String,
    },
    /// The server did what it was asked for, and then something else that takes it back.
    Undone {
        /// What was asked of it.
        statement: String,
        /// What became of it.
        reason: String,
    },
    /// The server answered with something that no StarRocks answers.
    Malformed {
        /// What was asked of it.
        statement: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("could not finish the statement: the worker is shutting down"),
            Self::Unreachable { endpoint, reason } => {
                write!(f, "could not reach StarRocks at \"{endpoint}\": {reason}")
            }
            Self::Credentials { message } => write!(f, "could not log in to StarRocks: {message}"),
            Self::Refused { statement, code, message } => {
                write!(f, "could not execute \"{statement}\": error {code}: {message}")
            }
            Self::Undone { statement, reason } => write!(f, "\"{statement}\" has been undone: {reason}"),
            Self::Malformed { statement, reason } => {
                write!(f, "could not read the answer to \"{statement}\": {reason}")
            }
        }
    }
}

impl std::error::Error for StatementError {}

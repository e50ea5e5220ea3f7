//! What can be wrong with a message.

use std::fmt;

/// Bytes that are no message of protocol version 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ParseError {
    /// The message ends too early.
    Truncated {
        /// Bytes that should follow.
        wanted: usize,
        /// Bytes that do.
        left: usize,
    },
    /// The message goes on behind its end.
    TrailingBytes(usize),
    /// No message begins with this byte.
    MessageTag(u8),
    /// No tuple of this message is marked with this byte.
    TupleTag(u8),
    /// No value of a column is marked with this byte.
    ColumnTag(u8),
    /// A count or length below zero.
    NegativeLength(i32),
    /// A name without its zero byte.
    UnterminatedName,
    /// A name that is not UTF-8.
    NameNotUtf8,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("could not read pgoutput message: ")?;
        match self {
            Self::Truncated { wanted, left } => write!(f, "{wanted} bytes should follow, {left} do"),
            Self::TrailingBytes(bytes) => write!(f, "{bytes} bytes are left over"),
            Self::MessageTag(tag) => write!(f, "unrecognized message \"{}\"", tag.escape_ascii()),
            Self::TupleTag(tag) => write!(f, "unrecognized tuple \"{}\"", tag.escape_ascii()),
            Self::ColumnTag(tag) => write!(f, "unrecognized column \"{}\"", tag.escape_ascii()),
            Self::NegativeLength(length) => write!(f, "length {length} is negative"),
            Self::UnterminatedName => f.write_str("a name has no end"),
            Self::NameNotUtf8 => f.write_str("a name is not UTF-8"),
        }
    }
}

impl std::error::Error for ParseError {}

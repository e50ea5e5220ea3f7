//! From values to the bytes of a row.
//!
//! One row becomes one line of NDJSON: the columns of the key first, then the others, then the operation.
//!
//! ```text
//! {"id":7,"name":"seven","at":"2026-11-20 15:00:00","__op":0}      insert or update
//! {"id":7,"__op":1}                                               delete
//! └─ key ─┘
//! ```
//!
//! What is guaranteed:
//!
//! * The same row gives the same bytes, whichever path brought it: the tuple of a change, a snapshot scan, pgoutput.
//! * The key is a prefix of the line, and equal keys are equal prefixes: numeric keys lose trailing zeros (1.0 and
//!   1.00 are one key in PostgreSQL), float keys their negative zero. So compaction compares bytes.
//! * A line is valid JSON in UTF-8, without a raw line break inside. Nothing is dropped, nulled or clamped in
//!   silence: what StarRocks cannot hold is treated as [`OutOfRange`] says, and counted. A key is never changed.
//! * When a row is refused, the buffer is as long as before.
//!
//! NULL is `null`. A JSON document is embedded as it stands, but for line breaks between its tokens, which become
//! blanks (inside JSON strings PostgreSQL allows none). StarRocks stores an embedded JSON `null` as SQL NULL; a load
//! has no way to say it otherwise.
//!
//! Called by [`crate::pipeline`], and through it by the decoding callback and the snapshot workers.

mod added;
mod appended;
mod column_set;
mod datetime;
mod earlier_row;
mod error;
mod float;
mod fragment;
mod hex;
mod json;
mod numeric;
mod range;
mod row;
mod shown;
mod text_form;
mod value;

#[cfg(test)]
mod tests;

pub use added::{Added, Mark, Stamp, WithAdded};
pub use appended::Appended;
pub use column_set::ColumnSet;
pub use error::{EncodeError, Fault, Reason};
pub use range::{MAX_JSON_BYTES, OutOfRange};
pub use row::{Adjusted, MAX_ROW_BYTES, RowBytes, RowEncoder};
pub use shown::ShownRow;
pub use text_form::MalformedText;
pub use value::{Row, Value};

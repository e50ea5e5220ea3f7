//! The wire format of PostgreSQL's own output plugin, protocol version 1.
//!
//! Only tables of publications with row filters or column lists come this way: pgoutput's original callback is called
//! for them, and its bytes arrive through the write callback. Everything is borrowed from those bytes; nothing is copied
//! and, per row, nothing allocated.
//!
//! ```text
//! Begin       B  final LSN, commit time, xid               Insert    I  relation, N tuple
//! Commit      C  flags, commit LSN, end LSN, time          Update    U  relation, [K|O tuple,] N tuple
//! Origin      O  commit LSN, name                          Delete    D  relation, K|O tuple
//! Relation    R  id, schema, name, identity, columns       Truncate  T  relations, options
//! Type        Y  id, schema, name                          Message   M  flags, LSN, prefix, content
//! ```
//!
//! A tuple is a count and, per column, `n` (NULL), `u` (unchanged TOAST), `t` or `b` with a counted value.
//!
//! What is guaranteed: any bytes whatever give a message or a [`ParseError`], never a panic; a message that is cut short
//! or has bytes left over is an error, down to the last column of a tuple; names are UTF-8. Values are not looked at:
//! they are the encoder's to judge.
//!
//! Called by `postgres::decode`: [`Message::parse`], then [`RelationCache`] for what a Relation message said, then
//! [`PgoutputRow`] as the [`crate::encode::Row`] that the pipeline takes.

mod error;
mod message;
mod reader;
mod relation;
mod row;
mod tuple;

#[cfg(test)]
mod tests;

pub use error::ParseError;
pub use message::{Message, OldTuple, Relation, RelationColumn, RelationColumns, Relations};
pub use relation::{ColumnMap, KnownColumn, KnownRelation, MissingColumn, RelationCache};
pub use row::PgoutputRow;
pub use tuple::{Tuple, TupleColumn, TupleColumns, TupleIndex};

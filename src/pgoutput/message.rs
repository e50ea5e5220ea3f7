//! Messages.

use super::error::ParseError;
use super::reader::Reader;
use super::tuple::Tuple;
use crate::lsn::Lsn;

/// A message of protocol version 1, borrowed from its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// A transaction begins.
    Begin {
        /// Where its commit record begins.
        final_lsn: Lsn,
        /// When it committed: microseconds since 2000-01-01, UTC.
        committed_at: i64,
        /// Its transaction id.
        xid: u32,
    },
    /// It ends.
    Commit {
        /// Where its commit record begins.
        commit_lsn: Lsn,
        /// Where it ends: what a checkpoint holds.
        end_lsn: Lsn,
        /// When it committed: microseconds since 2000-01-01, UTC.
        committed_at: i64,
    },
    /// The transaction came from another server.
    Origin {
        /// Its commit there.
        commit_lsn: Lsn,
        /// The name of the replication origin.
        name: &'a str,
    },
    /// How the rows of a table look from here on.
    Relation(Relation<'a>),
    /// A type that is not built in.
    Type {
        /// `pg_type.oid`.
        oid: u32,
        /// Its schema; empty for `pg_catalog`.
        schema: &'a [u8],
        /// Its name.
        name: &'a [u8],
    },
    /// A row was inserted.
    Insert {
        /// `pg_class.oid`.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// `pg_class.oid`.
        relation: u32,
        /// What is known of the row before: with replica identity FULL always, else only when its key changed.
        old: Option<OldTuple<'a>>,
        /// The row after.
        new: Tuple<'a>,
    },
    /// A row was deleted.
    Delete {
        /// `pg_class.oid`.
        relation: u32,
        /// What is known of it.
        old: OldTuple<'a>,
    },
    /// Tables were emptied.
    Truncate {
        /// Which.
        relations: Relations<'a>,
        /// CASCADE was said.
        cascade: bool,
        /// RESTART IDENTITY was said.
        restart_identity: bool,
    },
    /// A message of `pg_logical_emit_message`.
    Logical {
        /// Whether it belongs to the transaction.
        transactional: bool,
        /// Where it stands in the log.
        lsn: Lsn,
        /// Whose it is.
        prefix: &'a str,
        /// What it says.
        content: &'a [u8],
    },
}

/// A row before a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OldTuple<'a> {
    /// The columns of the replica identity; the others are NULL in it.
    Key(Tuple<'a>),
    /// All columns (replica identity FULL).
    Whole(Tuple<'a>),
}

/// What a Relation message says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Relation<'a> {
    /// `pg_class.oid`.
    pub id: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// `pg_class.relreplident`.
    pub replica_identity: u8,
    /// Its columns, those that are published.
    pub columns: RelationColumns<'a>,
}

/// A column in a Relation message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RelationColumn<'a> {
    /// Whether it is part of the replica identity (with FULL: always).
    pub is_key: bool,
    /// Its name.
    pub name: &'a str,
    /// `pg_type.oid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub typmod: i32,
}

/// The columns of a Relation message, one after another; known to be whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RelationColumns<'a> {
    left: u16,
    bytes: &'a [u8],
}

/// The tables of a Truncate message, one after another; known to be whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Relations<'a> {
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads one message, which must fill `bytes`.
    ///
    /// # Errors
    ///
    /// The bytes are not a message of protocol version 1.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            b'I' => insert(&mut reader),
            b'U' => update(&mut reader),
            b'D' => delete(&mut reader),
            b'B' => begin(&mut reader),
            b'C' => commit(&mut reader),
            b'O' => origin(&mut reader),
            b'R' => relation(&mut reader),
            b'Y' => type_(&mut reader),
            b'T' => truncate(&mut reader),
            b'M' => logical(&mut reader),
            tag => Err(ParseError::MessageTag(tag)),
        }?;
        reader.end()?;
        Ok(message)
    }
}

fn begin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, ParseError> {
    Ok(Message::Begin { final_lsn: lsn(reader)?, committed_at: reader.i64()?, xid: reader.u32()? })
}

fn commit<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, ParseError> {
    // The flags are not used yet.
    reader.u8()?;
    Ok(Message::Commit { commit_lsn: lsn(reader)?, end_lsn: lsn(reader)?, committed_at: reader.i64()? })
}

fn origin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, ParseError> {
    Ok(Message::Origin { commit_lsn: lsn(reader)?, name: reader.name()? })
}

fn relation<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, ParseError> {
    Ok(Message::Relation(Relation {
        id: reader.u32()?,
        schema: reader.name()?,
        name: reader.name()?,
        replica_identity: reader.u8()?,
        columns: RelationColumns::read(reader)?,
    }))
}

fn type_<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, ParseError> {
    Ok(Message::Type {
        oid: reader.u32()?,
        schema: reader.name_in_any_encoding()?,
        name: reader.name_in_any_encoding()?,
    })
}

fn insert<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, ParseError> {
    let relation = reader.u32()?;
    match reader.u8()? {
        b'N' => Ok(Message::Insert { relation, new: Tuple::read(reader)? }),
        tag => Err(ParseError::TupleTag(tag)),
    }
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, ParseError> {
    let relation = reader.u32()?;
    let (old, tag) = match reader.u8()? {
        b'K' => (Some(OldTuple::Key(Tuple::read(reader)?)), reader.u8()?),
        b'O' => (Some(OldTuple::Whole(Tuple::read(reader)?)), reader.u8()?),
        tag => (None, tag),
    };
    match tag {
        b'N' => Ok(Message::Update { relation, old, new: Tuple::read(reader)? }),
        tag => Err(ParseError::TupleTag(tag)),
    }
}

fn delete<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, ParseError> {
    let relation = reader.u32()?;
    let old = match reader.u8()? {
        b'K' => OldTuple::Key(Tuple::read(reader)?),
        b'O' => OldTuple::Whole(Tuple::read(reader)?),
        tag => return Err(ParseError::TupleTag(tag)),
    };
    Ok(Message::Delete { relation, old })
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, ParseError> {
    let relations = reader.length()?;
    let options = reader.u8()?;
    let bytes = relations.saturating_mul(4);
    Ok(Message::Truncate {
        relations: Relations { bytes: reader.take(bytes)? },
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
    })
}

fn logical<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, ParseError> {
    Ok(Message::Logical {
        transactional: reader.u8()? & 1 != 0,
        lsn: lsn(reader)?,
        prefix: reader.name()?,
        content: reader.counted()?,
    })
}

fn lsn(reader: &mut Reader<'_>) -> Result<Lsn, ParseError> {
    reader.u64().map(Lsn)
}

impl<'a> RelationColumns<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let left = reader.count()?;
        let bytes = reader.left();
        for _ in 0..left {
            relation_column(reader)?;
        }
        let whole = bytes.len() - reader.left().len();
        Ok(Self { left, bytes: bytes.get(..whole).unwrap_or_default() })
    }
}

impl<'a> Iterator for RelationColumns<'a> {
    type Item = RelationColumn<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(self.bytes);
        let column = relation_column(&mut reader).ok()?;
        self.bytes = reader.left();
        Some(column)
    }
}

fn relation_column<'a>(reader: &mut Reader<'a>) -> Result<RelationColumn<'a>, ParseError> {
    Ok(RelationColumn {
        is_key: reader.u8()? & 1 != 0,
        name: reader.name()?,
        type_oid: reader.u32()?,
        typmod: reader.i32()?,
    })
}

impl Iterator for Relations<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (id, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(u32::from_be_bytes(*id))
    }
}

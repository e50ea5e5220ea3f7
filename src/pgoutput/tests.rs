//! Messages as pgoutput writes them, whole, cut short and invented.

use proptest::prelude::*;

use super::{
    KnownColumn, Message, OldTuple, ParseError, PgoutputRow, RelationCache, TupleColumn, TupleIndex,
};
use crate::encode::{Row, Value};
use crate::lsn::Lsn;
use crate::table::{Column, Kind, SourceColumn, TableSpec, TargetTable};

#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// A message with its parts owned; the writing half of the protocol.
#[derive(Clone, Debug)]
enum Owned {
    Begin(u64, i64, u32),
    Commit(u64, u64, i64),
    Origin(u64, String),
    Relation(u32, String, String, u8, Vec<(bool, String, u32, i32)>),
    Type(u32, Vec<u8>, Vec<u8>),
    Insert(u32, Vec<Cell>),
    Update(u32, Option<(bool, Vec<Cell>)>, Vec<Cell>),
    Delete(u32, bool, Vec<Cell>),
    Truncate(Vec<u32>, bool, bool),
    Logical(bool, u64, String, Vec<u8>),
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    out.extend(name.as_bytes());
    out.push(0);
}

fn put_tuple(out: &mut Vec<u8>, cells: &[Cell]) {
    out.extend((cells.len() as i16).to_be_bytes());
    for cell in cells {
        let (tag, value) = match cell {
            Cell::Null => (b'n', None),
            Cell::Unchanged => (b'u', None),
            Cell::Text(value) => (b't', Some(value)),
            Cell::Binary(value) => (b'b', Some(value)),
        };
        out.push(tag);
        if let Some(value) = value {
            out.extend((value.len() as i32).to_be_bytes());
            out.extend(value);
        }
    }
}

const fn old_tag(whole: bool) -> u8 {
    if whole { b'O' } else { b'K' }
}

impl Owned {
    fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Begin(lsn, at, xid) => {
                out.push(b'B');
                out.extend(lsn.to_be_bytes());
                out.extend(at.to_be_bytes());
                out.extend(xid.to_be_bytes());
            }
            Self::Commit(lsn, end, at) => {
                out.extend([b'C', 0]);
                out.extend(lsn.to_be_bytes());
                out.extend(end.to_be_bytes());
                out.extend(at.to_be_bytes());
            }
            Self::Origin(lsn, name) => {
                out.push(b'O');
                out.extend(lsn.to_be_bytes());
                put_name(&mut out, name);
            }
            Self::Relation(id, schema, name, identity, columns) => {
                out.push(b'R');
                out.extend(id.to_be_bytes());
                put_name(&mut out, schema);
                put_name(&mut out, name);
                out.push(*identity);
                out.extend((columns.len() as i16).to_be_bytes());
                for (is_key, name, oid, typmod) in columns {
                    out.push(u8::from(*is_key));
                    put_name(&mut out, name);
                    out.extend(oid.to_be_bytes());
                    out.extend(typmod.to_be_bytes());
                }
            }
            Self::Type(oid, schema, name) => {
                out.push(b'Y');
                out.extend(oid.to_be_bytes());
                for name in [schema, name] {
                    out.extend(name);
                    out.push(0);
                }
            }
            Self::Truncate(relations, cascade, restart) => {
                out.push(b'T');
                out.extend((relations.len() as i32).to_be_bytes());
                out.push(u8::from(*cascade) | u8::from(*restart) << 1);
                relations.iter().for_each(|id| out.extend(id.to_be_bytes()));
            }
            Self::Logical(transactional, lsn, prefix, content) => {
                out.extend([b'M', u8::from(*transactional)]);
                out.extend(lsn.to_be_bytes());
                put_name(&mut out, prefix);
                out.extend((content.len() as i32).to_be_bytes());
                out.extend(content);
            }
            Self::Insert(..) | Self::Update(..) | Self::Delete(..) => self.write_row(&mut out),
        }
        out
    }

    fn write_row(&self, out: &mut Vec<u8>) {
        match self {
            Self::Insert(relation, new) => {
                out.push(b'I');
                out.extend(relation.to_be_bytes());
                out.push(b'N');
                put_tuple(out, new);
            }
            Self::Update(relation, old, new) => {
                out.push(b'U');
                out.extend(relation.to_be_bytes());
                if let Some((whole, old)) = old {
                    out.push(old_tag(*whole));
                    put_tuple(out, old);
                }
                out.push(b'N');
                put_tuple(out, new);
            }
            Self::Delete(relation, whole, old) => {
                out.push(b'D');
                out.extend(relation.to_be_bytes());
                out.push(old_tag(*whole));
                put_tuple(out, old);
            }
            _ => {}
        }
    }
}

fn cells(tuple: &super::Tuple<'_>) -> Vec<Cell> {
    let cells: Vec<Cell> = tuple
        .columns()
        .map(|column| match column {
            TupleColumn::Null => Cell::Null,
            TupleColumn::Unchanged => Cell::Unchanged,
            TupleColumn::Text(value) => Cell::Text(value.to_vec()),
            TupleColumn::Binary(value) => Cell::Binary(value.to_vec()),
        })
        .collect();
    assert_eq!((cells.len(), cells.is_empty()), (tuple.len(), tuple.is_empty()));
    cells
}

fn old_cells(old: &OldTuple<'_>) -> (bool, Vec<Cell>) {
    match old {
        OldTuple::Key(tuple) => (false, cells(tuple)),
        OldTuple::Whole(tuple) => (true, cells(tuple)),
    }
}

fn owned(message: &Message<'_>) -> Owned {
    match message {
        Message::Begin { final_lsn, committed_at, xid } => Owned::Begin(final_lsn.0, *committed_at, *xid),
        Message::Commit { commit_lsn, end_lsn, committed_at } => {
            Owned::Commit(commit_lsn.0, end_lsn.0, *committed_at)
        }
        Message::Origin { commit_lsn, name } => Owned::Origin(commit_lsn.0, (*name).to_owned()),
        Message::Relation(relation) => Owned::Relation(
            relation.id,
            relation.schema.to_owned(),
            relation.name.to_owned(),
            relation.replica_identity,
            relation.columns.map(|it| (it.is_key, it.name.to_owned(), it.type_oid, it.typmod)).collect(),
        ),
        Message::Type { oid, schema, name } => Owned::Type(*oid, schema.to_vec(), name.to_vec()),
        Message::Insert { relation, new } => Owned::Insert(*relation, cells(new)),
        Message::Update { relation, old, new } => {
            Owned::Update(*relation, old.as_ref().map(old_cells), cells(new))
        }
        Message::Delete { relation, old } => {
            let (whole, cells) = old_cells(old);
            Owned::Delete(*relation, whole, cells)
        }
        Message::Truncate { relations, cascade, restart_identity } => {
            Owned::Truncate(relations.collect(), *cascade, *restart_identity)
        }
        Message::Logical { transactional, lsn: Lsn(lsn), prefix, content } => {
            Owned::Logical(*transactional, *lsn, (*prefix).to_owned(), content.to_vec())
        }
    }
}

fn any_cells() -> impl Strategy<Value = Vec<Cell>> {
    let value = || prop::collection::vec(any::<u8>(), 0..20);
    let cell = prop_oneof![
        Just(Cell::Null),
        Just(Cell::Unchanged),
        value().prop_map(Cell::Text),
        value().prop_map(Cell::Binary),
    ];
    prop::collection::vec(cell, 0..8)
}

fn any_message() -> impl Strategy<Value = Owned> {
    let name = || "[a-zé \"]{0,12}";
    let column = (any::<bool>(), name(), any::<u32>(), any::<i32>());
    prop_oneof![
        (any::<u64>(), any::<i64>(), any::<u32>()).prop_map(|(lsn, at, xid)| Owned::Begin(lsn, at, xid)),
        (any::<u64>(), any::<u64>(), any::<i64>()).prop_map(|(lsn, end, at)| Owned::Commit(lsn, end, at)),
        (any::<u64>(), name()).prop_map(|(lsn, name)| Owned::Origin(lsn, name)),
        (any::<u32>(), name(), name(), any::<u8>(), prop::collection::vec(column, 0..6)).prop_map(
            |(id, schema, name, identity, columns)| Owned::Relation(id, schema, name, identity, columns)
        ),
        (any::<u32>(), name(), name()).prop_map(|(oid, schema, name)| Owned::Type(
            oid,
            schema.into_bytes(),
            name.into_bytes()
        )),
        (any::<u32>(), any_cells()).prop_map(|(relation, new)| Owned::Insert(relation, new)),
        (any::<u32>(), prop::option::of((any::<bool>(), any_cells())), any_cells())
            .prop_map(|(relation, old, new)| Owned::Update(relation, old, new)),
        (any::<u32>(), any::<bool>(), any_cells()).prop_map(|(id, whole, old)| Owned::Delete(id, whole, old)),
        (prop::collection::vec(any::<u32>(), 0..5), any::<bool>(), any::<bool>())
            .prop_map(|(relations, cascade, restart)| Owned::Truncate(relations, cascade, restart)),
        (any::<bool>(), any::<u64>(), name(), prop::collection::vec(any::<u8>(), 0..30)).prop_map(
            |(transactional, lsn, prefix, content)| Owned::Logical(transactional, lsn, prefix, content)
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn message_reads_back_as_it_was_written(message in any_message()) {
        let bytes = message.write();
        let read = Message::parse(&bytes).map(|it| owned(&it));
        prop_assert_eq!(format!("{read:?}"), format!("{:?}", Ok::<_, ParseError>(&message)));
        prop_assert_eq!(read.unwrap().write(), bytes);
    }

    #[test]
    fn message_that_is_cut_short_or_goes_on_is_an_error(message in any_message()) {
        let mut bytes = message.write();
        for end in 0..bytes.len() {
            prop_assert!(Message::parse(&bytes[..end]).is_err(), "cut at {}", end);
        }
        bytes.push(0);
        prop_assert!(Message::parse(&bytes).is_err());
    }

    #[test]
    fn parse_returns_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::parse(&bytes);
    }

    #[test]
    fn parse_returns_on_messages_with_a_wrong_byte(
        message in any_message(), place in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = message.write();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(message) = Message::parse(&bytes) {
            // Flags that nobody reads and booleans of other bits may differ.
            let _ = owned(&message).write();
        }
    }

    #[test]
    fn columns_are_found_in_any_order(cells in any_cells()) {
        let bytes = Owned::Insert(1, cells.clone()).write();
        let Ok(Message::Insert { new, .. }) = Message::parse(&bytes) else { panic!("no insert") };
        let mut index = TupleIndex::default();
        index.fill(&new);
        for (column, cell) in cells.iter().enumerate().rev() {
            let expected = match cell {
                Cell::Null => Some(TupleColumn::Null),
                Cell::Unchanged => Some(TupleColumn::Unchanged),
                Cell::Text(text) => Some(TupleColumn::Text(text)),
                Cell::Binary(_) => None,
            };
            prop_assert_eq!(index.column(&new, column), expected);
        }
        prop_assert_eq!(index.column(&new, cells.len()), None);
    }
}

#[test]
fn wrong_marks_are_named() {
    assert_eq!(Message::parse(b"x"), Err(ParseError::MessageTag(b'x')));
    assert_eq!(Message::parse(b"I\0\0\0\x01K\0\0"), Err(ParseError::TupleTag(b'K')));
    assert_eq!(Message::parse(b"I\0\0\0\x01N\0\x01x"), Err(ParseError::ColumnTag(b'x')));
    assert_eq!(Message::parse(b"I\0\0\0\x01N\0\x01t\xFF\xFF\xFF\xFF"), Err(ParseError::NegativeLength(-1)));
    assert_eq!(Message::parse(b"I\0\0\0\x01N\xFF\xFF"), Err(ParseError::NegativeLength(-1)));
    assert_eq!(Message::parse(b"O\0\0\0\0\0\0\0\x01\xFF\0"), Err(ParseError::NameNotUtf8));
    assert_eq!(Message::parse(b"Y\0\0\0\x01abc"), Err(ParseError::UnterminatedName));
}

fn spec(columns: &[(&str, i16, Kind)]) -> TableSpec {
    let column = |&(name, attnum, kind): &(&str, i16, Kind)| Column {
        source: SourceColumn { attnum, name: name.to_owned(), type_oid: 0, typmod: -1 },
        name: name.to_owned(),
        kind,
        target_type: String::new(),
    };
    TableSpec {
        relid: 7,
        source_name: "public.t".to_owned(),
        target: TargetTable { database: "d".to_owned(), table: "t".to_owned() },
        columns: columns.iter().map(column).collect(),
        key_len: 1,
    }
}

fn cache(columns: &[&str]) -> RelationCache {
    let mut cache = RelationCache::default();
    cache.update(&relation_of(&relation_bytes(columns)));
    cache
}

fn relation_bytes(columns: &[&str]) -> Vec<u8> {
    let columns = columns.iter().map(|name| (*name == "id", (*name).to_owned(), 25, -1)).collect();
    Owned::Relation(7, "public".to_owned(), "t".to_owned(), b'd', columns).write()
}

fn relation_of(bytes: &[u8]) -> super::Relation<'_> {
    match Message::parse(bytes) {
        Ok(Message::Relation(relation)) => relation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn columns_of_the_table_are_found_by_name() {
    let mut cache = cache(&["a", "not_mirrored", "id"]);
    let known = cache.relation(7).unwrap();
    let id = KnownColumn { is_key: true, name: "id".to_owned(), type_oid: 25, typmod: -1 };
    assert_eq!(known.columns.last(), Some(&id));
    let spec = spec(&[("id", 3, Kind::Int), ("a", 1, Kind::Text), ("dbmazz_lsn", 0, Kind::Int)]);
    let map = cache.bind(7, &spec).unwrap();

    let cells = [Cell::Text(b"x".to_vec()), Cell::Null, Cell::Text(b"42".to_vec())];
    let bytes = Owned::Insert(7, cells.to_vec()).write();
    let Ok(Message::Insert { new, .. }) = Message::parse(&bytes) else { panic!("no insert") };
    let mut index = TupleIndex::default();
    index.fill(&new);
    let row = PgoutputRow::new(map, new, &index);
    assert_eq!((row.value(0), row.value(1)), (Value::Int(42), Value::Text(b"x")));
    assert_eq!((row.value(2), row.value(3)), (Value::Malformed, Value::Malformed));
}

#[test]
fn column_that_is_not_published_is_named() {
    let error = cache(&["id"]).bind(7, &spec(&[("id", 1, Kind::Int), ("b", 2, Kind::Int)])).unwrap_err();
    assert_eq!(error.to_string(), "column \"b\" of table \"public.t\" is not published");
}

#[test]
fn relation_is_bound_until_it_changes() {
    let mut cache = cache(&["id"]);
    cache.bind(7, &spec(&[("id", 1, Kind::Int)])).unwrap();
    assert!(!cache.update(&relation_of(&relation_bytes(&["id"]))));
    assert!(cache.map(7).is_some());
    assert!(cache.update(&relation_of(&relation_bytes(&["id", "b"]))));
    assert!(cache.map(7).is_none());
}

#[test]
fn unchanged_value_comes_from_the_whole_old_row() {
    let mut cache = cache(&["id", "a"]);
    let map = cache.bind(7, &spec(&[("id", 1, Kind::Int), ("a", 2, Kind::Text)])).unwrap();
    let old = vec![Cell::Text(b"1".to_vec()), Cell::Text(b"long".to_vec())];
    let bytes = Owned::Update(7, Some((true, old)), vec![Cell::Text(b"2".to_vec()), Cell::Unchanged]).write();
    let Ok(Message::Update { old: Some(OldTuple::Whole(old)), new, .. }) = Message::parse(&bytes) else {
        panic!("no update")
    };
    let (mut old_index, mut new_index) = (TupleIndex::default(), TupleIndex::default());
    old_index.fill(&old);
    new_index.fill(&new);
    let row = PgoutputRow::new(map, new, &new_index);
    assert_eq!((row.value(0), row.value(1)), (Value::Int(2), Value::Unchanged));
    let row = row.or_from(old, &old_index);
    assert_eq!((row.value(0), row.value(1)), (Value::Int(2), Value::Text(b"long")));
}

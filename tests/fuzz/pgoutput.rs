//! Fuzz target: any bytes whatever as a message of pgoutput.
//!
//! Beyond not panicking: a message fills its bytes, so one that is cut short or has a byte too many is an error, never a
//! smaller message; and what a message says can be walked to its end.

#![no_main]

use dbmazz::pgoutput::{Message, OldTuple, RelationCache, Tuple, TupleColumn, TupleIndex};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(message) = Message::parse(data) else { return };
    walk(&message);
    // Where it is cut is part of the input: trying every place would be slow for long messages.
    let cut = data.iter().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    for end in [0, 1, data.len() / 2, data.len() - 1, cut % data.len()] {
        if let Some(part) = data.get(..end) {
            assert!(Message::parse(part).is_err(), "cut at {end} it is still a message: {message:?}");
        }
    }
    let mut longer = data.to_vec();
    longer.push(0);
    assert!(Message::parse(&longer).is_err(), "with a byte more it is still a message: {message:?}");
});

fn walk(message: &Message<'_>) {
    match message {
        Message::Relation(relation) => {
            let mut cache = RelationCache::default();
            assert!(cache.update(relation), "it is new");
            assert!(!cache.update(relation), "it is the same");
            let known = cache.relation(relation.id).map(|known| known.columns.len());
            assert_eq!(known, Some(relation.columns.count()));
        }
        Message::Insert { new, .. } => walk_tuple(new),
        Message::Update { old, new, .. } => {
            old.iter().for_each(walk_old);
            walk_tuple(new);
        }
        Message::Delete { old, .. } => walk_old(old),
        Message::Truncate { relations, .. } => {
            std::hint::black_box(relations.count());
        }
        Message::Begin { .. }
        | Message::Commit { .. }
        | Message::Origin { .. }
        | Message::Type { .. }
        | Message::Logical { .. } => {}
    }
}

fn walk_old(old: &OldTuple<'_>) {
    match old {
        OldTuple::Key(tuple) | OldTuple::Whole(tuple) => walk_tuple(tuple),
    }
}

fn walk_tuple(tuple: &Tuple<'_>) {
    let mut index = TupleIndex::default();
    index.fill(tuple);
    let mut count = 0;
    for (place, column) in tuple.columns().enumerate() {
        // The mirror asks for text; a value in binary form is none that it could read.
        let expected = Some(column).filter(|column| !matches!(column, TupleColumn::Binary(_)));
        assert_eq!(index.column(tuple, place), expected, "column {place}");
        count += 1;
    }
    assert_eq!(index.column(tuple, count), None, "there is no column {count}");
}

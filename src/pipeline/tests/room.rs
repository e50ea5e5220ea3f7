//! How large batches become, and the memory of a mirror.

use super::*;

#[test]
fn batch_is_sealed_when_it_is_full() {
    let by_rows = Limits { batch_max_rows: 10, ..limits() };
    let by_bytes = Limits { batch_max_bytes: 400, batch_ample_bytes: 400, ..limits() };
    for limits in [by_rows, by_bytes] {
        let mut bench = Bench::new(limits);
        let sealed = (0..20).position(|id| {
            bench.upsert(whole(id, 1));
            bench.load().is_some()
        });
        assert!(sealed.is_some_and(|rows| (5..10).contains(&rows)), "{sealed:?}");
    }
}

#[test]
fn target_that_waits_gets_less_than_one_that_is_busy() {
    let mut bench = Bench::new(Limits { batch_max_bytes: 800, batch_ample_bytes: 200, ..limits() });
    let fill = |bench: &mut Bench| (0..20).for_each(|id| bench.upsert(whole(id, 1)));
    fill(&mut bench);
    let first = bench.load().unwrap();
    assert!((200..400).contains(&first.body_bytes()), "{}", first.body_bytes());
    fill(&mut bench);
    assert!(bench.pipeline.finished(first.label.number).is_some());
    let second = bench.load().unwrap();
    assert!(second.body_bytes() >= 800, "{}", second.body_bytes());
}

#[test]
fn row_that_would_make_the_load_too_long_begins_the_next_one() {
    let spec_names = ["id".to_owned(), "text".to_owned()];
    let mut spec = TableSpec {
        relid: 1,
        source_name: "public.t".to_owned(),
        target: target(),
        columns: Vec::new(),
        key_len: 1,
    };
    for (name, kind) in spec_names.iter().zip([Kind::Int, Kind::Json]) {
        let source = SourceColumn { attnum: 1, name: name.clone(), type_oid: 1, typmod: -1 };
        spec.columns.push(Column { source, name: name.clone(), kind, target_type: "JSON".to_owned() });
    }
    struct Wide<'a>(i64, &'a [u8]);
    impl Row for Wide<'_> {
        fn value(&self, column: usize) -> Value<'_> {
            if column == 0 { Value::Int(self.0) } else { Value::Json(self.1) }
        }
    }
    let document = format!("\"{}\"", "x".repeat(16_000_000));
    let encoder = Arc::new(RowEncoder::new(&spec, &spec_names, OutOfRange::Error));
    let mut bench =
        Bench::new(Limits { batch_max_bytes: 92_000_000, batch_ample_bytes: 92_000_000, ..limits() });
    bench.table = bench.pipeline.add_table(2, Arc::clone(&encoder), shapes()).unwrap();
    let shape = Arc::new(LoadShape { target: target(), columns: String::new(), partial: false });
    let mut copy = CopyBatch::new(encoder, shape, u64::MAX, 92_000_000, Vec::new());
    for id in 0..6 {
        let row = Wide(id, document.as_bytes());
        bench.pipeline.upsert(bench.table, Change::Insert, &row).unwrap();
        copy.push(&row).unwrap();
    }
    assert!(copy.is_full());
    assert_eq!(bench.load().map(|load| load.rows), Some(5));
    assert_eq!(copy.seal(|| bench.labels.take()).map(|load| load.rows), Some(5));
    assert_eq!(copy.seal(|| bench.labels.take()).map(|load| load.rows), Some(1));
    assert!(copy.seal(|| bench.labels.take()).is_none());
    assert_eq!(bench.pipeline.queued_bytes() / 1_000_000, 96);
}

#[test]
fn buffer_of_a_finished_load_is_kept_unless_somebody_has_it() {
    for keep in [None, Some(())] {
        let mut bench = Bench::new(limits());
        bench.upsert(whole(1, 1));
        bench.pipeline.seal_all();
        let load = bench.load().unwrap();
        let number = load.label.number;
        let kept = keep.map(|()| load);
        bench.pipeline.finished(number).unwrap();
        let spare = bench.pipeline.shared.spare.buffers.take();
        assert_eq!((spare.is_empty(), spare.capacity() > 0), (true, kept.is_none()));
    }
}

#[test]
fn memory_is_free_again_when_loads_are_finished() {
    let mut bench = Bench::new(Limits { memory_limit: 2000, ..limits() });
    for id in 0..100 {
        if !bench.pipeline.has_room() {
            break;
        }
        bench.upsert(whole(id, 1));
    }
    assert!(!bench.pipeline.has_room());
    assert!((2000..2100).contains(&bench.pipeline.queued_bytes()));
    bench.bodies();
    assert_eq!((bench.pipeline.queued_bytes(), bench.pipeline.is_idle()), (0, true));
}

#[test]
fn room_is_ample_when_half_of_the_memory_is_free() {
    let mut bench = Bench::new(Limits { memory_limit: 2000, ..limits() });
    for id in 0..100 {
        if !bench.pipeline.has_room() {
            break;
        }
        // A small load at first, then one that fills the memory.
        bench.upsert(whole(id, 1));
        if id == 0 {
            bench.pipeline.seal_all();
        }
    }
    bench.pipeline.seal_all();
    let small = bench.load().unwrap().label.number;
    bench.pipeline.finished(small);
    assert!(bench.pipeline.has_room() && !bench.pipeline.has_ample_room());
    let large = bench.load().unwrap().label.number;
    bench.pipeline.finished(large);
    assert!(bench.pipeline.has_ample_room());
}

//! What the engine costs per row, on one core: `cargo bench --bench engine`.
//!
//! Every figure is rows per second, by the wall clock, so neighbours on the machine count. (`schedstat` would leave them
//! out, but it moves only once per tick: too coarse for these.) The rows are like those of an ordinary table; keys are
//! distinct unless said otherwise, and buffers are used again from batch to batch, as in the worker.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dbmazz::encode::{ColumnSet, OutOfRange, Row, RowEncoder, Value};
use dbmazz::lsn::Lsn;
use dbmazz::pgoutput::{Message, PgoutputRow, RelationCache, TupleIndex};
use dbmazz::pipeline::{Change, FlushInterval, LabelSequence, Limits, Pipeline, TableIndex};
use dbmazz::sink::{Compression, CountingSink, Counts, Load, LoadShape, Sink, Watch};
use dbmazz::table::{Column, Kind, SourceColumn, TableSpec, TargetTable};

const ROWS: usize = 50_000;

fn spec(columns: &[(&str, Kind)]) -> TableSpec {
    let column = |(number, &(name, kind)): (usize, &(&str, Kind))| Column {
        source: SourceColumn { attnum: number as i16 + 1, name: name.to_owned(), type_oid: 0, typmod: -1 },
        name: name.to_owned(),
        kind,
        target_type: "STRING".to_owned(),
    };
    TableSpec {
        relid: 1,
        source_name: "public.t".to_owned(),
        target: TargetTable { database: "d".to_owned(), table: "t".to_owned() },
        columns: columns.iter().enumerate().map(column).collect(),
        key_len: 1,
    }
}

fn encoder(spec: &TableSpec) -> Arc<RowEncoder> {
    let names: Vec<String> = spec.columns.iter().map(|column| column.name.clone()).collect();
    Arc::new(RowEncoder::new(spec, &names, OutOfRange::Error))
}

struct Engine {
    pipeline: Pipeline,
    table: TableIndex,
    labels: LabelSequence,
}

impl Engine {
    fn new(spec: &TableSpec) -> Self {
        let limits = Limits {
            batch_max_rows: usize::MAX,
            batch_max_bytes: usize::MAX,
            batch_ample_bytes: usize::MAX,
            memory_limit: 256 << 20,
            flush_interval: FlushInterval::Fixed(Duration::from_secs(1)),
        };
        let mut pipeline = Pipeline::new(limits, Instant::now());
        let target = spec.target.clone();
        let shape = Arc::new(LoadShape { target, columns: String::new(), partial: false });
        let shape_of = Box::new(move |_: &ColumnSet| Ok(Arc::clone(&shape)));
        let table = pipeline.add_table(spec.relid, encoder(spec), shape_of).expect("the table is new");
        let mut labels = LabelSequence::new("bench".into(), 1);
        labels.extend(u64::MAX);
        Self { pipeline, table, labels }
    }

    /// Commits, seals and hands out what came in, as one load.
    fn load(&mut self, end: Lsn) -> Load {
        self.pipeline.commit(end);
        self.pipeline.seal_all();
        self.pipeline.next_load(&mut self.labels).expect("there are rows")
    }

    /// Commits, seals and finishes what came in; the length of the body.
    fn finish(&mut self, end: Lsn) -> usize {
        self.pipeline.commit(end);
        self.pipeline.seal_all();
        let mut bytes = 0;
        while let Some(load) = self.pipeline.next_load(&mut self.labels) {
            bytes += load.body_bytes();
            let number = load.label.number;
            drop(load);
            self.pipeline.finished(number).expect("the load is under way");
        }
        bytes
    }
}

const NARROW: &[(&str, Kind)] =
    &[("id", Kind::Int), ("a", Kind::Int), ("b", Kind::Text), ("ts", Kind::Timestamp)];

struct Narrow {
    id: i64,
    text: [u8; 20],
}

impl Narrow {
    fn new(id: usize) -> Self {
        Self { id: id as i64, text: *b"twenty characters it" }
    }
}

impl Row for Narrow {
    fn value(&self, column: usize) -> Value<'_> {
        match column {
            0 => Value::Int(self.id),
            1 => Value::Int(self.id & 0xFFFF),
            2 => Value::Text(&self.text),
            _ => Value::Timestamp(845_000_000_000_000 + self.id * 1_000_003),
        }
    }
}

fn narrow(criterion: &mut Criterion) {
    let rows: Vec<Narrow> = (0..ROWS).map(Narrow::new).collect();
    let spec = spec(NARROW);
    let mut group = criterion.benchmark_group("narrow");
    group.throughput(Throughput::Elements(ROWS as u64));

    let encoder = encoder(&spec);
    let mut out = Vec::new();
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            for row in &rows {
                encoder.encode_row(row, &ColumnSet::ALL, &mut out).expect("the row is valid");
            }
            black_box(out.len())
        });
    });

    let mut engine = Engine::new(&spec);
    group.bench_function("encode, compact, seal", |bencher| {
        bencher.iter(|| {
            for row in &rows {
                engine.pipeline.upsert(engine.table, Change::Insert, row).expect("the row is valid");
            }
            engine.finish(Lsn(1))
        });
    });

    group.bench_function("encode, compact to a tenth, seal", |bencher| {
        bencher.iter(|| {
            for row in (0..10).flat_map(|_| &rows[..ROWS / 10]) {
                engine.pipeline.upsert(engine.table, Change::Update, row).expect("the row is valid");
            }
            engine.finish(Lsn(1))
        });
    });

    group.bench_function("delete, compact, seal", |bencher| {
        bencher.iter(|| {
            for row in &rows {
                engine.pipeline.delete(engine.table, row).expect("the row is valid");
            }
            engine.finish(Lsn(1))
        });
    });
    group.finish();
}

struct Single<'a>(Value<'a>);

impl Row for Single<'_> {
    fn value(&self, column: usize) -> Value<'_> {
        if column == 0 { Value::Int(1) } else { self.0 }
    }
}

fn kinds(criterion: &mut Criterion) {
    let stored = [0x8100_u16, 1234, 5678].map(u16::to_ne_bytes).concat();
    let document = br#"{"id": 1, "name": "x", "tags": ["a", "b"], "nested": {"k": null}}"#;
    let long_text = "plain ascii, ".repeat(80);
    let values = [
        ("null", Value::Null),
        ("bool", Value::Bool(true)),
        ("int", Value::Int(123_456_789)),
        ("float4", Value::Float4(0.1)),
        ("float8", Value::Float8(1234.5678)),
        ("numeric", Value::Numeric(&stored)),
        ("numeric as text", Value::NumericText(b"1234.5678")),
        ("date", Value::Date(9820)),
        ("time", Value::Time(54_245_123_456)),
        ("timestamp", Value::Timestamp(845_000_000_123_456)),
        ("uuid", Value::Uuid([7; 16])),
        ("bytea of 32", Value::Bytes(&[7; 32])),
        ("bytea of 32 as digits", Value::HexBytes(&[b'7'; 64])),
        ("json of 66", Value::Json(document)),
        ("text of 20", Value::Text(b"twenty characters it")),
        ("text of 20 with quotes", Value::Text(b"twenty \"haracters\" i")),
        ("text of 20 not ascii", Value::Text("zwanzig Zeichen für".as_bytes())),
        ("text of 1040", Value::Text(long_text.as_bytes())),
    ];
    let mut group = criterion.benchmark_group("kind");
    group.throughput(Throughput::Elements(1000));
    // The kinds are for text; the values say for themselves what they are.
    let encoder = encoder(&spec(&[("id", Kind::Int), ("c", Kind::Text)]));
    let mut out = Vec::new();
    for (name, value) in values {
        let row = Single(value);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                for _ in 0..1000 {
                    encoder.encode_row(black_box(&row), &ColumnSet::ALL, &mut out).expect("the row is valid");
                }
                black_box(out.len())
            });
        });
    }
    group.finish();
}

/// A hundred columns of six types.
struct Wide(i64);

const WIDE: usize = 100;

impl Row for Wide {
    fn value(&self, column: usize) -> Value<'_> {
        match (column, column % 6) {
            (0, _) => Value::Int(self.0),
            (_, 0) => Value::Int(self.0 & 0xFFFF),
            (_, 1) => Value::Text(b"twenty characters it"),
            (_, 2) => Value::NumericText(b"1234.56"),
            (_, 3) => Value::Timestamp(845_000_000_000_000 + self.0),
            (_, 4) => Value::Float8(self.0 as f64 / 7.0),
            _ => Value::Bool(self.0 & 1 == 0),
        }
    }
}

fn wide(criterion: &mut Criterion) {
    const ROWS: usize = 5_000;
    let kinds = [Kind::Int, Kind::Text, Kind::Numeric, Kind::Timestamp, Kind::Float8, Kind::Bool];
    let names: Vec<String> = (0..WIDE).map(|column| format!("c{column}")).collect();
    let columns: Vec<_> = names.iter().enumerate().map(|(at, name)| (name.as_str(), kinds[at % 6])).collect();
    let mut engine = Engine::new(&spec(&columns));
    let mut group = criterion.benchmark_group("100 columns");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("encode, compact, seal", |bencher| {
        bencher.iter(|| {
            for id in 0..ROWS {
                engine
                    .pipeline
                    .upsert(engine.table, Change::Insert, &Wide(id as i64))
                    .expect("the row is valid");
            }
            engine.finish(Lsn(1))
        });
    });
    group.finish();
}

struct NoWatch;

impl Watch for NoWatch {
    fn stopped(&self) -> bool {
        false
    }

    fn retrying(&self, _: &str) {}
}

/// A sealed load as a load thread packs it: the bytes are those before compression.
fn compression(criterion: &mut Criterion) {
    let mut engine = Engine::new(&spec(NARROW));
    for id in 0..ROWS {
        engine.pipeline.upsert(engine.table, Change::Insert, &Narrow::new(id)).expect("the row is valid");
    }
    let load = engine.load(Lsn(1));
    let mut group = criterion.benchmark_group("pack");
    group.throughput(Throughput::Bytes(load.body_bytes() as u64));
    for (name, compression) in [("LZ4", Compression::Lz4Frame), ("as it is", Compression::None)] {
        let mut sink = CountingSink::new(Arc::new(Counts::default()), compression);
        group.bench_function(name, |bencher| {
            bencher.iter(|| sink.load(black_box(&load), &NoWatch).expect("a counting sink takes all"));
        });
    }
    group.finish();
}

/// Inserts as pgoutput writes them: six columns, about 110 bytes.
fn inserts() -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let mut bytes = Vec::new();
    let mut messages = Vec::new();
    for id in 0..ROWS {
        let start = bytes.len();
        bytes.extend_from_slice(b"I\0\0\0\x01N\0\x06");
        let values = [
            id.to_string(),
            (id & 0xFFFF).to_string(),
            "twenty characters it".to_owned(),
            "2026-11-20 15:04:05.123456+00".to_owned(),
            "1234.50".to_owned(),
            "t".to_owned(),
        ];
        for value in values {
            bytes.push(b't');
            bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        messages.push(start..bytes.len());
    }
    (bytes, messages)
}

const SIX: &[(&str, Kind)] = &[
    ("id", Kind::Int),
    ("a", Kind::Int),
    ("b", Kind::Text),
    ("ts", Kind::Timestamp),
    ("n", Kind::Numeric),
    ("ok", Kind::Bool),
];

fn relation() -> Vec<u8> {
    let mut bytes = b"R\0\0\0\x01public\0t\0d\0\x06".to_vec();
    for (name, _) in SIX {
        bytes.push(0);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 0, 25, 0xFF, 0xFF, 0xFF, 0xFF]);
    }
    bytes
}

fn pgoutput(criterion: &mut Criterion) {
    let (bytes, messages) = inserts();
    let spec = spec(SIX);
    let mut cache = RelationCache::default();
    let relation = relation();
    let Ok(Message::Relation(message)) = Message::parse(&relation) else { panic!("no relation") };
    cache.update(&message);
    cache.bind(1, &spec).expect("the columns are published");

    let mut group = criterion.benchmark_group("pgoutput");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            for message in &messages {
                black_box(Message::parse(&bytes[message.clone()]).expect("the message is whole"));
            }
        });
    });

    let mut engine = Engine::new(&spec);
    let mut index = TupleIndex::default();
    group.bench_function("parse, encode, compact, seal", |bencher| {
        bencher.iter(|| {
            for message in &messages {
                let Ok(Message::Insert { relation, new }) = Message::parse(&bytes[message.clone()]) else {
                    panic!("no insert")
                };
                let map = cache.map(relation).expect("the relation is bound");
                index.fill(&new);
                let row = PgoutputRow::new(map, new, &index);
                engine.pipeline.upsert(engine.table, Change::Insert, &row).expect("the row is valid");
            }
            engine.finish(Lsn(1))
        });
    });
    group.finish();
}

/// What a stream has beside inserts: a transaction of one update and one delete.
fn small_transactions(criterion: &mut Criterion) {
    let begin = [b"B".as_slice(), &[0; 20]].concat();
    let commit = [b"C".as_slice(), &[0; 25]].concat();
    let (bytes, inserts) = inserts();
    let tuple = &bytes[inserts[7].clone()][6..];
    let update = [b"U\0\0\0\x01N".as_slice(), tuple].concat();
    let delete = b"D\0\0\0\x01K\0\x06t\0\0\0\x017nnnnn".to_vec();
    let mut group = criterion.benchmark_group("pgoutput");
    let messages = [begin, update, delete, commit];
    group.throughput(Throughput::Elements(messages.len() as u64));
    group.bench_function("parse a transaction of an update and a delete", |bencher| {
        bencher.iter(|| {
            for message in &messages {
                black_box(Message::parse(black_box(message)).expect("the message is whole"));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, narrow, kinds, wide, compression, pgoutput, small_transactions);
criterion_main!(benches);

//! The options of a mirror: what they are called, what they may be, and what they are when nobody says.
//!
//! An [`Options`] starts from the defaults of the server's settings and takes what the mirror's own `options` (jsonb)
//! say on top. Nothing unrecognized and nothing out of range passes: every mistake is an [`OptionError`] that says
//! what is allowed. Options whose feature is not there are recognized and refused when they ask for it.
//!
//! Used by the SQL functions, which refuse a bad option before anything is created, and by the workers.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

mod choice;
mod units;

pub use choice::{Choice, NewTables, OnDelete, OnReject, OnStatement, SlotGuardAction};

use crate::encode::OutOfRange;
use crate::pipeline::FlushInterval;
pub use units::{parse_duration, parse_size, show_duration, show_size};

/// Every option there is, in the order of the documentation.
pub const NAMES: [&str; 20] = [
    "flush_interval",
    "batch_max_rows",
    "batch_max_size",
    "memory_limit",
    "load_threads",
    "snapshot_workers",
    "snapshot_chunk_size",
    "snapshot_max_rate",
    "on_delete",
    "on_truncate",
    "on_ddl",
    "on_out_of_range",
    "on_reject",
    "new_tables",
    "metadata_columns",
    "table_map",
    "column_map",
    "slot_guard_size",
    "slot_guard_action",
    "from_export",
];

/// Milliseconds of `flush_interval`.
pub const FLUSH_INTERVAL_MS: RangeInclusive<u64> = 1..=3_600_000;
/// Rows of a load.
pub const BATCH_MAX_ROWS: RangeInclusive<u64> = 1..=10_000_000;
/// Bytes of a load before compression. StarRocks takes at most 100 MB of JSON; 90 MB leaves room for one row more.
pub const BATCH_MAX_SIZE: RangeInclusive<u64> = 64 << 10..=90 << 20;
/// Bytes that are encoded or queued.
pub const MEMORY_LIMIT: RangeInclusive<u64> = 1 << 20..=1 << 40;
/// Threads that send loads.
pub const LOAD_THREADS: RangeInclusive<u64> = 1..=64;
/// Processes that copy chunks.
pub const SNAPSHOT_WORKERS: RangeInclusive<u64> = 1..=64;
/// Bytes of a chunk.
pub const SNAPSHOT_CHUNK_SIZE: RangeInclusive<u64> = 64 << 10..=1 << 40;
/// Bytes per second, and bytes of retained log; zero switches either off.
pub const ANY_SIZE: RangeInclusive<u64> = 0..=1 << 50;

/// All options of one mirror.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Longest time that a committed change waits for its load to start.
    pub flush_interval: FlushInterval,
    /// A load closes at this many rows …
    pub batch_max_rows: u64,
    /// … or this many bytes before compression.
    pub batch_max_bytes: u64,
    /// Bytes encoded or queued and not yet acknowledged.
    pub memory_limit: u64,
    /// Threads that send loads.
    pub load_threads: usize,
    /// Processes that copy chunks at the same time.
    pub snapshot_workers: usize,
    /// Heap and TOAST bytes of a chunk.
    pub snapshot_chunk_bytes: u64,
    /// Bytes per second that the copy reads at most; zero for no limit.
    pub snapshot_max_rate: u64,
    /// What a DELETE does.
    pub on_delete: OnDelete,
    /// What becomes of a TRUNCATE.
    pub on_truncate: OnStatement,
    /// What becomes of a changed definition.
    pub on_ddl: OnStatement,
    /// What becomes of a value that the target cannot hold.
    pub on_out_of_range: OutOfRange,
    /// What becomes of a table with a refused row.
    pub on_reject: OnReject,
    /// What becomes of tables that are created later.
    pub new_tables: NewTables,
    /// Whether the target tables get `dbmazz_lsn` and `dbmazz_committed_at`.
    pub metadata_columns: bool,
    /// Target table by `schema.table`; without an entry the source's own name.
    pub table_map: BTreeMap<String, String>,
    /// Target type by `schema.table.column`.
    pub column_map: BTreeMap<String, String>,
    /// Bytes of retained log at which the guard acts; zero for never.
    pub slot_guard_bytes: u64,
    /// What the guard does.
    pub slot_guard_action: SlotGuardAction,
    /// The export whose position the mirror starts from.
    pub from_export: Option<i64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flush_interval: FlushInterval::Adaptive(Duration::from_secs(1)),
            batch_max_rows: 100_000,
            batch_max_bytes: 64 << 20,
            memory_limit: 128 << 20,
            load_threads: 4,
            snapshot_workers: 4,
            snapshot_chunk_bytes: 128 << 20,
            snapshot_max_rate: 0,
            on_delete: OnDelete::default(),
            on_truncate: OnStatement::default(),
            on_ddl: OnStatement::default(),
            on_out_of_range: OutOfRange::default(),
            on_reject: OnReject::default(),
            new_tables: NewTables::default(),
            metadata_columns: false,
            table_map: BTreeMap::new(),
            column_map: BTreeMap::new(),
            slot_guard_bytes: 0,
            slot_guard_action: SlotGuardAction::default(),
            from_export: None,
        }
    }
}

impl Options {
    /// These options with those of a mirror on top.
    ///
    /// # Errors
    ///
    /// The first option that is unrecognized, has a value that is not allowed, or asks for a feature that is not there.
    pub fn merged(mut self, set: &Value) -> Result<Self, OptionError> {
        let set = set.as_object().ok_or(OptionError::NotAnObject)?;
        for (name, value) in set {
            self.set(name, value)?;
        }
        Ok(self)
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), OptionError> {
        match name {
            "flush_interval" => self.flush_interval = FlushInterval::Fixed(interval(name, value)?),
            "batch_max_rows" => self.batch_max_rows = count(name, value, &BATCH_MAX_ROWS)?,
            "batch_max_size" => self.batch_max_bytes = size(name, value, &BATCH_MAX_SIZE)?,
            "memory_limit" => self.memory_limit = size(name, value, &MEMORY_LIMIT)?,
            "load_threads" => self.load_threads = small_count(name, value, &LOAD_THREADS)?,
            "snapshot_workers" => self.snapshot_workers = small_count(name, value, &SNAPSHOT_WORKERS)?,
            "snapshot_chunk_size" => self.snapshot_chunk_bytes = size(name, value, &SNAPSHOT_CHUNK_SIZE)?,
            "snapshot_max_rate" => self.snapshot_max_rate = size(name, value, &ANY_SIZE)?,
            "on_delete" => self.on_delete = choice(name, value)?,
            "on_truncate" => self.on_truncate = choice(name, value)?,
            "on_ddl" => self.on_ddl = choice(name, value)?,
            "on_out_of_range" => self.on_out_of_range = choice(name, value)?,
            "on_reject" => self.on_reject = choice(name, value)?,
            "new_tables" => self.new_tables = choice(name, value)?,
            "metadata_columns" => self.metadata_columns = boolean(name, value)?,
            "table_map" => self.table_map = map(name, value, &TARGET_TABLE)?,
            "column_map" => self.column_map = map(name, value, &TARGET_TYPE)?,
            "slot_guard_size" => self.slot_guard_bytes = size(name, value, &ANY_SIZE)?,
            "slot_guard_action" => self.slot_guard_action = choice(name, value)?,
            "from_export" => self.from_export = Some(export(name, value)?),
            _ => return Err(OptionError::Unrecognized { name: name.to_owned(), valid: &NAMES }),
        }
        Ok(())
    }
}

/// Why the options of a mirror cannot be taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OptionError {
    /// The options are no JSON object.
    NotAnObject,
    /// There is no such option.
    Unrecognized {
        /// What was written.
        name: String,
        /// The options that there are.
        valid: &'static [&'static str],
    },
    /// The option cannot have this value.
    BadValue {
        /// The option.
        name: String,
        /// What was written.
        value: String,
        /// What may be written: a full sentence.
        allowed: String,
    },
}

impl OptionError {
    /// What may be written instead, as a full sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotAnObject => Some("Write the options as '{\"option\": \"value\"}'.".to_owned()),
            Self::Unrecognized { valid, .. } => Some(format!("Valid options are: {}.", valid.join(", "))),
            Self::BadValue { allowed, .. } => Some(allowed.clone()),
        }
    }
}

impl Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject => f.write_str("options must be a JSON object"),
            Self::Unrecognized { name, .. } => write!(f, "unrecognized option \"{name}\""),
            Self::BadValue { name, value, .. } => write!(f, "invalid value for option \"{name}\": {value}"),
        }
    }
}

impl std::error::Error for OptionError {}

pub(crate) fn refused(name: &str, value: &Value, allowed: String) -> OptionError {
    OptionError::BadValue { name: name.to_owned(), value: value.to_string(), allowed }
}

fn interval(name: &str, value: &Value) -> Result<Duration, OptionError> {
    let time = value.as_str().and_then(parse_duration);
    let is_allowed =
        |time: &Duration| u64::try_from(time.as_millis()).is_ok_and(|ms| FLUSH_INTERVAL_MS.contains(&ms));
    time.filter(is_allowed).ok_or_else(|| {
        let [min, max] =
            [FLUSH_INTERVAL_MS.start(), FLUSH_INTERVAL_MS.end()].map(|ms| Duration::from_millis(*ms));
        let (min, max) = (show_duration(min), show_duration(max));
        refused(name, value, format!("Write a time with its unit, such as \"500ms\", from {min} to {max}."))
    })
}

pub(crate) fn size(name: &str, value: &Value, range: &RangeInclusive<u64>) -> Result<u64, OptionError> {
    let bytes = match value {
        Value::String(text) => parse_size(text),
        Value::Number(number) if number.as_u64() == Some(0) => Some(0),
        _ => None,
    };
    bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let (min, max) = (show_size(*range.start()), show_size(*range.end()));
        refused(name, value, format!("Write a size with its unit, such as \"64MB\", from {min} to {max}."))
    })
}

fn count(name: &str, value: &Value, range: &RangeInclusive<u64>) -> Result<u64, OptionError> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_u64(),
    };
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        refused(name, value, format!("Write a whole number from {} to {}.", range.start(), range.end()))
    })
}

pub(crate) fn small_count(
    name: &str,
    value: &Value,
    range: &RangeInclusive<u64>,
) -> Result<usize, OptionError> {
    let number = count(name, value, range)?;
    usize::try_from(number).map_err(|_| refused(name, value, "Write a smaller number.".to_owned()))
}

pub(crate) fn choice<C: Choice>(name: &str, value: &Value) -> Result<C, OptionError> {
    let found = value.as_str().and_then(|text| C::WORDS.iter().find(|(word, _)| *word == text));
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let words: Vec<_> = C::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        refused(name, value, format!("Valid values are: {}.", words.join(", ")))
    })
}

pub(crate) fn boolean(name: &str, value: &Value) -> Result<bool, OptionError> {
    let written = match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) if text == "true" || text == "on" => Some(true),
        Value::String(text) if text == "false" || text == "off" => Some(false),
        _ => None,
    };
    written.ok_or_else(|| refused(name, value, "Valid values are: true, false.".to_owned()))
}

fn export(name: &str, value: &Value) -> Result<i64, OptionError> {
    value
        .as_i64()
        .filter(|id| *id > 0)
        .ok_or_else(|| refused(name, value, "Write the number of an export.".to_owned()))
}

/// What the values of a map may be.
struct MapValue {
    is_allowed: fn(&str) -> bool,
    example: &'static str,
}

const TARGET_TABLE: MapValue = MapValue {
    // StarRocks allows 1,024 characters; a back-tick could be quoted, but nobody means one.
    is_allowed: |text| {
        !text.is_empty()
            && text.chars().count() <= 1_024
            && !text.contains(|c: char| c == '`' || c.is_control())
    },
    example: "{\"sales.orders\": \"sales_orders\"}",
};

const TARGET_TYPE: MapValue = MapValue {
    // The text becomes a part of a statement: only what the name of a type is made of.
    is_allowed: |text| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_(), <>".contains(c))
    },
    example: "{\"public.orders.total\": \"DECIMAL(20,4)\"}",
};

fn map(name: &str, value: &Value, values: &MapValue) -> Result<BTreeMap<String, String>, OptionError> {
    let refusal = || refused(name, value, format!("Write an object such as {}.", values.example));
    let object: &Map<String, Value> = value.as_object().ok_or_else(refusal)?;
    object
        .iter()
        .map(|(key, value)| {
            let text = value.as_str().filter(|text| key.contains('.') && (values.is_allowed)(text));
            Ok((key.clone(), text.ok_or_else(refusal)?.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(set: Value) -> Result<Options, OptionError> {
        Options::default().merged(&set)
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let options = merged(json!({})).unwrap();
        assert_eq!(options, Options::default());
        assert_eq!(options.flush_interval, FlushInterval::Adaptive(Duration::from_secs(1)));
        assert_eq!((options.batch_max_rows, options.batch_max_bytes), (100_000, 67_108_864));
    }

    #[test]
    fn what_a_mirror_sets_wins() {
        let options = merged(json!({
            "flush_interval": "200ms", "batch_max_rows": 5, "memory_limit": "1GB", "load_threads": "2",
            "on_truncate": "ignore", "on_out_of_range": "clamp",
            "table_map": {"sales.orders": "sales_orders"}, "column_map": {"public.orders.total": "DECIMAL(20,4)"},
        }))
        .unwrap();
        assert_eq!(options.flush_interval, FlushInterval::Fixed(Duration::from_millis(200)));
        assert_eq!((options.batch_max_rows, options.memory_limit, options.load_threads), (5, 1 << 30, 2));
        assert_eq!(options.on_truncate, OnStatement::Ignore);
        assert_eq!(options.on_out_of_range, OutOfRange::Clamp);
        assert_eq!(options.table_map["sales.orders"], "sales_orders");
        assert_eq!(options.column_map["public.orders.total"], "DECIMAL(20,4)");
    }

    #[test]
    fn unrecognized_option_is_answered_with_the_valid_ones() {
        let error = merged(json!({"flush_intervall": "1s"})).unwrap_err();
        assert_eq!(error.to_string(), "unrecognized option \"flush_intervall\"");
        let hint = error.hint().unwrap();
        assert!(NAMES.iter().all(|name| hint.contains(name)), "{hint}");
    }

    #[test]
    fn every_listed_option_is_recognized() {
        for name in NAMES {
            let error = merged(json!({name: [null]})).unwrap_err();
            assert!(matches!(error, OptionError::BadValue { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn value_out_of_range_is_answered_with_the_range() {
        for (name, value, hint) in [
            (
                "flush_interval",
                json!("0ms"),
                "Write a time with its unit, such as \"500ms\", from 1ms to 1h.",
            ),
            ("flush_interval", json!(1), "Write a time with its unit, such as \"500ms\", from 1ms to 1h."),
            (
                "batch_max_size",
                json!("91MB"),
                "Write a size with its unit, such as \"64MB\", from 64kB to 90MB.",
            ),
            (
                "batch_max_size",
                json!(1_048_576),
                "Write a size with its unit, such as \"64MB\", from 64kB to 90MB.",
            ),
            ("batch_max_rows", json!(0), "Write a whole number from 1 to 10000000."),
            ("on_out_of_range", json!("nothing"), "Valid values are: \"error\", \"null\", \"clamp\"."),
            ("metadata_columns", json!("maybe"), "Valid values are: true, false."),
        ] {
            let error = merged(json!({name: value})).unwrap_err();
            assert_eq!(error.hint().as_deref(), Some(hint), "{name}");
        }
    }

    #[test]
    fn maps_take_names_and_nothing_that_could_end_a_statement() {
        for set in [
            json!({"table_map": {"orders": "x"}}),
            json!({"table_map": {"public.orders": ""}}),
            json!({"table_map": {"public.orders": "a`b"}}),
            json!({"table_map": []}),
            json!({"column_map": {"public.t.c": "INT; DROP TABLE x"}}),
            json!({"column_map": {"public.t.c": "INT COMMENT 'x'"}}),
        ] {
            assert!(matches!(merged(set.clone()), Err(OptionError::BadValue { .. })), "{set}");
        }
    }

    #[test]
    fn options_that_are_no_object_are_refused() {
        assert_eq!(merged(json!([1])), Err(OptionError::NotAnObject));
    }
}

//! Settings of the server: `dbmazz.<option>` for what a mirror does not set itself, and `dbmazz.enabled`.
//!
//! All of them are read by workers, so they change with the configuration file and a reload (`sighup`), not per
//! session. [`define`] runs when the library is loaded; [`defaults`] and [`enabled`] are for the main thread of any
//! process.

use std::ffi::CStr;
use std::ops::RangeInclusive;
use std::time::Duration;

use pgrx::guc::{GucContext, GucEnum, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;

use super::compat;
use crate::encode::OutOfRange;
use crate::options::{self, NewTables, OnDelete, OnReject, OnStatement, Options, SlotGuardAction};
use crate::pipeline::FlushInterval;

static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static FLUSH_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static BATCH_MAX_ROWS: GucSetting<i32> = GucSetting::<i32>::new(100_000);
static BATCH_MAX_SIZE: GucSetting<i32> = GucSetting::<i32>::new(64 << 10);
static MEMORY_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(128 << 10);
static LOAD_THREADS: GucSetting<i32> = GucSetting::<i32>::new(4);
static SNAPSHOT_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(4);
static SNAPSHOT_CHUNK_SIZE: GucSetting<i32> = GucSetting::<i32>::new(128 << 10);
static SNAPSHOT_MAX_RATE: GucSetting<i32> = GucSetting::<i32>::new(0);
static ON_DELETE: GucSetting<OnDelete> = GucSetting::<OnDelete>::new(OnDelete::Delete);
static ON_TRUNCATE: GucSetting<OnStatement> = GucSetting::<OnStatement>::new(OnStatement::Apply);
static ON_DDL: GucSetting<OnStatement> = GucSetting::<OnStatement>::new(OnStatement::Apply);
static ON_OUT_OF_RANGE: GucSetting<OutOfRange> = GucSetting::<OutOfRange>::new(OutOfRange::Error);
static ON_REJECT: GucSetting<OnReject> = GucSetting::<OnReject>::new(OnReject::Stop);
static NEW_TABLES: GucSetting<NewTables> = GucSetting::<NewTables>::new(NewTables::Ignore);
static METADATA_COLUMNS: GucSetting<bool> = GucSetting::<bool>::new(false);
static SLOT_GUARD_SIZE: GucSetting<i32> = GucSetting::<i32>::new(0);
static SLOT_GUARD_ACTION: GucSetting<SlotGuardAction> =
    GucSetting::<SlotGuardAction>::new(SlotGuardAction::Warn);

/// Makes the settings known. Called once, while the library is loaded.
pub(super) fn define() {
    boolean(c"dbmazz.enabled", c"Whether mirrors have workers; off stops all work at once.", &ENABLED);
    boolean(
        c"dbmazz.metadata_columns",
        c"Whether target tables get columns with the position and time of a row's commit.",
        &METADATA_COLUMNS,
    );
    define_numbers();
    choice(c"dbmazz.on_delete", c"What a DELETE does at the target.", &ON_DELETE);
    choice(c"dbmazz.on_truncate", c"What becomes of a TRUNCATE.", &ON_TRUNCATE);
    choice(c"dbmazz.on_ddl", c"What becomes of a changed table definition.", &ON_DDL);
    choice(
        c"dbmazz.on_out_of_range",
        c"What becomes of a value that the target cannot hold.",
        &ON_OUT_OF_RANGE,
    );
    choice(c"dbmazz.on_reject", c"What becomes of a table with a row that the target refuses.", &ON_REJECT);
    choice(c"dbmazz.new_tables", c"What becomes of tables that are created later.", &NEW_TABLES);
    choice(
        c"dbmazz.slot_guard_action",
        c"What the guard of the replication slot does when too much log is retained.",
        &SLOT_GUARD_ACTION,
    );
    compat::reserve_settings_prefix(c"dbmazz");
}

fn define_numbers() {
    Number {
        name: c"dbmazz.flush_interval",
        description: c"Longest time that a committed change waits for its load to start.",
        setting: &FLUSH_INTERVAL,
        unit: Unit::Milliseconds,
    }
    .define(&options::FLUSH_INTERVAL_MS);
    Number {
        name: c"dbmazz.batch_max_rows",
        description: c"Rows at which a load closes.",
        setting: &BATCH_MAX_ROWS,
        unit: Unit::None,
    }
    .define(&options::BATCH_MAX_ROWS);
    Number {
        name: c"dbmazz.batch_max_size",
        description: c"Bytes at which a load closes, before compression.",
        setting: &BATCH_MAX_SIZE,
        unit: Unit::Kilobytes,
    }
    .define(&options::BATCH_MAX_SIZE);
    Number {
        name: c"dbmazz.memory_limit",
        description: c"Bytes encoded or queued and not yet acknowledged, for a whole mirror.",
        setting: &MEMORY_LIMIT,
        unit: Unit::Kilobytes,
    }
    .define(&options::MEMORY_LIMIT);
    Number {
        name: c"dbmazz.load_threads",
        description: c"Threads of a mirror that send loads.",
        setting: &LOAD_THREADS,
        unit: Unit::None,
    }
    .define(&options::LOAD_THREADS);
    define_snapshot_numbers();
    Number {
        name: c"dbmazz.slot_guard_size",
        description: c"Retained log at which the guard of the replication slot acts; zero for never.",
        setting: &SLOT_GUARD_SIZE,
        unit: Unit::Megabytes,
    }
    .define(&options::ANY_SIZE);
}

fn define_snapshot_numbers() {
    Number {
        name: c"dbmazz.snapshot_workers",
        description: c"Processes that copy the rows of a mirror that are there already.",
        setting: &SNAPSHOT_WORKERS,
        unit: Unit::None,
    }
    .define(&options::SNAPSHOT_WORKERS);
    Number {
        name: c"dbmazz.snapshot_chunk_size",
        description: c"Heap and TOAST bytes of a chunk of the copy.",
        setting: &SNAPSHOT_CHUNK_SIZE,
        unit: Unit::Kilobytes,
    }
    .define(&options::SNAPSHOT_CHUNK_SIZE);
    Number {
        name: c"dbmazz.snapshot_max_rate",
        description: c"Bytes that the copy of a mirror reads per second at most; zero for no limit.",
        setting: &SNAPSHOT_MAX_RATE,
        unit: Unit::Kilobytes,
    }
    .define(&options::ANY_SIZE);
}

/// Whether mirrors are to have workers at all.
pub(super) fn enabled() -> bool {
    ENABLED.get()
}

/// What the options of a mirror are when it does not set them.
pub(super) fn defaults() -> Options {
    let unsigned = |setting: &GucSetting<i32>| u64::try_from(setting.get()).unwrap_or(0);
    let count = |setting: &GucSetting<i32>| usize::try_from(setting.get()).unwrap_or(1);
    Options {
        flush_interval: FlushInterval::Adaptive(Duration::from_millis(unsigned(&FLUSH_INTERVAL))),
        batch_max_rows: unsigned(&BATCH_MAX_ROWS),
        batch_max_bytes: unsigned(&BATCH_MAX_SIZE) << 10,
        memory_limit: unsigned(&MEMORY_LIMIT) << 10,
        load_threads: count(&LOAD_THREADS),
        snapshot_workers: count(&SNAPSHOT_WORKERS),
        snapshot_chunk_bytes: unsigned(&SNAPSHOT_CHUNK_SIZE) << 10,
        snapshot_max_rate: unsigned(&SNAPSHOT_MAX_RATE) << 10,
        on_delete: ON_DELETE.get(),
        on_truncate: ON_TRUNCATE.get(),
        on_ddl: ON_DDL.get(),
        on_out_of_range: ON_OUT_OF_RANGE.get(),
        on_reject: ON_REJECT.get(),
        new_tables: NEW_TABLES.get(),
        metadata_columns: METADATA_COLUMNS.get(),
        slot_guard_bytes: unsigned(&SLOT_GUARD_SIZE) << 20,
        slot_guard_action: SLOT_GUARD_ACTION.get(),
        ..Options::default()
    }
}

/// What a number of a setting counts.
#[derive(Clone, Copy)]
enum Unit {
    None,
    Milliseconds,
    Kilobytes,
    Megabytes,
}

impl Unit {
    const fn flags(self) -> GucFlags {
        match self {
            Self::None => GucFlags::empty(),
            Self::Milliseconds => GucFlags::UNIT_MS,
            Self::Kilobytes => GucFlags::UNIT_KB,
            Self::Megabytes => GucFlags::UNIT_MB,
        }
    }

    /// A bound of an option, in this unit; as much as a setting can hold.
    fn bound(self, value: u64) -> i32 {
        let value = match self {
            Self::None | Self::Milliseconds => value,
            Self::Kilobytes => value >> 10,
            Self::Megabytes => value >> 20,
        };
        i32::try_from(value).unwrap_or(i32::MAX)
    }
}

struct Number {
    name: &'static CStr,
    description: &'static CStr,
    setting: &'static GucSetting<i32>,
    unit: Unit,
}

impl Number {
    fn define(self, range: &RangeInclusive<u64>) {
        GucRegistry::define_int_guc(
            self.name,
            self.description,
            DEFAULT_OF_OPTION,
            self.setting,
            self.unit.bound(*range.start()),
            self.unit.bound(*range.end()),
            GucContext::Sighup,
            self.unit.flags(),
        );
    }
}

const DEFAULT_OF_OPTION: &CStr = c"The default of the option of the same name of a mirror.";

fn boolean(name: &'static CStr, description: &'static CStr, setting: &'static GucSetting<bool>) {
    GucRegistry::define_bool_guc(name, description, c"", setting, GucContext::Sighup, GucFlags::empty());
}

fn choice<T: GucEnum>(name: &'static CStr, description: &'static CStr, setting: &'static GucSetting<T>) {
    GucRegistry::define_enum_guc(
        name,
        description,
        DEFAULT_OF_OPTION,
        setting,
        GucContext::Sighup,
        GucFlags::empty(),
    );
}

/// Words of an option as PostgreSQL wants them. They must be those of [`options::Choice`].
macro_rules! words {
    ($choice:ty, $($word:literal => $value:expr),+ $(,)?) => {
        // SAFETY: the entries live as long as the program and end with one that has no name.
        unsafe impl GucEnum for $choice {
            fn from_ordinal(ordinal: i32) -> Self {
                [$($value),+].into_iter().find(|value| *value as i32 == ordinal).unwrap_or_default()
            }

            fn to_ordinal(&self) -> i32 {
                *self as i32
            }

            const CONFIG_ENUM_ENTRY: *const pg_sys::config_enum_entry = (&[
                $(pg_sys::config_enum_entry { name: $word.as_ptr(), val: $value as i32, hidden: false },)+
                pg_sys::config_enum_entry { name: std::ptr::null(), val: 0, hidden: false },
            ]) as *const _;
        }
    };
}

words!(OnDelete, c"delete" => OnDelete::Delete, c"mark" => OnDelete::Mark);
words!(
    OnStatement,
    c"apply" => OnStatement::Apply,
    c"ignore" => OnStatement::Ignore,
    c"error" => OnStatement::Error,
);
words!(
    OutOfRange,
    c"error" => OutOfRange::Error,
    c"null" => OutOfRange::Null,
    c"clamp" => OutOfRange::Clamp,
);
words!(OnReject, c"stop" => OnReject::Stop, c"continue" => OnReject::Continue);
words!(NewTables, c"ignore" => NewTables::Ignore, c"add" => NewTables::Add);
words!(
    SlotGuardAction,
    c"warn" => SlotGuardAction::Warn,
    c"throttle" => SlotGuardAction::Throttle,
    c"release" => SlotGuardAction::Release,
);

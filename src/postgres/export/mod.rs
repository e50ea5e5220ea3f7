//! Exports: the processes that write tables to files, and the SQL functions that start and watch them.
//!
//! ```text
//! dbmazz_export ─ at commit ─► dbmazz export leader ─► dbmazz export holder: takes the snapshot and keeps it
//!                                │                     dbmazz export, several: write chunks under that snapshot
//!                                ├─► pg_dump and pg_restore: the schema, under that snapshot
//!                                └─► manifest.json, when everything else is there
//! ```
//!
//! States of an export, in `dbmazz.export.state`:
//!
//! ```text
//! starting ─► running ─► done
//!                │  └──► failed, cancelled ─ dbmazz_resume_export ─► starting
//!                └ server crashed: no process has it any more, shown as `interrupted`; to be resumed likewise
//! ```
//!
//! A chunk is claimed in a transaction of its own, its file is made durable, and then it is marked as done. So a
//! chunk that is done has its file, and a file without a chunk that is done is written again.
//!
//! * `shared`: what the processes of an export tell each other.
//! * `process`: starting them, and how they end.
//! * `leader`, `holder`, `worker`: the processes.
//! * `position`: the snapshot, and where in the log it belongs.
//! * `place`: whether the destination is free.
//! * `plan`: which tables, as of the snapshot, and which chunks.
//! * `rows`, `send`, `toasted`: a row becomes bytes of COPY.
//! * `schema`: pg_dump and pg_restore.
//! * `assemble`: the manifest.
//! * `api`, `argument`: the SQL functions.

// An ErrorReport is large, and made at most once per call.
#![allow(clippy::result_large_err)]

mod api;
mod argument;
mod assemble;
mod estimate;
mod holder;
mod leader;
mod place;
mod plan;
mod position;
mod process;
mod rows;
mod schema;
mod send;
pub(super) mod shared;
mod toasted;
mod worker;

pgrx::extension_sql_file!("../../../sql/export.sql", name = "export", requires = ["functions"]);

//! dbmazz mirrors PostgreSQL tables into StarRocks from inside the server.
//!
//! The rooms, and the one direction in which they know each other:
//!
//! ```text
//! postgres ──► pipeline, snapshot ──► sink, encode, pgoutput ──► table, lsn
//!          ──► export
//! ```
//!
//! * [`lsn`], [`table`], [`options`], [`server_options`]: the words that all rooms share.
//! * [`pgoutput`]: the wire format of PostgreSQL's own output plugin, for publications with filters.
//! * [`encode`]: one row of values becomes the bytes of one NDJSON line; stream and snapshot meet here.
//! * [`pipeline`]: changes become loads: compaction by key, batches, memory budget, checkpoint tracker.
//! * [`sink`]: loads leave for StarRocks over HTTP, DDL over the MySQL protocol.
//! * [`identity`]: whether mirror, server and slot still belong together.
//! * [`owner`]: who may write to the target, and whether anybody went back.
//! * [`pace`]: rates that several processes keep together.
//! * [`snapshot`]: which blocks of a table make a chunk.
//! * [`export`]: tables as files: destinations, chunks, manifest.
//! * `postgres`: everything that calls PostgreSQL. It is there only with one of the features `pg14` … `pg18`;
//!   without them the crate is a pure engine that builds, tests and benches without a server.

pub mod definition;
pub mod encode;
pub mod export;
pub mod identity;
pub mod lsn;
pub mod options;
pub mod owner;
pub mod pace;
pub mod pgoutput;
pub mod pipeline;
#[cfg(feature = "extension")]
mod postgres;
pub mod server_options;
pub mod sink;
pub mod snapshot;
pub mod table;
pub mod table_event;

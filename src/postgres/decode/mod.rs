//! The log, from records to rows in the pipeline.
//!
//! ```text
//! record ─► reorder buffer ─► callbacks ─┬─ own table ──────► tuple ─► values ─────────┐
//!           (context)                    └─ filtered table ─► pgoutput ─► its message ─┴─► feed ─► pipeline ─► threads
//! ```
//!
//! * `context`: the decoding context of the slot; the only place that moves a slot.
//! * `callbacks`: what PostgreSQL calls for each transaction, change, truncate and commit.
//! * `feed`: what the callbacks feed: routes changes to their tables and waits when there is no room.
//! * `follow`: what becomes of a table whose columns change; `given`: what its earlier rows have in new ones.
//! * `horizon`: how far the log may be decoded.
//! * `intake`: a change into the pipeline, whoever has decoded it.
//! * `mirrored`: one table as the stream sees it, with the columns of the moment.
//! * `partition`: rows of partitions go where their root's go; `partitioned`: which partitions a root has.
//! * `rejected`: rows that the encoder or the target refuses.
//! * `removal`: what a DELETE does at the target.
//! * `table_event`: tables that are rewritten, dropped, renamed, created.
//! * `outgoing`: loads out to the threads, outcomes in; labels; figures for the views.
//! * `unmirrored`: changes of other tables, left out before the reorder buffer keeps them.
//! * `news`: what happened inside the callbacks and can only be written down between records.

mod callbacks;
mod context;
mod feed;
mod filtered;
mod follow;
mod given;
mod horizon;
mod incomplete;
mod intake;
mod mirrored;
mod news;
mod outgoing;
mod partition;
mod partitioned;
mod rejected;
mod removal;
mod table_event;
mod unmirrored;

pub(super) use callbacks::breathe;
pub(super) use context::Decoder;
pub(super) use feed::Feed;
pub(super) use horizon::Horizon;
pub(super) use incomplete::IncompleteKey;
pub(super) use mirrored::invalidations;
pub(super) use outgoing::said;
pub(super) use rejected::{TOO_MANY, reason_of, told};
pub(super) use unmirrored::File;

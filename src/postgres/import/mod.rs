//! Imports: the files of an export become tables again.
//!
//! ```text
//! dbmazz_import ── at commit ──► dbmazz import (superuser): reads the manifest, writes down the steps
//!                                   └─► for each phase, as the user who asked:  dbmazz import worker × N
//!   0 what must be there before the rows   one process, in order        5 what is attached to them      one process, in order
//!   1 tables must be empty, or are emptied one process, in order        6 foreign keys                  in parallel
//!   2 rows                                 in parallel, by chunk        7 comments, references          one process
//!   3 sequences                            one process                  8 materialized views are filled one process, in order
//!   4 indexes, keys                        in parallel
//! ```
//!
//! * A step is marked done in the transaction that does it: whatever happens, each is done once. `dbmazz_import` of the same
//!   source with the same arguments goes on with what is left, if source and tables are still those that it has begun with.
//! * One import at a time fills a table. Whoever comes second is refused, and its plan forgotten.
//! * What fails without keeping the rest from being done (a refresh, a reference, an index) is an error at the end.
//! * Rows that a file with another checksum has brought are not committed.
//! * Workers are connected as the user: functions of types, defaults, index expressions and scripts have no more
//!   rights than that user has. Only the tables of the extension are written with its own.
//!
//! * [`request`]: what `dbmazz_import` checks and writes down.
//! * [`control`]: waiting and cancelling.
//! * [`table`]: `dbmazz.import` and `dbmazz.import_step`.
//! * [`source`], [`script`]: the export; the schema, statement by statement.
//! * [`choice`], [`wanted`]: which tables, and which statements.
//! * [`plan`], [`begin`], [`place`]: the steps, and whether they still hold.
//! * [`leader`], [`presence`]: the process that has them done, and which imports have processes.
//! * [`worker`], [`statement`], [`copy`], [`references`], [`attempt`]: the processes that do them.

pub(super) mod attempt;
mod begin;
mod choice;
pub(super) mod control;
mod copy;
mod leader;
mod options;
mod place;
mod plan;
mod presence;
mod references;
mod request;
mod script;
mod source;
mod statement;
mod table;
mod wanted;
mod worker;

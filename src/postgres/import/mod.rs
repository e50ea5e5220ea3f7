//! Imports: the files of an export become tables again.
//!
//! ```text
//! dbmazz_import ── at commit ──► dbmazz import (superuser): reads the manifest, writes down the steps
//!                                   └─► for each phase, as the user who asked:  dbmazz import worker × N
//!   0 what must be there before the rows   one process, in order        4 indexes, keys            in parallel
//!   1 tables must be empty, or are emptied one process, in order        5 what is attached to them one process, in order
//!   2 rows                                 in parallel, by chunk        6 foreign keys             in parallel
//!   3 sequences                            one process                  7 comments, last checks    one process
//! ```
//!
//! * A step is marked done in the transaction that does it: whatever happens, each is done once. `dbmazz_import` of the same
//!   source with the same arguments goes on with what is left.
//! * Rows that a file with another checksum has brought are not committed.
//! * Workers are connected as the user: functions of types, defaults, index expressions and scripts have no more
//!   rights than that user has. Only the tables of the extension are written with its own.
//!
//! * [`request`]: what `dbmazz_import` checks and writes down.
//! * [`control`]: waiting and cancelling.
//! * [`table`]: `dbmazz.import` and `dbmazz.import_step`.
//! * [`script`]: the schema, statement by statement.
//! * [`plan`], [`leader`]: the steps, and the process that has them done.
//! * [`worker`], [`copy`], [`attempt`]: the processes that do them.

pub(super) mod attempt;
pub(super) mod control;
mod copy;
mod leader;
mod options;
mod plan;
mod request;
mod script;
mod table;
mod worker;

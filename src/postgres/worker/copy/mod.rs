//! Copying the rows that are there already, as it is led: by the mirror worker for the first copy of all tables
//! ([`first`]), by a process of its own for tables that join, or are copied again, while the others stream (`tables`).
//!
//! * [`earlier`]: what earlier copies have left at the target goes.
//! * [`target`]: the tables at the target exist, fit and are empty.
//! * [`holding`]: a process that keeps a snapshot.
//! * [`plan`]: tables become chunks under that snapshot, and what is kept of a copy that was interrupted.
//! * [`chunks`]: snapshot workers copy them until none is left.
//!
//! What a table goes through, in letters of `pg_subscription_rel`: `i`, it has to be copied from its beginning, whatever
//! the target has of it; `d`, it has a plan, and chunks that are done count; then it is handed to the stream. A table that
//! is rewritten or altered meanwhile goes back to `i`.

mod chunks;
mod earlier;
pub(super) mod first;
mod holding;
mod plan;
mod target;

pub(super) use chunks::{Copied, copy_chunks};
pub(super) use holding::{Held, hold};
pub(super) use plan::plan;
pub(super) use target::{Rows, make_ready};

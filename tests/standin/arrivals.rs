//! When the last byte of each load came, and which keys were in it: `--arrivals on`, with `--storage off`, for measuring how
//! long a committed row takes.

use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use serde::Serialize;

use crate::plan::{Op, Plan, Target};
use crate::rows::{Counter, RowError, RowSink, RowView};
use crate::server::lock;
use crate::values::Cell;

/// One load that was committed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Arrival {
    /// Microseconds since 1970 when the body was read whole.
    pub(crate) at_us: u64,
    /// `database.table`.
    pub(crate) table: String,
    /// The first key column of each row, where it is an integer.
    pub(crate) keys: Vec<i64>,
}

/// All of them, oldest first.
#[derive(Default)]
pub(crate) struct Arrivals(Mutex<Vec<Arrival>>);

impl Arrivals {
    /// Adds one.
    pub(crate) fn add(&self, arrival: Arrival) {
        lock(&self.0).push(arrival);
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    /// `[{"at_us", "table", "keys"}, …]`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!(*lock(&self.0))
    }
}

/// The clock that arrivals are told by.
pub(crate) fn now_us() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Counts rows, and keeps their keys.
pub(crate) struct KeyReader {
    counter: Counter,
    key: Option<Target>,
    keys: Vec<i64>,
}

impl KeyReader {
    /// For the rows of a plan.
    pub(crate) fn new(plan: &Plan) -> Self {
        let key = plan.targets.iter().find(|target| target.column == 0).cloned();
        Self { counter: Counter::new(plan), key, keys: Vec::new() }
    }

    /// The keys of the rows that were taken.
    pub(crate) fn into_keys(self) -> Vec<i64> {
        self.keys
    }
}

impl RowSink for KeyReader {
    fn take(&mut self, op: Op, row: &RowView<'_>) -> Result<(), RowError> {
        self.counter.take(op, row)?;
        if let Some(key) = &self.key
            && let Cell::Int(value) = row.cell(key)?
        {
            self.keys.push(value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{Body, Compression};
    use crate::load_headers::BodyShape;
    use crate::plan::tests::{orders, plan_of};
    use crate::rows::{Refused, read_rows};

    #[test]
    fn keys_of_the_rows_are_kept_in_their_order() {
        let plan = plan_of(orders(), &[("columns", "id,Note,__op")]).unwrap();
        let text = br#"{"id":3,"Note":"a"}{"id":1,"Note":"b"}{"id":2,"__op":1}"#;
        let mut body = Body::new(text, Compression::None, BodyShape::Objects, Vec::new());
        let mut keys = KeyReader::new(&plan);
        let tally = read_rows(&plan, &mut body, &Refused::None, &mut keys).unwrap();
        assert_eq!((tally.total, keys.into_keys()), (3, vec![3, 1, 2]));
    }
}

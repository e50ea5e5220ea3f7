//! How much was loaded, per table: what benchmarks and tests read from `/standin/counts`.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Mutex;

use serde::Serialize;

use crate::rows::Tally;
use crate::server::lock;

/// Committed loads of one table.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Count {
    pub(crate) loads: u64,
    pub(crate) rows: u64,
    pub(crate) upserts: u64,
    pub(crate) deletes: u64,
    /// Bytes of bodies as received.
    pub(crate) bytes: u64,
    /// The same without compression.
    pub(crate) body_bytes: u64,
    /// Loads that came to nothing.
    pub(crate) failed_loads: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.loads += other.loads;
        self.rows += other.rows;
        self.upserts += other.upserts;
        self.deletes += other.deletes;
        self.bytes += other.bytes;
        self.body_bytes += other.body_bytes;
        self.failed_loads += other.failed_loads;
    }
}

/// Counts of all tables, by `database.table`.
#[derive(Default)]
pub(crate) struct Counts {
    tables: Mutex<BTreeMap<String, Count>>,
}

impl Counts {
    /// Counts a load that is visible.
    pub(crate) fn committed(&self, table: String, tally: &Tally, bytes: u64) {
        let count = Count {
            loads: 1,
            rows: tally.loaded(),
            upserts: tally.upserts,
            deletes: tally.deletes,
            bytes,
            body_bytes: tally.body_bytes,
            failed_loads: 0,
        };
        *lock(&self.tables).entry(table).or_default() += count;
    }

    /// Counts a load that came to nothing.
    pub(crate) fn failed(&self, table: String) {
        lock(&self.tables).entry(table).or_default().failed_loads += 1;
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        lock(&self.tables).clear();
    }

    /// `{"tables": {…}, "total": {…}}`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let tables = lock(&self.tables);
        let mut total = Count::default();
        for count in tables.values() {
            total += *count;
        }
        serde_json::json!({ "tables": *tables, "total": total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sum_of_the_tables() {
        let counts = Counts::default();
        let tally = Tally { total: 5, filtered: 1, upserts: 3, deletes: 1, ..Tally::default() };
        counts.committed("a.b".into(), &tally, 100);
        counts.committed("a.c".into(), &tally, 11);
        counts.failed("a.c".into());
        let json = counts.to_json();
        assert_eq!(json["total"]["rows"], 8);
        assert_eq!(json["total"]["bytes"], 111);
        assert_eq!(json["tables"]["a.c"]["failed_loads"], 1);
    }
}

//! Batches of a snapshot copy.
//!
//! The rows of one table under one snapshot have distinct keys, so nothing is compacted and no key table is kept. Called
//! by a snapshot worker: push rows until the batch is full, seal, send, go on with the next one.

use std::sync::Arc;

use bytes::Bytes;

use super::bisection::RejectedRow;
use super::limits::MAX_LOAD_BYTES;
use crate::encode::{ColumnSet, EncodeError, Row, RowBytes, RowEncoder};
use crate::sink::{Label, Load, LoadShape};

/// Rows of a table that are copied.
#[derive(Debug)]
pub struct CopyBatch {
    encoder: Arc<RowEncoder>,
    shape: Arc<LoadShape>,
    max_rows: u64,
    max_bytes: usize,
    buffer: Vec<u8>,
    rows: u64,
    /// Rows that did not fit into the load before.
    carried: Vec<u8>,
    carried_rows: u64,
}

impl CopyBatch {
    /// An empty batch; `shape` is that of loads with all columns. It is full at `max_rows` or `max_bytes`. `buffer` is an empty
    /// one, such as [`super::SpareBuffers`] keep: touching fresh memory page by page costs about as much as encoding into it.
    pub const fn new(
        encoder: Arc<RowEncoder>,
        shape: Arc<LoadShape>,
        max_rows: u64,
        max_bytes: usize,
        buffer: Vec<u8>,
    ) -> Self {
        Self { encoder, shape, max_rows, max_bytes, buffer, rows: 0, carried: Vec::new(), carried_rows: 0 }
    }

    /// Takes a row in. The batch may be [`Self::is_full`] after it.
    ///
    /// # Errors
    ///
    /// The row cannot be sent to the target; the batch is as before.
    pub fn push(&mut self, row: &impl Row) -> Result<(), EncodeError> {
        let RowBytes { start, end, .. } = self.encoder.encode_row(row, &ColumnSet::ALL, &mut self.buffer)?;
        if end > MAX_LOAD_BYTES && start > 0 {
            // It would make the load too long; it waits for the next one. Rare, so its bytes may be copied.
            self.carried.extend_from_slice(self.buffer.get(start..end).unwrap_or_default());
            self.carried_rows += 1;
            self.buffer.truncate(start);
        } else {
            self.rows += 1;
        }
        Ok(())
    }

    /// A row that was not taken in because of itself, to be written down. None when it would be taken in at another time.
    pub fn rejected(&self, row: &impl Row, why: &EncodeError) -> Option<RejectedRow> {
        why.is_of_row().then(|| RejectedRow {
            lsn: None,
            shown: self.encoder.shown_row(row, 0..self.encoder.columns()),
            reason: why.to_string(),
            is_delete: false,
        })
    }

    /// Whether the batch is to be sealed now.
    pub fn is_full(&self) -> bool {
        self.rows >= self.max_rows || self.buffer.len() >= self.max_bytes || !self.carried.is_empty()
    }

    /// Rows that are not sealed yet.
    pub fn rows(&self) -> u64 {
        self.rows + self.carried_rows
    }

    /// Bytes that are not sealed yet.
    pub fn bytes(&self) -> usize {
        self.buffer.len() + self.carried.len()
    }

    /// Makes a load of the rows so far; `None` when there are none. After the last row of a chunk call it until it
    /// returns `None`: rows that did not fit make a load of their own. The label is taken only for a load.
    pub fn seal(&mut self, label: impl FnOnce() -> Option<Label>) -> Option<Load> {
        if self.rows == 0 {
            return None;
        }
        let label = label()?;
        let rows = std::mem::replace(&mut self.rows, std::mem::take(&mut self.carried_rows));
        let carried = std::mem::take(&mut self.carried);
        let buffer = Bytes::from(std::mem::replace(&mut self.buffer, carried));
        let live = std::iter::once(0..buffer.len()).collect();
        Some(Load { label, shape: Arc::clone(&self.shape), buffer, live, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{OutOfRange, Value};
    use crate::table::{Column, Kind, SourceColumn, TableSpec, TargetTable};

    struct Id(i64);

    impl Row for Id {
        fn value(&self, _: usize) -> Value<'_> {
            Value::Int(self.0)
        }
    }

    fn batch(max_rows: u64, max_bytes: usize) -> CopyBatch {
        let target = TargetTable { database: "d".to_owned(), table: "t".to_owned() };
        let id = Column {
            source: SourceColumn { attnum: 1, name: "id".to_owned(), type_oid: 20, typmod: -1 },
            name: "id".to_owned(),
            kind: Kind::Int,
            target_type: "BIGINT".to_owned(),
        };
        let spec = TableSpec {
            relid: 1,
            source_name: "public.t".to_owned(),
            target: target.clone(),
            columns: vec![id],
            key_len: 1,
        };
        let encoder = Arc::new(RowEncoder::new(&spec, &["id".to_owned()], OutOfRange::Error));
        let shape = Arc::new(LoadShape { target, columns: "`id`,`__op`".to_owned(), partial: false });
        CopyBatch::new(encoder, shape, max_rows, max_bytes, Vec::new())
    }

    fn label() -> Option<Label> {
        Some(Label { mirror: "m".into(), incarnation: 1, number: 1 })
    }

    #[test]
    fn batch_is_full_at_its_rows_or_bytes() {
        let (mut by_rows, mut by_bytes) = (batch(2, 1000), batch(1000, 30));
        for full in [false, true] {
            by_rows.push(&Id(1)).unwrap();
            by_bytes.push(&Id(1)).unwrap();
            assert_eq!((by_rows.is_full(), by_bytes.is_full()), (full, full));
        }
    }

    #[test]
    fn sealed_rows_are_the_rows_that_were_pushed() {
        let mut batch = batch(10, 1000);
        assert!(batch.seal(label).is_none());
        batch.push(&Id(1)).unwrap();
        batch.push(&Id(2)).unwrap();
        assert_eq!(batch.rows(), 2);
        let load = batch.seal(label).unwrap();
        assert_eq!(load.rows, 2);
        assert_eq!(
            load.body().collect::<Vec<_>>().concat(),
            b"{\"id\":1,\"__op\":0}\n{\"id\":2,\"__op\":0}\n"
        );
        assert_eq!((batch.rows(), batch.bytes()), (0, 0));
    }

    #[test]
    fn no_row_is_lost_when_no_label_is_left() {
        let mut batch = batch(10, 1000);
        batch.push(&Id(1)).unwrap();
        assert!(batch.seal(|| None).is_none());
        assert_eq!(batch.seal(label).map(|load| load.rows), Some(1));
    }
}

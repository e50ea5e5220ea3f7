//! Batches of a snapshot copy.
//!
//! The rows of one table under one snapshot have distinct keys, so nothing is compacted and no key table is kept. Called
//! by a snapshot worker: push rows until the batch is full, seal, send, go on with the next one.

use std::sync::Arc;

use bytes::Bytes;

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
    /// An empty batch; `shape` is that of loads with all columns. It is full at `max_rows` or `max_bytes`.
    pub const fn new(
        encoder: Arc<RowEncoder>,
        shape: Arc<LoadShape>,
        max_rows: u64,
        max_bytes: usize,
    ) -> Self {
        Self {
            encoder,
            shape,
            max_rows,
            max_bytes,
            buffer: Vec::new(),
            rows: 0,
            carried: Vec::new(),
            carried_rows: 0,
        }
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

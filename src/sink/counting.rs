//! A sink that takes everything and keeps nothing but counts. Benchmarks measure the way to the network with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::pack::Packer;
use super::{
    Compression, Label, LabelFate, Load, LoadError, Loaded, Sink, StatementError, TableMatch, Watch,
};
use crate::definition::AlterStep;
use crate::owner::{OwnerRow, OwnerStep};
use crate::table::{TableSpec, TargetTable};

/// What all counting sinks of a run have seen together.
#[derive(Debug, Default)]
pub struct Counts {
    /// Loads.
    pub loads: AtomicU64,
    /// Rows of them.
    pub rows: AtomicU64,
    /// Bytes of their bodies before compression.
    pub body_bytes: AtomicU64,
    /// Bytes of their bodies after compression.
    pub bytes_sent: AtomicU64,
}

/// Accepts every load at once.
pub struct CountingSink {
    counts: Arc<Counts>,
    compression: Compression,
    packer: Packer,
}

impl CountingSink {
    /// Counts into `counts`, after the same compression that a real sink would do.
    pub fn new(counts: Arc<Counts>, compression: Compression) -> Self {
        Self { counts, compression, packer: Packer::new() }
    }
}

impl Sink for CountingSink {
    fn load(&mut self, load: &Load, _: &dyn Watch) -> Result<Loaded, LoadError> {
        let start = Instant::now();
        let bytes_sent = self.packer.pack(load, self.compression)?.body.len() as u64;
        let body_bytes = load.body_bytes() as u64;
        self.counts.loads.fetch_add(1, Ordering::Relaxed);
        self.counts.rows.fetch_add(load.rows, Ordering::Relaxed);
        self.counts.body_bytes.fetch_add(body_bytes, Ordering::Relaxed);
        self.counts.bytes_sent.fetch_add(bytes_sent, Ordering::Relaxed);
        Ok(Loaded { rows: load.rows, bytes_sent, body_bytes, elapsed: start.elapsed() })
    }

    fn settle(&mut self, _: &str, _: &Label, _: &dyn Watch) -> Result<LabelFate, LoadError> {
        Ok(LabelFate::Unknown)
    }

    fn occupy(&mut self, _: &str, _: &Label, _: &dyn Watch) -> Result<(), LoadError> {
        Ok(())
    }

    fn truncate(&mut self, _: &TargetTable, _: &dyn Watch) -> Result<(), StatementError> {
        Ok(())
    }

    fn prepare(&mut self, _: &TableSpec, _: &dyn Watch) -> Result<TableMatch, StatementError> {
        Ok(TableMatch::Created)
    }

    fn replace(&mut self, _: &TableSpec, _: &dyn Watch) -> Result<TableMatch, StatementError> {
        Ok(TableMatch::Created)
    }

    fn alter(&mut self, _: &TargetTable, _: &[AlterStep], _: &dyn Watch) -> Result<(), StatementError> {
        Ok(())
    }

    /// Whoever asks has it.
    fn own(&mut self, _: &str, step: &OwnerStep, _: &dyn Watch) -> Result<Option<OwnerRow>, StatementError> {
        Ok(match step {
            OwnerStep::Claim(row) | OwnerStep::Advance { row, .. } => Some(row.clone()),
            OwnerStep::Look { .. } | OwnerStep::Release { .. } => None,
        })
    }
}

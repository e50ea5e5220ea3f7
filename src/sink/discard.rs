//! A sink whose loads go nowhere, in builds with the feature `discard` alone: benchmarks measure the way up to the network
//! with it, in the product itself.
//!
//! Statements still go to the target, so that a mirror starts, claims and checkpoints as ever. A load is compressed or
//! not, as the option `discard` of the server says, counted, and forgotten.

use std::sync::Arc;

use super::{
    Compression, CountingSink, Interrupter, Label, LabelFate, Load, LoadError, Loaded, Sink, StatementError,
    TableMatch, Watch,
};
use crate::definition::AlterStep;
use crate::owner::{OwnerRow, OwnerStep};
use crate::table::{TableSpec, TargetTable};

/// A sink for statements, without its loads.
pub(crate) struct DiscardingSink<S> {
    loads: CountingSink,
    statements: S,
}

impl<S: Sink> DiscardingSink<S> {
    /// Loads end here; everything else goes on to `statements`.
    pub(crate) fn new(statements: S, compression: Compression) -> Self {
        Self { loads: CountingSink::new(Arc::default(), compression), statements }
    }
}

impl<S: Sink> Sink for DiscardingSink<S> {
    fn load(&mut self, load: &Load, watch: &dyn Watch) -> Result<Loaded, LoadError> {
        self.loads.load(load, watch)
    }

    fn settle(&mut self, database: &str, label: &Label, watch: &dyn Watch) -> Result<LabelFate, LoadError> {
        self.statements.settle(database, label, watch)
    }

    fn occupy(&mut self, database: &str, label: &Label, watch: &dyn Watch) -> Result<(), LoadError> {
        self.statements.occupy(database, label, watch)
    }

    fn truncate(&mut self, target: &TargetTable, watch: &dyn Watch) -> Result<(), StatementError> {
        self.statements.truncate(target, watch)
    }

    fn prepare(&mut self, spec: &TableSpec, watch: &dyn Watch) -> Result<TableMatch, StatementError> {
        self.statements.prepare(spec, watch)
    }

    fn replace(&mut self, spec: &TableSpec, watch: &dyn Watch) -> Result<TableMatch, StatementError> {
        self.statements.replace(spec, watch)
    }

    fn alter(
        &mut self,
        target: &TargetTable,
        steps: &[AlterStep],
        watch: &dyn Watch,
    ) -> Result<(), StatementError> {
        self.statements.alter(target, steps, watch)
    }

    fn own(
        &mut self,
        database: &str,
        step: &OwnerStep,
        watch: &dyn Watch,
    ) -> Result<Option<OwnerRow>, StatementError> {
        self.statements.own(database, step, watch)
    }

    fn interrupter(&self) -> Interrupter {
        self.statements.interrupter()
    }
}

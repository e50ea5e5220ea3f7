//! The row filter of a publication, evaluated on the rows of a scan as pgoutput evaluates it on changes (pgoutput.c,
//! `pgoutput_row_filter_exec_expr`): a row passes when the expression is true, not when it is false or NULL.

use std::ffi::CString;

use pgrx::pg_sys;

use super::super::compat;

/// A row filter, ready to be asked. Lives in the transaction that made it.
pub(in super::super) struct RowFilter {
    estate: *mut pg_sys::EState,
    context: *mut pg_sys::ExprContext,
    state: *mut pg_sys::ExprState,
}

impl RowFilter {
    /// A filter from the text of `pg_publication_rel.prqual` of `table`, for rows of that or of a partition of it.
    ///
    /// # Safety
    ///
    /// A transaction is open, and `node` is the text of an expression over the columns of `table`; both relations are open.
    pub(in super::super) unsafe fn new(node: &str, table: pg_sys::Relation, rows: pg_sys::Relation) -> Self {
        let node = CString::new(node).unwrap_or_default();
        // SAFETY: the caller vouches for text and relations; what is not the executor state's is the transaction's.
        unsafe {
            let mut expression = pg_sys::stringToNode(node.as_ptr()).cast::<pg_sys::Node>();
            if table != rows {
                expression = of_other_columns(expression, table, rows);
            }
            let expression = expression.cast::<pg_sys::Expr>();
            let estate = pg_sys::CreateExecutorState();
            let state = pg_sys::ExecPrepareExpr(expression, estate);
            let context = pg_sys::MakePerTupleExprContext(estate);
            Self { estate, context, state }
        }
    }

    /// Whether the row in `slot` passes.
    ///
    /// # Safety
    ///
    /// The slot holds a row of the table that the filter is for, in the transaction that made the filter.
    pub(in super::super) unsafe fn passes(&mut self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        // SAFETY: the caller vouches for the slot. What the expression allocates goes into the per-tuple memory, which
        // is emptied for each row. The closure owns nothing that needs dropping.
        unsafe {
            let Some(evaluate) = (*self.state).evalfunc else { return false };
            let (state, context) = (self.state, self.context);
            (*context).ecxt_scantuple = slot;
            let previous = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            let mut is_null = false;
            let result = pg_sys::ffi::pg_guard_ffi_boundary(|| evaluate(state, context, &raw mut is_null));
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            !is_null && result.value() & 1 == 1
        }
    }

    /// Gives the memory back. Not in a destructor: after an error the transaction's abort does it.
    ///
    /// # Safety
    ///
    /// As of [`Self::new`].
    pub(in super::super) unsafe fn free(self) {
        // SAFETY: the caller vouches; nothing of it is used any more.
        unsafe { pg_sys::FreeExecutorState(self.estate) };
    }
}

/// An expression over the columns of one table, for rows of another one that has columns of these names.
///
/// # Safety
///
/// As [`RowFilter::new`].
unsafe fn of_other_columns(
    expression: *mut pg_sys::Node,
    table: pg_sys::Relation,
    rows: pg_sys::Relation,
) -> *mut pg_sys::Node {
    let mut has_whole_row = false;
    // SAFETY: the caller vouches for expression and relations. A row filter has no whole-row reference.
    unsafe {
        let columns = compat::columns_by_name((*table).rd_att, (*rows).rd_att);
        pg_sys::map_variable_attnos(expression, 1, 0, columns, pg_sys::InvalidOid, &raw mut has_whole_row)
    }
}

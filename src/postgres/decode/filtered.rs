//! Tables that pgoutput decodes, because their publication has a row filter, a column list, or leaves operations out.

/// State of the messages of pgoutput.
#[derive(Default)]
pub(super) struct Filtered {}

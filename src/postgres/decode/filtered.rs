//! Tables that pgoutput decodes, because their publication has a row filter, a column list, or leaves operations out.

use pgrx::pg_sys;

use super::feed::Feed;

/// State of the messages of pgoutput.
#[derive(Default)]
pub(super) struct Filtered {}

impl Feed {
    pub(super) fn expect_messages_about(&mut self, _relation: pg_sys::Relation) {}

    pub(super) fn message_of_pgoutput(&mut self, _message: &[u8]) {}
}

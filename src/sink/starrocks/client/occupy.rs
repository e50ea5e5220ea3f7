//! Labels that no load may use any more.
//!
//! What the frontends say of a label is what they know. A load of a worker that is gone may have reached a backend that has
//! not told them yet: its bytes are in a socket, and it would be begun a moment after its label was called unknown. A label
//! that has been used is refused from then on (`Label Already Exists`), so such labels are used up by a load that changes
//! nothing: it deletes a row from `dbmazz_owner` that is never there.

use super::StarRocksSink;
use crate::owner::OwnerStep;
use crate::sink::starrocks::owner;
use crate::sink::{Label, LabelFate, LoadError, Refusal, Sink as _, StatementError, Watch};

impl StarRocksSink {
    /// Has the label be one of a load that has ended well, whichever that is.
    pub(super) fn use_up(
        &mut self,
        database: &str,
        label: &Label,
        watch: &dyn Watch,
    ) -> Result<(), LoadError> {
        let nothing = owner::load_of_nothing(database, label);
        let mut has_made_table = false;
        loop {
            match self.load(&nothing, watch) {
                Ok(_) => return Ok(()),
                // It was on its way indeed.
                Err(LoadError::LabelTaken { .. }) => {
                    if self.fate(database, label, watch)? == LabelFate::Visible {
                        return Ok(());
                    }
                }
                Err(LoadError::Refused { message, .. }) if says_unknown(&message, "database") => {
                    return Ok(());
                }
                Err(LoadError::Refused { message, .. })
                    if says_unknown(&message, "table") && !has_made_table =>
                {
                    has_made_table = true;
                    self.make_table(database, label, watch)?;
                }
                Err(problem) => return Err(problem),
            }
        }
    }

    fn make_table(&mut self, database: &str, label: &Label, watch: &dyn Watch) -> Result<(), LoadError> {
        let look = OwnerStep::Look { mirror: label.mirror.to_string() };
        match self.own(database, &look, watch) {
            Ok(_) => Ok(()),
            Err(StatementError::Stopped) => Err(LoadError::Stopped),
            Err(problem) => Err(LoadError::Refused {
                refusal: Refusal::Table,
                status: "not sent".to_owned(),
                message: problem.to_string(),
                error_log: None,
            }),
        }
    }
}

/// Where there is no such thing, nothing arrives.
fn says_unknown(message: &str, what: &str) -> bool {
    message.to_ascii_lowercase().contains(&format!("unknown {what}"))
}

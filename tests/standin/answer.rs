//! The JSON that the backend answers a load with.

use std::fmt::Write;
use std::time::Duration;

use crate::rows::Tally;

/// Where the time of a load went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timings {
    pub(crate) total: Duration,
    pub(crate) begin: Duration,
    pub(crate) plan: Duration,
    pub(crate) read: Duration,
    pub(crate) write: Duration,
    pub(crate) commit: Duration,
}

/// The outcome of a load.
#[derive(Clone, Debug)]
pub(crate) struct LoadAnswer {
    /// -1 where none was begun.
    pub(crate) transaction: i64,
    pub(crate) label: String,
    pub(crate) status: &'static str,
    /// With `Label Already Exists`: `FINISHED` or `RUNNING`.
    pub(crate) existing_job: Option<&'static str>,
    pub(crate) message: String,
    pub(crate) tally: Tally,
    /// Bytes of the body as received.
    pub(crate) load_bytes: u64,
    pub(crate) timings: Timings,
    pub(crate) error_url: Option<String>,
}

impl LoadAnswer {
    /// An answer about a load that has not read anything.
    pub(crate) fn early(
        transaction: i64,
        label: &str,
        status: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            transaction,
            label: label.into(),
            status,
            existing_job: None,
            message: message.into(),
            tally: Tally::default(),
            load_bytes: 0,
            timings: Timings::default(),
            error_url: None,
        }
    }

    /// The text of the answer.
    pub(crate) fn to_json(&self) -> String {
        let mut members = vec![
            ("TxnId", self.transaction.to_string()),
            ("Label", json_text(&self.label)),
            ("Status", json_text(self.status)),
        ];
        if let Some(job) = self.existing_job {
            members.push(("ExistingJobStatus", json_text(job)));
        }
        members.push(("Message", json_text(&self.message)));
        let numbers: [(&str, u128); 11] = [
            ("NumberTotalRows", self.tally.total.into()),
            ("NumberLoadedRows", self.tally.loaded().into()),
            ("NumberFilteredRows", self.tally.filtered.into()),
            ("NumberUnselectedRows", 0),
            ("LoadBytes", self.load_bytes.into()),
            ("LoadTimeMs", self.timings.total.as_millis()),
            ("BeginTxnTimeMs", self.timings.begin.as_millis()),
            ("StreamLoadPlanTimeMs", self.timings.plan.as_millis()),
            ("ReadDataTimeMs", self.timings.read.as_millis()),
            ("WriteDataTimeMs", self.timings.write.as_millis()),
            ("CommitAndPublishTimeMs", self.timings.commit.as_millis()),
        ];
        members.extend(numbers.map(|(name, value)| (name, value.to_string())));
        if let Some(url) = &self.error_url {
            members.push(("ErrorURL", json_text(url)));
        }
        pretty(&members)
    }
}

fn pretty(members: &[(&str, String)]) -> String {
    let mut text = String::from("{");
    for (index, (name, value)) in members.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}\n    \"{name}\": {value}");
    }
    text.push_str("\n}");
    text
}

/// A JSON string.
pub(crate) fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_the_order_of_the_backend() {
        let mut answer = LoadAnswer::early(7, "a", "Label Already Exists", "say \"hi\"");
        answer.existing_job = Some("FINISHED");
        answer.error_url = Some("http://x".into());
        let text = answer.to_json();
        let names: Vec<&str> = text.lines().filter_map(|line| line.trim().split('"').nth(1)).collect();
        assert_eq!(names[..5], ["TxnId", "Label", "Status", "ExistingJobStatus", "Message"]);
        assert_eq!(names.last(), Some(&"ErrorURL"));
        assert!(text.contains(r#""Message": "say \"hi\"""#));
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }
}

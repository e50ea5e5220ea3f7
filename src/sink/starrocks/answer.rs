//! What a frontend or a backend says about a load.
//!
//! Read leniently: names of fields in any case, fields missing or more, numbers as text. Frontends write `status` and
//! `Status`, and old backends lack fields.

use serde_json::{Map, Value};

/// The answer to a load.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct LoadAnswer {
    pub(super) status: String,
    pub(super) message: String,
    /// `ExistingJobStatus`: what became of the load that has the label.
    pub(super) existing: Option<String>,
    pub(super) loaded_rows: Option<u64>,
    pub(super) error_url: Option<String>,
}

impl LoadAnswer {
    /// `None` when this is no answer of a StarRocks.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let fields = Fields::parse(body)?;
        Some(Self {
            status: fields.text("Status")?,
            message: fields.text("Message").or_else(|| fields.text("msg")).unwrap_or_default(),
            existing: fields.text("ExistingJobStatus"),
            loaded_rows: fields.number("NumberLoadedRows"),
            error_url: fields.text("ErrorURL").filter(|url| !url.is_empty()),
        })
    }
}

/// The answer to a question about a label.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct StateAnswer {
    pub(super) status: String,
    pub(super) message: String,
    pub(super) state: Option<String>,
}

impl StateAnswer {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let fields = Fields::parse(body)?;
        Some(Self {
            status: fields.text("status")?,
            message: fields.text("message").or_else(|| fields.text("msg")).unwrap_or_default(),
            state: fields.text("state"),
        })
    }
}

/// The words of any answer, for a message to the administrator.
pub(super) fn message_of(body: &[u8]) -> String {
    let fields = Fields::parse(body);
    let message = fields.and_then(|fields| fields.text("message").or_else(|| fields.text("msg")));
    message.unwrap_or_else(|| "no reason given".to_owned())
}

struct Fields(Map<String, Value>);

impl Fields {
    fn parse(body: &[u8]) -> Option<Self> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Some(Self(fields)),
            _ => None,
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.value(name)?.as_str().map(str::to_owned)
    }

    fn number(&self, name: &str) -> Option<u64> {
        let value = self.value(name)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_read_whatever_the_case_of_its_fields() {
        let answer = LoadAnswer::parse(br#"{"status":"FAILED","code":"1","msg":"no"}"#).unwrap();
        assert_eq!((answer.status.as_str(), answer.message.as_str()), ("FAILED", "no"));
        let answer = LoadAnswer::parse(br#"{"Status":"Success","NumberLoadedRows":"3","New":{}}"#).unwrap();
        assert_eq!(answer.loaded_rows, Some(3));
    }

    #[test]
    fn page_of_a_proxy_is_no_answer() {
        for body in
            [&b"<html>Bad Gateway</html>"[..], b"", b"[]", b"{}", b"{\"Status\":7}", b"{\"Status\":\"Su"]
        {
            assert_eq!(LoadAnswer::parse(body), None, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn state_may_come_without_a_reason() {
        let answer = StateAnswer::parse(br#"{"state":"UNKNOWN","reason":null,"status":"OK"}"#).unwrap();
        assert_eq!(answer.state.as_deref(), Some("UNKNOWN"));
    }
}

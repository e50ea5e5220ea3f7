//! Every request with its answer, so that tests can assert the exchange itself.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::auth;
use crate::http::Head;
use crate::server::lock;

/// Older entries make room beyond this many.
const MAX_ENTRIES: usize = 20_000;

/// One request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    /// Milliseconds since 1970 when its answer was sent.
    pub(crate) at_ms: u128,
    /// `fe` or `be`.
    pub(crate) hop: &'static str,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) label: Option<String>,
    /// All headers, but of the login only the user's name.
    pub(crate) headers: Map<String, Value>,
    /// Body bytes that were read.
    pub(crate) bytes: u64,
    /// A digest of the body of a load that was read whole: equal bodies have equal ones.
    pub(crate) digest: Option<String>,
    /// The answer's status code; 0 where the connection was cut instead.
    pub(crate) status: u16,
    /// The answer's body.
    pub(crate) answer: String,
}

/// The log.
#[derive(Default)]
pub(crate) struct RequestLog {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: VecDeque<Entry>,
    dropped: u64,
}

impl Entry {
    /// The entry of a request.
    pub(crate) fn new(hop: &'static str, head: &Head, bytes: u64, status: &str, answer: &str) -> Self {
        let headers = head.headers.iter().map(|(name, value)| {
            let value = match name.as_str() {
                "authorization" => {
                    auth::parse(value).map_or("unusable".into(), |(user, _)| format!("user {user}"))
                }
                _ => value.clone(),
            };
            (name.clone(), Value::from(value))
        });
        Self {
            at_ms: std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis()),
            hop,
            method: head.method.clone(),
            path: head.target.clone(),
            label: head.header("label").map(str::to_owned).or_else(|| head.query("label")),
            headers: headers.collect(),
            bytes,
            digest: None,
            status: status.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0),
            answer: answer.into(),
        }
    }

    /// With the digest of its body.
    pub(crate) fn with_digest(mut self, digest: u128) -> Self {
        self.digest = Some(format!("{digest:032x}"));
        self
    }
}

impl RequestLog {
    /// Adds an entry.
    pub(crate) fn add(&self, entry: Entry) {
        let mut inner = lock(&self.inner);
        if inner.entries.len() == MAX_ENTRIES {
            inner.entries.pop_front();
            inner.dropped += 1;
        }
        inner.entries.push_back(entry);
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        *lock(&self.inner) = Inner::default();
    }

    /// `{"dropped": n, "requests": […]}`, oldest first.
    pub(crate) fn to_json(&self) -> Value {
        let inner = lock(&self.inner);
        serde_json::json!({ "dropped": inner.dropped, "requests": inner.entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_not_logged() {
        let head = Head {
            method: "PUT".into(),
            target: "/api/a/b/_stream_load".into(),
            minor_version: 1,
            headers: vec![
                ("authorization".into(), "Basic cm9vdDpzZWNyZXQ=".into()),
                ("label".into(), "l1".into()),
            ],
        };
        let entry = Entry::new("be", &head, 3, "200 OK", "{}");
        assert_eq!(entry.headers["authorization"], "user root");
        assert_eq!((entry.label.as_deref(), entry.status), (Some("l1"), 200));
    }
}

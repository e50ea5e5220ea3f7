//! One HTTP request, one answer. Nothing is followed, repeated or interpreted here.
//!
//! Three things about the HTTP library were measured and are kept by tests (`exchange/tests.rs`): a redirect of a
//! request with a body is an error unless redirects are switched off; the body of an error answer is lost unless
//! statuses are no errors; and `Expect: 100-continue` together with a body hangs when the final answer comes instead of
//! the 100. So redirects are followed by hand, and whoever is asked with `Expect` gets an empty body.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use ureq::http::{HeaderName, HeaderValue};
use ureq::{Agent, Error, Timeout};

use super::config::StarRocksConfig;
pub use crate::server_options::TlsError;
use crate::server_options::tls;

/// Headers of a request.
pub(super) type Headers = [(HeaderName, HeaderValue)];

/// The connections of one sink.
pub(super) struct Http {
    agent: Agent,
    /// Longest wait for the answer to a load: what the server may take, and some more.
    answer_timeout: Duration,
}

impl Http {
    pub(super) fn new(config: &StarRocksConfig) -> Result<Self, TlsError> {
        let agent_config = Agent::config_builder()
            // The environment's proxy is not for a database server.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("dbmazz/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls(config.ca_file.as_deref(), config.tls_verify)?)
            .timeout_resolve(Some(config.connect_timeout))
            .timeout_connect(Some(config.connect_timeout))
            .timeout_send_request(Some(SMALL_TIMEOUT))
            .timeout_send_body(Some(config.load_timeout))
            .timeout_recv_response(Some(SMALL_TIMEOUT))
            .timeout_recv_body(Some(SMALL_TIMEOUT))
            .build();
        Ok(Self { agent: agent_config.new_agent(), answer_timeout: config.load_timeout + SMALL_TIMEOUT })
    }

    #[cfg(test)]
    pub(super) fn with_answer_timeout(self, answer_timeout: Duration) -> Self {
        Self { answer_timeout, ..self }
    }

    /// A handle whose `shutdown` ends the requests in flight.
    pub(super) fn agent(&self) -> Agent {
        self.agent.clone()
    }

    /// Asks where a load should go: no body, and `Expect`, which a frontend insists on.
    pub(super) fn put_empty(&self, url: &str, headers: &Headers) -> Result<Answer, Failure> {
        let mut request = self.agent.put(url).header("expect", "100-continue");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        Answer::read(request.send_empty())
    }

    /// Sends a load.
    pub(super) fn put_body(&self, url: &str, headers: &Headers, body: &[u8]) -> Result<Answer, Failure> {
        let mut request = self.agent.put(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.config().timeout_recv_response(Some(self.answer_timeout)).build();
        Answer::read(request.send(body))
    }

    pub(super) fn get(&self, url: &str, headers: &Headers) -> Result<Answer, Failure> {
        let mut request = self.agent.get(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        Answer::read(request.call())
    }

    /// The beginning of a document that may be long.
    pub(super) fn get_start(&self, url: &str, most_bytes: u64) -> Option<Vec<u8>> {
        let response = self.agent.get(url).call().ok()?;
        let is_good = response.status() == 200;
        let mut start = Vec::new();
        // What breaks off is still worth showing.
        let _ = response.into_body().into_reader().take(most_bytes).read_to_end(&mut start);
        (is_good && !start.is_empty()).then_some(start)
    }

    pub(super) fn post_empty(&self, url: &str, headers: &Headers) -> Result<Answer, Failure> {
        let mut request = self.agent.post(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        Answer::read(request.send_empty())
    }
}

/// What came back, whatever it says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    fn read(result: Result<ureq::http::Response<ureq::Body>, Error>) -> Result<Self, Failure> {
        let mut response = result.map_err(Failure::from)?;
        let location = response.headers().get("location");
        let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        // The head has been received: whoever sent it has the request.
        let body = body.map_err(|error| Failure::Cut(error.to_string()))?;
        Ok(Self { status: response.status().as_u16(), location, body })
    }

    pub(super) const fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    /// Status and beginning of the body, for messages.
    pub(super) fn summary(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let start: String = text.chars().take(200).collect();
        format!("HTTP status {} and \"{}\"", self.status, start.escape_debug())
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// There was no connection: nobody has seen the request.
    NotSent(String),
    /// The connection was lost or silent: the request may have been served.
    Cut(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let unsent = match &error {
            Error::HostNotFound | Error::ConnectionFailed | Error::BadUri(_) | Error::Http(_) => true,
            Error::Timeout(phase) => matches!(phase, Timeout::Resolve | Timeout::Connect),
            Error::Tls(_) | Error::Rustls(_) => true,
            Error::Io(source) => matches!(
                source.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::NotConnected
            ),
            _ => false,
        };
        if unsent { Self::NotSent(error.to_string()) } else { Self::Cut(error.to_string()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(reason) | Self::Cut(reason) => f.write_str(reason),
        }
    }
}

/// For everything that is not the body of a load. A frontend in a garbage collection needs some of it.
const SMALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers have a few hundred bytes.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sink::starrocks::testing::config;

    #[test]
    fn certificates_that_cannot_be_used_are_an_error_at_the_start() {
        let path = std::env::temp_dir().join(format!("dbmazz_ca_{}", std::process::id()));
        let mut config = config(&["https://127.0.0.1:1"]);
        config.ca_file = Some(path.clone());
        let missing = Http::new(&config).err().unwrap().to_string();
        assert!(missing.contains("No such file"), "{missing}");
        fs::write(&path, "no certificate").unwrap();
        let empty = Http::new(&config).err().unwrap().to_string();
        fs::remove_file(&path).unwrap();
        assert!(empty.ends_with("no certificate in it"), "{empty}");
    }
}

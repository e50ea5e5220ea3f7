//! The control interface of the stand-in: faults, counts, labels, the request log.
//!
//! HTTP by hand: one request per connection, an answer with a length or up to the end.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Failure, Outcome};

/// Something that the stand-in is told to do wrong.
#[derive(Clone, Debug)]
pub(crate) struct Fault(Value);

impl Fault {
    /// A fault of this kind, once.
    pub(crate) fn once(kind: &str) -> Self {
        Self(json!({"kind": kind, "times": 1}))
    }

    /// A fault of this kind, so many times.
    pub(crate) fn times(kind: &str, times: u64) -> Self {
        Self(json!({"kind": kind, "times": times}))
    }

    /// A fault of this kind until it is cleared.
    pub(crate) fn lasting(kind: &str) -> Self {
        Self(json!({"kind": kind, "times": -1}))
    }

    /// For the loads of one table only.
    #[must_use]
    pub(crate) fn on_table(mut self, table: &str) -> Self {
        self.0["table"] = json!(table);
        self
    }

    /// With the value that this kind takes: milliseconds, or which of the processes.
    #[must_use]
    pub(crate) fn with(mut self, value: impl Into<Value>) -> Self {
        self.0["value"] = value.into();
        self
    }
}

/// The stand-in's control interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    port: u16,
}

impl Control {
    pub(super) fn on_port(port: u16) -> Self {
        Self { port }
    }

    /// Lets something go wrong.
    pub(crate) fn set(self, fault: &Fault) -> Outcome {
        self.request("POST", "fault", &fault.0.to_string()).map(drop)
    }

    /// Whether any fault has not struck as often as it will.
    pub(crate) fn has_faults(self) -> Outcome<bool> {
        let faults = self.request("GET", "fault", "")?;
        Ok(faults["faults"].as_array().is_some_and(|faults| !faults.is_empty()))
    }

    /// Ends all faults.
    pub(crate) fn clear(self) -> Outcome {
        self.request("DELETE", "fault", "").map(drop)
    }

    /// Sets how many finished loads of a database are remembered by their labels.
    pub(crate) fn keep_labels(self, most: u64) -> Outcome {
        self.request("POST", "label_keep", &json!({"max": most}).to_string()).map(drop)
    }

    /// The requests so far.
    pub(crate) fn log(self) -> Outcome<Value> {
        self.request("GET", "log", "")
    }

    /// Loads, rows and bytes per table, and their totals.
    pub(crate) fn counts(self) -> Outcome<Value> {
        self.request("GET", "counts", "")
    }

    /// When each load came, with the keys in it; of a stand-in with `--arrivals on`.
    pub(crate) fn arrivals(self) -> Outcome<Value> {
        self.request("GET", "arrivals", "")
    }

    /// Rows of all loads that were committed.
    pub(crate) fn rows_received(self) -> Outcome<u64> {
        let counts = self.counts()?;
        let rows = counts.pointer("/total/rows").and_then(Value::as_u64);
        rows.ok_or_else(|| Failure::new(format!("the stand-in gives no count of rows: {counts}")))
    }

    /// Changes the password that every port asks for.
    pub(crate) fn set_password(self, password: &str) -> Outcome {
        self.request("POST", "password", &json!({"password": password}).to_string()).map(drop)
    }

    /// The labels that are known, and their states.
    pub(crate) fn labels(self) -> Outcome<Value> {
        self.request("GET", "labels", "")
    }

    fn request(self, method: &str, what: &str, body: &str) -> Outcome<Value> {
        let text = exchange(self.port, method, what, body)
            .map_err(|failure| failure.while_doing(format_args!("ask the stand-in for /standin/{what}")))?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_str(&text)?)
    }
}

/// One exchange; returns the body of an answer of class 2xx.
fn exchange(port: u16, method: &str, what: &str, body: &str) -> Outcome<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let length = body.len();
    stream.write_all(
        format!(
            "{method} /standin/{what} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .as_bytes(),
    )?;
    let (head, body) = read_answer(BufReader::new(stream))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        return Err(Failure::new(format!("status {status}: {body}")));
    }
    Ok(body)
}

/// Status line and body, by its announced length: not every answer is followed by the end of the connection.
fn read_answer(mut stream: impl BufRead) -> Outcome<(String, String)> {
    let mut status = String::new();
    stream.read_line(&mut status)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, String::from_utf8(body)?))
}

//! Plays the transcripts of `tests/golden`; its README describes their form.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::Value;

use crate::http::{self, Response, read_head, read_response};
use crate::server::{Standin, load_head, wait_until};

/// A transcript, cut into its sections.
struct Transcript {
    given: Vec<String>,
    request: String,
    response: String,
    then: Vec<String>,
}

impl Transcript {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let text = std::fs::read_to_string(path).unwrap();
        let section = |title: &str| {
            let (_, rest) = text.split_once(&format!("=== {title}\n"))?;
            Some(rest.split("=== ").next().unwrap().to_owned())
        };
        let lines = |title| section(title).unwrap_or_default().lines().map(String::from).collect();
        Self {
            given: lines("given"),
            request: section("request").unwrap(),
            response: section("response").unwrap(),
            then: lines("then"),
        }
    }
}

/// A stand-in on which transcripts are played.
struct Stage {
    standin: Standin,
    /// Connections of loads that are left open.
    open: Vec<TcpStream>,
}

impl Stage {
    fn prepare(&mut self, step: &str) {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "sql" => self.standin.sql(rest),
            "first" => self.play(rest),
            "fault" => self.standin.fault(rest),
            "prepare" => {
                let mut stream = http::connect(self.standin.be);
                stream
                    .write_all(load_head("shop/orders", rest, &[("columns", "id")], 100).as_bytes())
                    .unwrap();
                wait_until("the load is open", || self.standin.state(rest) == "PREPARE");
                self.open.push(stream);
            }
            _ => panic!("unknown step: {step}"),
        }
    }

    fn play(&mut self, name: &str) {
        let transcript = Transcript::read(name);
        for step in &transcript.given {
            self.prepare(step);
        }
        let (head, body) = transcript.request.split_once("\n\n").unwrap();
        let address = if head.contains("Host: {{fe}}") { self.standin.fe } else { self.standin.be };
        let head = self.fill(head, body.len());
        let mut stream = http::connect(address);
        stream.write_all((head.replace('\n', "\r\n") + "\r\n\r\n").as_bytes()).unwrap();
        let waits = head.contains("Expect: 100-continue");
        let is_interim = |line: &String| line.contains("100 Continue came");
        if waits && transcript.then.iter().any(is_interim) {
            let interim = read_head(&mut stream).unwrap();
            assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n", "{name}");
        }
        if !waits || transcript.then.iter().any(is_interim) {
            stream.write_all(body.as_bytes()).unwrap();
        }
        let response = read_response(&mut stream).unwrap_or_else(|| panic!("{name}: no response"));
        self.compare(name, &transcript.response, &response);
        for line in &transcript.then {
            self.check_after(name, line, &response, address, &mut stream);
        }
    }

    fn fill(&self, text: &str, length: usize) -> String {
        text.replace("{{fe}}", &self.standin.fe.to_string())
            .replace("{{be}}", &self.standin.be.to_string())
            .replace("{{address}}", "127.0.0.1")
            .replace("{{length}}", &length.to_string())
    }

    fn compare(&self, name: &str, template: &str, response: &Response) {
        let (head, body) = template.split_once("\n\n").unwrap_or((template, ""));
        let head = self.fill(head, response.body.len());
        let mut lines = head.lines();
        assert_eq!(Some(response.status.as_str()), lines.next(), "{name}: {}", response.body);
        for line in lines {
            if let Some(absent) = line.strip_prefix('!') {
                assert_eq!(response.header(absent), None, "{name}: {absent}");
                continue;
            }
            let (header, value) = line.split_once(": ").unwrap();
            let found = response.header(header).unwrap_or_else(|| panic!("{name}: no {header}"));
            assert!(matches(value, found), "{name}: {header}: {found}");
        }
        let body = self.fill(body.trim_end_matches('\n'), 0);
        let is_backend = body.starts_with("{\n");
        let is_equal = if is_backend {
            matches(&body, &response.body)
        } else {
            body.is_empty() && response.body.is_empty() || same_json(&json(&body), &json(&response.body))
        };
        assert!(is_equal, "{name}:\n{}\nis not\n{body}", response.body);
    }

    fn check_after(
        &self,
        name: &str,
        line: &str,
        response: &Response,
        address: SocketAddr,
        stream: &mut TcpStream,
    ) {
        match line {
            "no 100" => assert!(!response.continued, "{name}: 100 Continue came"),
            "connection closes" => assert!(http::is_closed(stream), "{name}: the connection is open"),
            "connection stays open" => {
                stream
                    .write_all(format!("GET /nothing HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
                    .unwrap();
                let next =
                    read_response(stream).unwrap_or_else(|| panic!("{name}: the connection is closed"));
                assert_eq!(next.status, "HTTP/1.1 404 Not Found", "{name}");
            }
            _ => {}
        }
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Compares documents whose texts may hold place-holders.
fn same_json(template: &Value, found: &Value) -> bool {
    match (template, found) {
        (Value::String(template), Value::String(found)) => matches(template, found),
        (Value::Object(template), Value::Object(found)) => {
            template.len() == found.len()
                && template
                    .iter()
                    .all(|(key, value)| found.get(key).is_some_and(|found| same_json(value, found)))
        }
        _ => template == found,
    }
}

/// Compares a text with a template that has place-holders.
fn matches(template: &str, found: &str) -> bool {
    let Some((literal, rest)) = template.split_once("{{") else { return template == found };
    let Some(found) = found.strip_prefix(literal) else { return false };
    let (kind, rest) = rest.split_once("}}").unwrap();
    let belongs: fn(char) -> bool = match kind {
        "number" => |c| c.is_ascii_digit(),
        "txn" => |c| c.is_ascii_digit() || c == '-',
        "word" => |c| c.is_ascii_alphanumeric() || c == '_' || c == '-',
        "text" => |_| true,
        other => panic!("unknown place-holder {other}"),
    };
    let least = usize::from(kind != "text");
    let longest = found.find(|c| !belongs(c)).unwrap_or(found.len());
    (least..=longest).any(|end| found.is_char_boundary(end) && matches(rest, &found[end..]))
}

#[test]
fn place_holders_stand_for_what_they_say() {
    assert!(matches("a {{number}} b", "a 12 b"));
    assert!(!matches("a {{number}} b", "a  b"));
    assert!(!matches("a {{number}} b", "a x b"));
    assert!(matches("{{text}}parse{{text}}", "parse error"));
    assert!(!matches("{{text}}parse", "parser"));
    assert!(matches("\"TxnId\": {{txn}},", "\"TxnId\": -1,"));
}

#[test]
fn every_transcript_is_answered_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".http"))
        .collect();
    names.sort();
    assert!(names.len() > 20, "only {} transcripts were found", names.len());
    for name in names {
        Stage { standin: Standin::start(), open: Vec::new() }.play(&name);
    }
}

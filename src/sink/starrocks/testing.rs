//! What the tests of this room share: a server that speaks raw sockets and does exactly what the test says, and the
//! golden transcripts.

mod sql_server;

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::config::{Secret, StarRocksConfig, TlsVerify};
pub(super) use sql_server::{SqlReply, SqlServer};

use crate::sink::retry::Steps;
use crate::sink::{Label, Load, LoadShape, Pace, Watch};
use crate::table::TargetTable;

/// What a server does with one request.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    pub(super) body: Body,
    pub(super) then: Then,
}

/// Whether the body of the request is read before the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Body {
    Read,
    Left,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Then {
    Keep,
    Close,
    /// It stays open, and nothing more comes.
    Hold,
}

impl Reply {
    pub(super) fn json(body: &str) -> Self {
        Self::http("200 OK", "", body)
    }

    pub(super) fn http(status: &str, headers: &str, body: &str) -> Self {
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len());
        Self { bytes: text.into_bytes(), body: Body::Read, then: Then::Keep }
    }

    /// As a frontend redirects: at once, and the connection closes.
    pub(super) fn redirect(base: &str) -> Self {
        let headers = format!("Location: {base}/api/shop/orders/_stream_load\r\nConnection: close\r\n");
        let reply = Self::http("307 Temporary Redirect", &headers, "");
        Self { body: Body::Left, then: Then::Close, ..reply }
    }

    pub(super) const fn nothing(then: Then) -> Self {
        Self { bytes: Vec::new(), body: Body::Read, then }
    }

    pub(super) fn success(rows: u64) -> Self {
        Self::json(&format!(
            "{{\"TxnId\":1,\"Status\":\"Success\",\"Message\":\"OK\",\"NumberLoadedRows\":{rows}}}"
        ))
    }

    pub(super) fn fail(message: &str) -> Self {
        Self::json(&format!(
            "{{\"TxnId\":1,\"Status\":\"Fail\",\"Message\":\"{message}\",\"NumberLoadedRows\":0}}"
        ))
    }

    pub(super) fn state(state: &str) -> Self {
        Self::json(&format!(
            "{{\"state\":\"{state}\",\"reason\":null,\"status\":\"OK\",\"msg\":\"Success\"}}"
        ))
    }

    pub(super) fn unauthorized() -> Self {
        let body = "{\"status\":\"FAILED\",\"code\":\"1\",\"msg\":\"Access denied for root@10.0.0.7\"}";
        Self::http("401 Unauthorized", "WWW-Authenticate: Basic realm=\"\"\r\n", body)
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// `PUT /api/…`.
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A server in this process. Replies come from one script per kind of request, and the last of a script stays.
pub(super) struct Server {
    pub(super) base: String,
    shared: Arc<Shared>,
}

struct Shared {
    kind: Kind,
    puts: Mutex<VecDeque<Reply>>,
    states: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
    arrived: Condvar,
    held: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Frontend,
    Backend,
}

impl Server {
    pub(super) fn frontend(puts: impl IntoIterator<Item = Reply>) -> Self {
        Self::start(Kind::Frontend, puts)
    }

    pub(super) fn backend(puts: impl IntoIterator<Item = Reply>) -> Self {
        Self::start(Kind::Backend, puts)
    }

    /// The answers to questions about labels.
    pub(super) fn knowing(self, states: impl IntoIterator<Item = Reply>) -> Self {
        *self.shared.states.lock().unwrap() = states.into_iter().collect();
        self
    }

    /// Another script for loads.
    pub(super) fn answering(self, puts: impl IntoIterator<Item = Reply>) -> Self {
        *self.shared.puts.lock().unwrap() = puts.into_iter().collect();
        self
    }

    fn start(kind: Kind, puts: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            kind,
            puts: Mutex::new(puts.into_iter().collect()),
            states: Mutex::default(),
            seen: Mutex::default(),
            arrived: Condvar::new(),
            held: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let acceptor = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&acceptor);
                shared.connections.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || shared.serve(stream.unwrap()));
            }
        });
        Self { base, shared }
    }

    /// Loads that came, without the question what the server is.
    pub(super) fn loads(&self) -> Vec<Seen> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.line.starts_with("PUT ")).cloned().collect()
    }

    pub(super) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    pub(super) fn cancels(&self) -> Vec<Seen> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.line.starts_with("POST ")).cloned().collect()
    }

    pub(super) fn wait_for_a_load(&self) {
        let seen = self.shared.seen.lock().unwrap();
        let patience = Duration::from_secs(10);
        let no_load = |seen: &mut Vec<Seen>| !seen.iter().any(|seen| seen.line.starts_with("PUT "));
        let (_seen, timeout) = self.shared.arrived.wait_timeout_while(seen, patience, no_load).unwrap();
        assert!(!timeout.timed_out(), "no load came");
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        while let Some(mut seen) = read_head(&mut stream) {
            let reply = self.reply(&seen.line);
            if reply.body == Body::Read {
                let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
                seen.body.resize(length, 0);
                if stream.read_exact(&mut seen.body).is_err() {
                    return;
                }
            }
            self.seen.lock().unwrap().push(seen);
            self.arrived.notify_all();
            if stream.write_all(&reply.bytes).is_err() {
                return;
            }
            match reply.then {
                Then::Keep => {}
                Then::Close => return,
                Then::Hold => {
                    self.held.lock().unwrap().push(stream);
                    return;
                }
            }
        }
    }

    fn reply(&self, line: &str) -> Reply {
        if line.starts_with("PUT ") {
            return next(&self.puts).expect("the test expects no load here");
        }
        if self.kind == Kind::Backend && !line.contains("_load_error_log") {
            return Reply::http("404 Not Found", "", "Not Found");
        }
        if line.contains("dbmazz_who_are_you") {
            return Reply::state("UNKNOWN");
        }
        if line.starts_with("POST ") {
            return Reply::json("{\"status\":\"OK\",\"code\":\"0\",\"msg\":\"Success\",\"message\":\"OK\"}");
        }
        next(&self.states).expect("the test expects no question here")
    }
}

/// The next reply of a script; the last one stays.
fn next(script: &Mutex<VecDeque<Reply>>) -> Option<Reply> {
    let mut script = script.lock().unwrap();
    if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
}

fn read_head(stream: &mut TcpStream) -> Option<Seen> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next()?.to_owned();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_owned(), value.trim().to_owned())
    });
    Some(Seen { line, headers: headers.collect(), body: Vec::new() })
}

/// An address where nobody listens.
pub(super) fn dead_base() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub(super) fn config(load_urls: &[&str]) -> StarRocksConfig {
    StarRocksConfig {
        load_urls: load_urls.iter().map(|url| (*url).to_owned()).collect(),
        sql_host: "127.0.0.1".to_owned(),
        sql_port: 9,
        database: "shop".to_owned(),
        user: "root".to_owned(),
        password: Secret::Password(String::new()),
        backend_host: None,
        ca_file: None,
        tls_verify: TlsVerify::On,
        connect_timeout: Duration::from_secs(2),
        load_timeout: Duration::from_secs(20),
        replication_num: Some(1),
    }
}

/// The usual policy, a hundred times faster.
pub(super) fn fast() -> Pace {
    let steps = |first, cap| Steps { first: Duration::from_millis(first), cap: Duration::from_millis(cap) };
    Pace {
        trouble: steps(1, 5),
        credentials: steps(2, 5),
        poll: steps(1, 5),
        prepare_patience: Duration::from_millis(20),
        riddle_patience: Duration::from_millis(40),
    }
}

/// Three rows for `shop.orders`, as in the golden transcripts.
pub(super) fn load() -> Load {
    let body = "{\"id\":1,\"note\":\"first\",\"amount\":\"10.50\",\"__op\":0}\n\
                {\"id\":2,\"note\":null,\"amount\":\"0.01\",\"__op\":0}\n{\"id\":3,\"__op\":1}\n";
    let buffer = Bytes::from_static(body.as_bytes());
    let target = TargetTable { database: "shop".to_owned(), table: "orders".to_owned() };
    let columns = "`id`,`note`,`amount`,`__op`".to_owned();
    let shape = Arc::new(LoadShape { target, columns, partial: false });
    let label = Label { mirror: "m".into(), incarnation: 0xAB, number: 7 };
    let live = std::iter::once(0..buffer.len()).collect();
    Load { label, shape, live, buffer, rows: 3 }
}

/// A worker that the test can stop, and that remembers what it was told.
#[derive(Default)]
pub(super) struct Worker {
    state: Mutex<WorkerState>,
    told: Condvar,
}

#[derive(Default)]
struct WorkerState {
    stopped: bool,
    reasons: Vec<String>,
}

impl Worker {
    pub(super) fn stop(&self) {
        self.state.lock().unwrap().stopped = true;
    }

    pub(super) fn reasons(&self) -> Vec<String> {
        self.state.lock().unwrap().reasons.clone()
    }

    pub(super) fn wait_for_trouble(&self) {
        let state = self.state.lock().unwrap();
        let none = |state: &mut WorkerState| state.reasons.is_empty();
        let (_state, timeout) = self.told.wait_timeout_while(state, Duration::from_secs(10), none).unwrap();
        assert!(!timeout.timed_out(), "no trouble was reported");
    }
}

impl Watch for Worker {
    fn stopped(&self) -> bool {
        self.state.lock().unwrap().stopped
    }

    fn retrying(&self, reason: &str) {
        let count = {
            let mut state = self.state.lock().unwrap();
            state.reasons.push(reason.to_owned());
            state.reasons.len()
        };
        assert!(count < 1000, "retried for ever: {reason}");
        self.told.notify_all();
    }
}

/// Fails when something takes longer than a person would notice.
pub(super) fn within_a_second<T>(what: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = what();
    assert!(start.elapsed() < Duration::from_secs(1), "it took {:?}", start.elapsed());
    result
}

/// One exchange of `tests/golden`.
pub(super) struct Golden {
    pub(super) request_headers: Vec<(String, String)>,
    pub(super) request_line: String,
    pub(super) reply: Reply,
}

impl Golden {
    /// Reads a transcript and fills its varying parts.
    pub(super) fn read(name: &str, backend: &str) -> Self {
        let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect();
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let section = |title: &str| {
            let start = text.find(&format!("=== {title}\n"))? + title.len() + 5;
            let end = text[start..].find("\n===").map_or(text.len(), |end| start + end);
            Some(&text[start..end])
        };
        let request = section("request").unwrap();
        let (request_head, _) = request.split_once("\n\n").unwrap_or((request, ""));
        let mut lines = request_head.lines();
        let request_line = lines.next().unwrap().to_owned();
        let request_headers = lines.filter_map(|line| line.split_once(": "));
        let request_headers =
            request_headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let closes = section("then").is_some_and(|then| then.contains("connection closes"));
        let continues = section("then").is_some_and(|then| then.contains("100 Continue came"));
        let mut reply = golden_reply(section("response").unwrap(), backend);
        reply.then = if closes { Then::Close } else { Then::Keep };
        assert!(!continues, "{name} is for clients that send Expect to a backend");
        Self { request_headers, request_line, reply }
    }
}

fn golden_reply(response: &str, backend: &str) -> Reply {
    let (head, body) = response.split_once("\n\n").unwrap_or((response, ""));
    let fill = |text: &str| {
        let address = backend.trim_start_matches("http://");
        let mut text = text.replace("{{be}}", address);
        for (place, value) in
            [("text", "…"), ("number", "7"), ("txn", "-1"), ("word", "5f2c"), ("address", "10.0.0.7")]
        {
            text = text.replace(&format!("{{{{{place}}}}}"), value);
        }
        text
    };
    let body = fill(body);
    let head: Vec<String> = head.lines().filter(|line| !line.starts_with('!')).map(fill).collect();
    let head = head.join("\r\n").replace("{{length}}", &body.len().to_string());
    assert!(!head.contains("{{") && !body.contains("{{"), "a place-holder is not filled: {head}\n{body}");
    let bytes = format!("{head}\r\n\r\n{body}").into_bytes();
    Reply { bytes, body: Body::Read, then: Then::Keep }
}

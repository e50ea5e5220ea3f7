//! One stand-in process per test.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::Value;

use crate::http::{self, Response};

/// A running stand-in; it ends with this value.
pub(crate) struct Standin {
    process: Child,
    pub(crate) fe: SocketAddr,
    pub(crate) be: SocketAddr,
    mysql_port: u16,
}

impl Standin {
    /// Starts one without arguments.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let mut process = Command::new(binary())
            .arg("--exit-with-stdin")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("build it first: cargo build --release --example starrocks_standin");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ports: Value = serde_json::from_str(&line).unwrap();
        let port = |name: &str| u16::try_from(ports[name].as_u64().unwrap()).unwrap();
        let address = |name| SocketAddr::from(([127, 0, 0, 1], port(name)));
        Self { process, fe: address("fe"), be: address("be"), mysql_port: port("mysql") }
    }

    /// Starts one with the table `shop.orders` of the transcripts.
    pub(crate) fn with_orders() -> Self {
        let standin = Self::start();
        standin.create_orders();
        standin
    }

    /// Makes the table of the transcripts.
    pub(crate) fn create_orders(&self) {
        self.sql("CREATE DATABASE IF NOT EXISTS shop");
        self.sql(
            "CREATE TABLE shop.orders (id BIGINT NOT NULL, note VARCHAR(64) NULL, amount DECIMAL(10,2) NULL) \
             PRIMARY KEY (id) DISTRIBUTED BY HASH (id) PROPERTIES (\"replication_num\" = \"1\")",
        );
    }

    /// A new connection to the MySQL port.
    pub(crate) fn connect(&self, user: &str, password: &str) -> mysql::Result<mysql::Conn> {
        let options = mysql::OptsBuilder::new()
            .ip_or_hostname(Some("127.0.0.1"))
            .tcp_port(self.mysql_port)
            .prefer_socket(false)
            .user(Some(user))
            .pass(Some(password));
        mysql::Conn::new(options)
    }

    /// Runs a statement that must succeed.
    pub(crate) fn sql(&self, statement: &str) {
        self.connect("root", "")
            .unwrap()
            .query_drop(statement)
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// All rows of a query, with values as text and NULL as `NULL`.
    pub(crate) fn query(&self, query: &str) -> Vec<Vec<String>> {
        let rows: Vec<mysql::Row> = self.connect("root", "").unwrap().query(query).unwrap();
        rows.into_iter().map(|row| row.unwrap().iter().map(text).collect()).collect()
    }

    /// The code and message of a statement that must fail.
    pub(crate) fn sql_error(&self, statement: &str) -> (u16, String) {
        match self.connect("root", "").unwrap().query_drop(statement) {
            Err(mysql::Error::MySqlError(error)) => (error.code, error.message),
            other => panic!("{statement}: {other:?}"),
        }
    }

    /// Sends a control request; returns its document.
    pub(crate) fn control(&self, method: &str, command: &str, body: &str) -> Value {
        let head = format!(
            "{method} /standin/{command} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let response = http::exchange(self.fe, &head, body.as_bytes());
        assert_eq!(response.status, "HTTP/1.1 200 OK", "{}", response.body);
        serde_json::from_str(&response.body).unwrap()
    }

    /// Arms a fault.
    pub(crate) fn fault(&self, fault: &str) {
        self.control("POST", "fault", fault);
    }

    /// The state of a label in `shop`.
    pub(crate) fn state(&self, label: &str) -> String {
        let head = format!(
            "GET /api/shop/get_load_state?label={label} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic cm9vdDo=\r\n\r\n"
        );
        let document: Value = serde_json::from_str(&http::exchange(self.fe, &head, b"").body).unwrap();
        document["state"].as_str().unwrap_or("none").to_owned()
    }

    /// Loads rows into `shop.orders`.
    pub(crate) fn load(&self, label: &str, rows: &str) -> Value {
        self.load_with("shop/orders", label, &[("columns", "id,note,amount,__op")], rows)
    }

    /// Loads rows into a table with headers of the caller's.
    pub(crate) fn load_with(&self, table: &str, label: &str, headers: &[(&str, &str)], rows: &str) -> Value {
        let response =
            http::exchange(self.be, &load_head(table, label, headers, rows.len()), rows.as_bytes());
        serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
    }
}

/// The head of a load to the backend.
pub(crate) fn load_head(table: &str, label: &str, headers: &[(&str, &str)], length: usize) -> String {
    let mut head = format!(
        "PUT /api/{table}/_stream_load HTTP/1.1\r\nHost: be\r\nAuthorization: Basic cm9vdDo=\r\nlabel: {label}\r\n\
         format: json\r\nstrict_mode: true\r\nmax_filter_ratio: 0\r\nContent-Length: {length}\r\n"
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

fn text(value: &mysql::Value) -> String {
    match value {
        mysql::Value::NULL => "NULL".into(),
        mysql::Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.as_sql(true),
    }
}

fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/starrocks_standin")
}

impl Drop for Standin {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until a condition holds; fails after ten seconds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// The response of a load as its JSON document.
pub(crate) fn document(response: &Response) -> Value {
    serde_json::from_str(&response.body).unwrap()
}

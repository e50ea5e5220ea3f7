//! Faults: each strikes as described, and no more.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::http::{self, read_response};
use crate::server::{Standin, document, load_head, wait_until};

const ROW: &[u8] = br#"{"id":1,"note":"x"}"#;

fn send(standin: &Standin, label: &str) -> TcpStream {
    let mut stream = http::connect(standin.be);
    stream
        .write_all(load_head("shop/orders", label, &[("columns", "id,note")], ROW.len()).as_bytes())
        .unwrap();
    stream.write_all(ROW).unwrap();
    stream
}

fn count(standin: &Standin) -> String {
    standin.query("SELECT count(*) FROM shop.orders")[0][0].clone()
}

#[test]
fn cut_connections_differ_in_what_became_of_the_load() {
    let standin = Standin::with_orders();
    standin.fault(r#"{"kind": "cut_before_commit"}"#);
    assert!(read_response(&mut send(&standin, "a")).is_none());
    wait_until("the load is aborted", || standin.state("a") == "ABORTED");
    assert_eq!(count(&standin), "0");
    standin.fault(r#"{"kind": "cut_after_commit"}"#);
    assert!(read_response(&mut send(&standin, "a")).is_none());
    assert_eq!((standin.state("a").as_str(), count(&standin).as_str()), ("VISIBLE", "1"));
    assert!(read_response(&mut send(&standin, "b")).is_some());
}

#[test]
fn publish_timeout_is_committed_then_visible() {
    let standin = Standin::with_orders();
    standin.fault(r#"{"kind": "publish_timeout", "value": 300}"#);
    assert_eq!(document(&read_response(&mut send(&standin, "a")).unwrap())["Status"], "Publish Timeout");
    assert_eq!(standin.state("a"), "COMMITTED");
    wait_until("the load is visible", || standin.state("a") == "VISIBLE");
    assert_eq!(count(&standin), "1");
}

#[test]
fn unknown_commit_tells_the_truth_over_the_label() {
    let standin = Standin::with_orders();
    for (truth, state) in [("aborted", "ABORTED"), ("committed", "VISIBLE")] {
        standin.fault(&format!("{{\"kind\": \"fail_commit_unknown\", \"value\": \"{truth}\"}}"));
        let answer = document(&read_response(&mut send(&standin, "a")).unwrap());
        assert!(answer["Message"].as_str().unwrap().contains("Transaction status unknown"));
        assert_eq!(standin.state("a"), state);
    }
}

#[test]
fn hanging_load_is_in_prepare_until_cleared() {
    let standin = Standin::with_orders();
    standin.fault(r#"{"kind": "hang", "times": 1}"#);
    let mut stream = send(&standin, "a");
    wait_until("the load is open", || standin.state("a") == "PREPARE");
    standin.control("DELETE", "fault", "");
    assert_eq!(document(&read_response(&mut stream).unwrap())["Status"], "Success");
}

#[test]
fn cancelled_load_fails_at_its_commit() {
    let standin = Standin::with_orders();
    let mut stream = http::connect(standin.be);
    stream.write_all(load_head("shop/orders", "a", &[("columns", "id,note")], ROW.len()).as_bytes()).unwrap();
    wait_until("the load is open", || standin.state("a") == "PREPARE");
    let head =
        "POST /api/shop/orders/_cancel?label=a HTTP/1.1\r\nHost: x\r\nAuthorization: Basic cm9vdDo=\r\n\r\n";
    assert!(http::exchange(standin.fe, head, b"").body.contains("\"OK\""));
    stream.write_all(ROW).unwrap();
    assert_eq!(document(&read_response(&mut stream).unwrap())["Status"], "Fail");
    assert_eq!((standin.state("a").as_str(), count(&standin).as_str()), ("ABORTED", "0"));
}

#[test]
fn closed_backend_refuses_connections_until_cleared() {
    let standin = Standin::with_orders();
    standin.fault(r#"{"kind": "close_be", "times": -1}"#);
    wait_until("the port is closed", || TcpStream::connect(standin.be).is_err());
    standin.control("DELETE", "fault", "");
    wait_until("the port is open", || TcpStream::connect(standin.be).is_ok());
    assert!(read_response(&mut send(&standin, "a")).is_some());
}

#[test]
fn restart_forgets_open_loads_and_cuts_them() {
    let standin = Standin::with_orders();
    read_response(&mut send(&standin, "done")).unwrap();
    let mut stream = http::connect(standin.be);
    stream.write_all(load_head("shop/orders", "open", &[("columns", "id")], 100).as_bytes()).unwrap();
    wait_until("the load is open", || standin.state("open") == "PREPARE");
    standin.fault(r#"{"kind": "restart"}"#);
    assert!(http::is_closed(&mut stream));
    assert_eq!((standin.state("open").as_str(), standin.state("done").as_str()), ("UNKNOWN", "VISIBLE"));
}

#[test]
fn refused_rows_are_those_that_contain_the_value() {
    let standin = Standin::with_orders();
    standin.fault(r#"{"kind": "refuse_rows", "times": -1, "value": "\"id\":2,"}"#);
    assert_eq!(standin.load("a", r#"{"id":1,"note":"x"}{"id":2,"note":"y"}"#)["NumberFilteredRows"], 1);
    assert_eq!(standin.load("b", r#"{"id":1,"note":"x"}"#)["Status"], "Success");
}

#[test]
fn faults_of_one_line_strike_once() {
    let standin = Standin::with_orders();
    let load = |label: &str| read_response(&mut send(&standin, label)).unwrap();
    for (fault, wanted) in [
        (r#"{"kind": "too_many_versions"}"#, "too many versions"),
        (r#"{"kind": "wrong_password"}"#, "Access denied"),
        (r#"{"kind": "http_500"}"#, "Internal Server Error"),
    ] {
        standin.fault(fault);
        let body = load("a").body;
        assert!(body.contains(wanted), "{fault}: {body}");
    }
    assert_eq!(document(&load("a"))["Status"], "Success");
    standin.fault(r#"{"kind": "label_exists_as_fail"}"#);
    let answer = document(&load("a"));
    assert_eq!(answer["Status"], "Fail");
    assert!(answer["Message"].as_str().unwrap().contains("has already been used"));
}

#[test]
fn redirects_can_lead_nowhere_and_in_circles() {
    let standin = Standin::with_orders();
    let location = |standin: &Standin| {
        let head = load_head("shop/orders", "a", &[("Expect", "100-continue")], 0);
        http::exchange(standin.fe, &head, b"").header("Location").unwrap().to_owned()
    };
    standin.fault(r#"{"kind": "redirect_loop"}"#);
    assert!(location(&standin).contains(&standin.fe.to_string()));
    standin.fault(r#"{"kind": "redirect_dead_host", "value": "nowhere.invalid:8040"}"#);
    assert!(location(&standin).starts_with("http://nowhere.invalid:8040/api"));
    assert!(location(&standin).contains(&standin.be.to_string()));
}

#[test]
fn delays_are_kept() {
    let standin = Standin::with_orders();
    standin.fault(r#"{"kind": "delay_answer", "value": 200}"#);
    let started = Instant::now();
    read_response(&mut send(&standin, "a")).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[test]
fn log_shows_both_hops_and_reset_clears_it() {
    let standin = Standin::with_orders();
    http::exchange(standin.fe, &load_head("shop/orders", "a", &[("Expect", "100-continue")], 0), b"");
    read_response(&mut send(&standin, "a")).unwrap();
    let log = standin.control("GET", "log", "");
    let hops: Vec<(&str, u64)> = log["requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["hop"].as_str().unwrap(), entry["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(hops, [("fe", 307), ("be", 200)]);
    assert_eq!(log["requests"][1]["bytes"], ROW.len());
    assert_eq!(log["requests"][1]["headers"]["columns"], "id,note");
    standin.control("POST", "reset", "");
    assert_eq!(standin.control("GET", "log", "")["requests"].as_array().unwrap().len(), 0);
    assert_eq!((standin.state("a").as_str(), count(&standin).as_str()), ("UNKNOWN", "1"));
}

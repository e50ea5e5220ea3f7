//! Steps against a server that keeps one row, as its statements say.

use std::sync::{Arc, Mutex};

use super::super::config::StarRocksConfig;
use super::super::testing::{SqlReply, SqlServer, Worker, config, fast};
use super::*;
use crate::sink::Sink;
use crate::sink::starrocks::StarRocksSink;

type Stored = Option<[&'static str; 3]>;

/// Keeps the row; the first `invisible` INSERTs are answered and do nothing.
fn server(stored: Stored, invisible: usize) -> (SqlServer, Arc<Mutex<Stored>>) {
    let row = Arc::new(Mutex::new(stored));
    let kept = Arc::clone(&row);
    let left = Mutex::new(invisible);
    let server = SqlServer::start(move |statement| {
        let mut row = row.lock().unwrap();
        match statement.split(' ').next().unwrap() {
            "SELECT" => {
                let values = row.iter().map(|row| row.iter().copied().map(Some).collect()).collect();
                SqlReply::Rows(&["incarnation", "server", "commit_lsn"], values)
            }
            "INSERT" if *left.lock().unwrap() > 0 => {
                *left.lock().unwrap() -= 1;
                SqlReply::Done
            }
            "INSERT" => {
                let text: &'static str = statement.to_owned().leak();
                let values: Vec<&'static str> = text.split('\'').collect();
                *row = Some([values[3], values[5], values[7]]);
                SqlReply::Done
            }
            "DELETE" => {
                *row = None;
                SqlReply::Done
            }
            _ => SqlReply::Done,
        }
    });
    (server, kept)
}

fn sink(server: &SqlServer) -> StarRocksSink {
    let config = StarRocksConfig { sql_port: server.port, ..config(&["http://127.0.0.1:9"]) };
    StarRocksSink::with_pace(Arc::new(config), fast()).unwrap()
}

fn row(incarnation: u64, commit_lsn: u64) -> OwnerRow {
    let (mirror, server) = ("shop".to_owned(), "7/5".to_owned());
    OwnerRow { mirror, incarnation, server, commit_lsn: Lsn(commit_lsn) }
}

const OURS: [&str; 3] = ["0000000000000001", "7/5", "0/64"];
const THEIRS: [&str; 3] = ["0000000000000001", "8/5", "0/64"];

fn done(server: &SqlServer, step: &OwnerStep) -> Option<OwnerRow> {
    sink(server).own("target", step, &Worker::default()).unwrap()
}

#[test]
fn look_makes_the_table_and_changes_no_row() {
    let (server, kept) = server(Some(OURS), 0);
    assert_eq!(done(&server, &OwnerStep::Look { mirror: "shop".to_owned() }), Some(row(1, 100)));
    assert!(server.statements()[1].starts_with("CREATE TABLE IF NOT EXISTS `target`.`dbmazz_owner`"));
    assert_eq!(*kept.lock().unwrap(), Some(OURS));
}

#[test]
fn advance_writes_over_a_row_of_this_server_only() {
    let (own, kept) = server(Some(OURS), 0);
    let advance = OwnerStep::Advance { row: row(2, 200), known: vec![1, 2] };
    assert_eq!(done(&own, &advance), Some(row(1, 100)));
    assert_eq!(*kept.lock().unwrap(), Some(["0000000000000002", "7/5", "0/C8"]));

    let strangers = [Some(THEIRS), Some(["0000000000000009", "7/5", "0/64"]), None];
    for stored in strangers {
        let (foreign, kept) = server(stored, 0);
        done(&foreign, &advance);
        assert_eq!(*kept.lock().unwrap(), stored);
    }
}

#[test]
fn step_is_repeated_until_the_row_is_visible() {
    let (server, kept) = server(Some(OURS), 1);
    let worker = Worker::default();
    assert!(sink(&server).own("target", &OwnerStep::Claim(row(2, 200)), &worker).is_ok());
    assert_eq!(*kept.lock().unwrap(), Some(["0000000000000002", "7/5", "0/C8"]));
    assert_eq!(worker.reasons().len(), 1, "{:?}", worker.reasons());
}

#[test]
fn release_leaves_what_another_server_has() {
    let release = OwnerStep::Release { mirror: "shop".to_owned(), server: "7/5".to_owned() };
    for (stored, left) in [(OURS, None), (THEIRS, Some(THEIRS))] {
        let (server, kept) = server(Some(stored), 0);
        done(&server, &release);
        assert_eq!(*kept.lock().unwrap(), left);
    }
}

#[test]
fn row_that_nobody_of_us_wrote_is_malformed() {
    let (server, _) = server(Some(["none", "7/5", "0/64"]), 0);
    let step = OwnerStep::Look { mirror: "shop".to_owned() };
    let told = sink(&server).own("target", &step, &Worker::default());
    assert!(matches!(told, Err(StatementError::Malformed { .. })), "{told:?}");
}

/// The tables that are dropped when a claim is given back, of two that are there: one is a mirror's.
fn dropped_with_a_claim_of(owner: &'static str) -> Vec<String> {
    let server = SqlServer::start(move |statement| match statement {
        _ if statement.starts_with("SELECT `incarnation`") => {
            let values = vec![vec![Some("0000000000000001"), Some(owner), Some("0/64")]];
            SqlReply::Rows(&["incarnation", "server", "commit_lsn"], values)
        }
        _ if statement.starts_with("SELECT table_name") => {
            SqlReply::Rows(&["table_name"], vec![vec![Some("it")]])
        }
        _ if statement.starts_with("SHOW CREATE TABLE `shop`.`ours`") => {
            let create =
                "CREATE TABLE `ours` (…)\nCOMMENT \"mirrored by dbmazz from public.orders (copy 7)\"";
            SqlReply::Rows(&["Table", "Create Table"], vec![vec![Some("ours"), Some(create)]])
        }
        _ if statement.starts_with("SHOW") => {
            SqlReply::Rows(&["Table", "Create Table"], vec![vec![Some("it"), Some("CREATE TABLE `it` (…)")]])
        }
        _ => SqlReply::Done,
    });
    let config = StarRocksConfig { sql_port: server.port, ..config(&["http://127.0.0.1:9"]) };
    let copies =
        ["ours", "its"].map(|table| TargetTable { database: "shop".to_owned(), table: table.to_owned() });
    release_claim(&config, "shop", "7/5", &copies).unwrap();
    let changes = server.statements().into_iter().filter(|it| !it.starts_with('S'));
    changes.collect()
}

#[test]
fn tables_that_were_being_filled_go_with_the_claim() {
    let [dropped, released] = dropped_with_a_claim_of("7/5").try_into().unwrap();
    assert_eq!(dropped, "DROP TABLE IF EXISTS `shop`.`ours`");
    assert!(released.starts_with("DELETE"), "{released}");
    assert_eq!(dropped_with_a_claim_of("8/5"), Vec::<String>::new());
}

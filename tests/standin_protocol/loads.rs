//! What loads do to tables.

use std::io::Write;

use crate::http::{self, read_response};
use crate::server::{Standin, document, load_head, wait_until};

fn orders(standin: &Standin) -> Vec<Vec<String>> {
    standin.query("SELECT * FROM shop.orders ORDER BY id")
}

#[test]
fn last_row_of_a_key_wins_and_deletes_of_absent_keys_succeed() {
    let standin = Standin::with_orders();
    let answer = standin.load(
        "a",
        r#"{"id":1,"note":"x"}{"id":1,"__op":1}{"id":2,"note":"y"}{"id":1,"note":"z"}{"id":2,"__op":1}{"id":9,"__op":1}"#,
    );
    assert_eq!((answer["Status"].as_str(), answer["NumberLoadedRows"].as_u64()), (Some("Success"), Some(6)));
    assert_eq!(orders(&standin), [["1", "z", "NULL"]]);
}

#[test]
fn partial_update_keeps_the_other_columns() {
    let standin = Standin::with_orders();
    standin.load("a", r#"{"id":1,"note":"x","amount":"1.5"}"#);
    let partial = [("columns", "id,note"), ("partial_update", "true")];
    let answer =
        standin.load_with("shop/orders", "b", &partial, r#"{"id":1,"note":"new"}{"id":2,"note":"born"}"#);
    assert_eq!(answer["Status"], "Success");
    assert_eq!(orders(&standin), [["1", "new", "1.50"], ["2", "born", "NULL"]]);
}

#[test]
fn full_upsert_nulls_what_is_not_listed() {
    let standin = Standin::with_orders();
    standin.load("a", r#"{"id":1,"note":"x","amount":"1.5"}"#);
    standin.load_with("shop/orders", "b", &[("columns", "id,note")], r#"{"id":1,"note":"new"}"#);
    assert_eq!(orders(&standin), [["1", "new", "NULL"]]);
}

#[test]
fn failed_load_leaves_nothing_behind_and_explains_itself() {
    let standin = Standin::with_orders();
    let answer = standin.load("a", r#"{"id":1,"note":"x"}{"id":null,"note":"y"}"#);
    assert_eq!(answer["Message"], "too many filtered rows");
    assert_eq!(orders(&standin), Vec::<Vec<String>>::new());
    let url = answer["ErrorURL"].as_str().unwrap();
    let path = url.split_once("/api").unwrap().1;
    let samples =
        http::exchange(standin.be, &format!("GET /api{path} HTTP/1.1\r\nHost: x\r\n\r\n"), b"").body;
    assert!(samples.contains("NULL value in non-nullable column 'id'"), "{samples}");
    // The label of a failed load is free.
    assert_eq!(standin.load("a", r#"{"id":1,"note":"x"}"#)["Status"], "Success");
}

#[test]
fn malformed_row_fails_the_load_whatever_the_ratio() {
    let standin = Standin::with_orders();
    let headers = [("columns", "id"), ("max_filter_ratio", "1")];
    let answer = standin.load_with("shop/orders", "a", &headers, "{\"id\":1}\n{\"id\":");
    assert_eq!(answer["Status"], "Fail");
    assert_eq!(orders(&standin).len(), 0);
}

#[test]
fn compressed_and_chunked_bodies_are_read() {
    let standin = Standin::with_orders();
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(br#"{"id":1,"note":"lz4"}"#).unwrap();
    let body = encoder.finish().unwrap();
    let headers = [("columns", "id,note"), ("compression", "lz4_frame")];
    let response = http::exchange(standin.be, &load_head("shop/orders", "a", &headers, body.len()), &body);
    assert_eq!(document(&response)["Status"], "Success", "{}", response.body);
    let head = load_head("shop/orders", "b", &[("columns", "id,note")], 0)
        .replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let chunks = b"14\r\n{\"id\":2,\"note\":\"chun\r\n4\r\nks\"}\r\n0\r\n\r\n";
    assert_eq!(document(&http::exchange(standin.be, &head, chunks))["Status"], "Success");
    let notes = standin.query("SELECT note FROM shop.orders ORDER BY id");
    assert_eq!(notes, [["lz4"], ["chunks"]]);
}

#[test]
fn truncate_makes_a_running_load_vanish() {
    let standin = Standin::with_orders();
    let row = br#"{"id":7,"note":"lost"}"#;
    let mut stream = http::connect(standin.be);
    stream.write_all(load_head("shop/orders", "a", &[("columns", "id,note")], row.len()).as_bytes()).unwrap();
    wait_until("the load is open", || standin.state("a") == "PREPARE");
    standin.sql("TRUNCATE TABLE shop.orders");
    stream.write_all(row).unwrap();
    assert_eq!(document(&read_response(&mut stream).unwrap())["Status"], "Success");
    assert_eq!(orders(&standin).len(), 0);
}

#[test]
fn every_type_comes_back_as_it_was_loaded() {
    let standin = Standin::start();
    standin.sql("CREATE DATABASE shop");
    standin.sql(
        "CREATE TABLE shop.every (k VARCHAR(20) NOT NULL, b BOOLEAN, t TINYINT, s SMALLINT, i INT, l BIGINT, h LARGEINT, \
         f FLOAT, d DOUBLE, m DECIMAL(38,10), da DATE, dt DATETIME, v VARCHAR(10), bin VARBINARY, j JSON, a ARRAY<INT>) \
         PRIMARY KEY (k) DISTRIBUTED BY HASH (k) PROPERTIES (\"replication_num\" = \"1\")",
    );
    let columns = "k,b,t,s,i,l,h,f,d,m,da,dt,v,hex,bin=to_binary(hex,'hex'),j,a";
    let row = r#"{"k":"one","b":true,"t":-128,"s":32767,"i":-5,"l":9223372036854775807,
        "h":"-170141183460469231731687303715884105728","f":0.1,"d":1e300,"m":"1234567890123456789012345678.0123456789",
        "da":"2026-11-20","dt":"2026-11-20 01:02:03.5","v":"é\n\"","hex":"00ff","j":{"a":[1,null]},"a":[1,2]}"#;
    let answer = standin.load_with("shop/every", "a", &[("columns", columns)], row);
    assert_eq!(answer["Status"], "Success", "{answer}");
    let mut connection = standin.connect("root", "").unwrap();
    let plain: mysql::Row = query_one(&mut connection, "SELECT * FROM shop.every");
    let texts: Vec<mysql::Value> = plain.unwrap();
    let text = |value: &str| mysql::Value::Bytes(value.as_bytes().to_vec());
    assert_eq!(texts[1], text("1"));
    assert_eq!(texts[6], text("-170141183460469231731687303715884105728"));
    assert_eq!(texts[7], text("0.1"));
    assert_eq!(texts[9], text("1234567890123456789012345678.0123456789"));
    assert_eq!(texts[11], text("2026-11-20 01:02:03.500000"));
    assert_eq!(texts[12], text("é\n\""));
    assert_eq!(texts[13], mysql::Value::Bytes(vec![0, 255]));
    assert_eq!(texts[14], text(r#"{"a":[1,null]}"#));
    let binary: mysql::Row = exec_one(&mut connection, "SELECT * FROM shop.every WHERE k = ?", "one");
    let values: Vec<mysql::Value> = binary.unwrap();
    assert_eq!(values[2], mysql::Value::Int(-128));
    assert_eq!(values[5], mysql::Value::Int(i64::MAX));
    assert_eq!(values[7], mysql::Value::Float(0.1));
    assert_eq!(values[8], mysql::Value::Double(1e300));
    assert_eq!(values[10], mysql::Value::Date(2026, 11, 20, 0, 0, 0, 0));
    assert_eq!(values[11], mysql::Value::Date(2026, 11, 20, 1, 2, 3, 500_000));
    assert_eq!(values[9], texts[9]);
}

fn query_one(connection: &mut mysql::Conn, sql: &str) -> mysql::Row {
    use mysql::prelude::Queryable;
    connection.query_first(sql).unwrap().unwrap()
}

fn exec_one(connection: &mut mysql::Conn, sql: &str, parameter: &str) -> mysql::Row {
    use mysql::prelude::Queryable;
    connection.exec_first(sql, (parameter,)).unwrap().unwrap()
}

#[test]
fn storage_off_counts_and_keeps_nothing() {
    let standin = Standin::start_with(&["--storage", "off"]);
    standin.create_orders();
    let answer = standin.load("a", "{\"id\":1,\"note\":\"x\"}\n{\"id\":2,\"__op\":1}\n");
    assert_eq!((answer["Status"].as_str(), answer["NumberLoadedRows"].as_u64()), (Some("Success"), Some(2)));
    assert_eq!(standin.load("b", "{\"note\":\"x\"}")["Message"], "too many filtered rows");
    let counts = standin.control("GET", "counts", "");
    let table = &counts["tables"]["shop.orders"];
    assert_eq!((table["upserts"].as_u64(), table["deletes"].as_u64()), (Some(1), Some(1)));
    assert_eq!((table["loads"].as_u64(), table["failed_loads"].as_u64()), (Some(1), Some(1)));
    assert_eq!(standin.query("SELECT count(*) FROM shop.orders"), [["0"]]);
}

#[test]
fn evicted_label_can_be_loaded_twice() {
    let standin = Standin::with_orders();
    standin.control("POST", "label_keep", r#"{"max": 1}"#);
    standin.load("a", r#"{"id":1}"#);
    assert_eq!(standin.load("a", r#"{"id":1}"#)["Status"], "Label Already Exists");
    standin.load("b", r#"{"id":1}"#);
    assert_eq!(standin.state("a"), "UNKNOWN");
    assert_eq!(standin.load("a", r#"{"id":1}"#)["Status"], "Success");
}

#[test]
fn data_directory_survives_a_restart() {
    let directory = std::env::temp_dir().join(format!("standin-{}", std::process::id()));
    let path = directory.to_str().unwrap();
    let first = Standin::start_with(&["--data-dir", path]);
    first.create_orders();
    first.load("a", r#"{"id":1,"note":"kept"}"#);
    drop(first);
    let second = Standin::start_with(&["--data-dir", path]);
    let rows = orders(&second);
    drop(second);
    std::fs::remove_dir_all(directory).unwrap();
    assert_eq!(rows, [["1", "kept", "NULL"]]);
}

/// `cargo test --release --test standin_protocol -- --ignored --nocapture speed`
#[test]
#[ignore = "a measurement"]
fn speed_of_loads() {
    for arguments in [&[][..], &["--storage", "off"]] {
        let standin = Standin::start_with(arguments);
        standin.create_orders();
        let started = std::time::Instant::now();
        let mut sending = std::time::Duration::ZERO;
        for load in 0..10u64 {
            let row = |id: u64| {
                format!(
                    "{{\"id\":{id},\"note\":\"note {id} of a row\",\"amount\":\"{}.{:02}\",\"__op\":0}}\n",
                    id % 9999,
                    id % 100
                )
            };
            let rows: String = (0..100_000).map(|n| row((n * 7919 + load * 50_000) % 600_000)).collect();
            let sent = std::time::Instant::now();
            assert_eq!(standin.load(&format!("l{load}"), &rows)["Status"], "Success");
            sending += sent.elapsed();
        }
        println!(
            "{arguments:?}: 1000000 rows in {:.2} s of {:.2} s",
            sending.as_secs_f64(),
            started.elapsed().as_secs_f64()
        );
    }
}

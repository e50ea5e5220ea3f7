//! The MySQL port: DDL, queries, errors.

use std::io::Write;

use mysql::prelude::Queryable;

use crate::http;
use crate::server::{Standin, load_head, wait_until};

#[test]
fn errors_have_starrocks_codes() {
    let standin = Standin::with_orders();
    let code = |statement: &str| standin.sql_error(statement).0;
    assert_eq!(code("CREATE DATABASE shop"), 1007);
    assert_eq!(code("SELECT * FROM orders"), 1046);
    assert_eq!(code("CREATE TABLE shop.orders (a INT) PRIMARY KEY (a) DISTRIBUTED BY HASH (a)"), 1050);
    assert_eq!(code("ALTER TABLE shop.orders ADD COLUMN note INT"), 1060);
    assert_eq!(code("SELECT * FROM nodb.orders"), 5501);
    assert_eq!(code("SELECT * FROM shop.nope"), 5502);
    assert_eq!(code("USE nodb"), 5501);
    let (code, message) =
        standin.sql_error("CREATE TABLE shop.t (a INT) PRIMARY KEY (a) DISTRIBUTED BY HASH (a)");
    assert!(code == 1064 && message.contains("replication num"), "{message}");
    let (code, message) = standin.sql_error("SELECT `nope` FROM shop.orders");
    assert!(code == 1064 && message.contains("nope"), "{message}");
    let (code, message) = standin.sql_error("FROB x");
    assert!(code == 1064 && message.contains("Getting syntax error"), "{message}");
}

#[test]
fn wrong_password_is_refused_with_its_code() {
    let standin = Standin::start_with(&["--user", "cdc", "--password", "se:cret"]);
    assert!(standin.connect("cdc", "se:cret").is_ok());
    for (user, password) in [("cdc", ""), ("cdc", "wrong"), ("root", "se:cret")] {
        match standin.connect(user, password) {
            Err(mysql::Error::MySqlError(error)) => assert_eq!(error.code, 1045, "{user} {password}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{user} {password} was let in"),
        }
    }
}

#[test]
fn ddl_cannot_be_prepared() {
    let standin = Standin::with_orders();
    let mut connection = standin.connect("root", "").unwrap();
    assert!(connection.prep("CREATE DATABASE x").is_err());
    let count: Option<i64> =
        connection.exec_first("SELECT count(*) FROM shop.orders WHERE id > ?", (0,)).unwrap();
    assert_eq!(count, Some(0));
}

#[test]
fn columns_are_described_in_every_way() {
    let standin = Standin::with_orders();
    assert_eq!(standin.query("DESC shop.orders")[0], ["id", "bigint(20)", "NO", "true", "NULL", ""]);
    let found = standin.query(
        "SELECT column_name, data_type, column_type, column_key, is_nullable, ordinal_position \
         FROM information_schema.columns WHERE table_schema='shop' AND table_name=\"orders\" ORDER BY ordinal_position",
    );
    assert_eq!(found[0], ["id", "bigint", "bigint(20)", "PRI", "NO", "1"]);
    assert_eq!(found[2], ["amount", "decimal", "decimal(10,2)", "", "YES", "3"]);
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop'";
    assert_eq!(standin.query(tables), [["orders"]]);
    assert_eq!(standin.query("SHOW TABLES FROM shop"), [["orders"]]);
    assert!(standin.query("SHOW DATABASES").contains(&vec!["shop".to_owned()]));
    assert!(standin.query("SHOW CREATE TABLE shop.orders")[0][1].contains("PRIMARY KEY(`id`)"));
}

#[test]
fn shown_table_can_be_created_from_its_text() {
    let standin = Standin::with_orders();
    let text = standin.query("SHOW CREATE TABLE shop.orders")[0][1].clone();
    standin.sql("DROP TABLE shop.orders");
    standin
        .connect("root", "")
        .and_then(|mut connection| {
            connection.query_drop("USE shop")?;
            connection.query_drop(text)
        })
        .unwrap();
    assert_eq!(standin.query("DESC shop.orders").len(), 3);
}

#[test]
fn names_are_told_apart_by_case_and_may_be_anything() {
    let standin = Standin::start();
    standin.sql("CREATE DATABASE `sh-op`");
    for table in ["Orders", "orders", "group", "a b\"c"] {
        standin.sql(&format!(
            "CREATE TABLE `sh-op`.`{table}` (`order` INT NOT NULL, `x y` VARCHAR(5)) PRIMARY KEY (`order`) \
             DISTRIBUTED BY HASH (`order`) PROPERTIES (\"replication_num\"=\"1\")"
        ));
    }
    standin.sql("INSERT INTO `sh-op`.`Orders` VALUES (1, 'big'), (2, NULL)");
    assert_eq!(standin.query("SELECT count(*) FROM `sh-op`.`orders`"), [["0"]]);
    let joined = "SELECT o.`x y`, `Orders`.`ORDER` FROM `sh-op`.`Orders` JOIN `sh-op`.`Orders` AS o \
                  ON o.`order` = `Orders`.`order` WHERE o.`x y` IS NOT NULL";
    assert_eq!(standin.query(joined), [["big", "1"]]);
    assert_eq!(
        standin.query("SELECT `order` FROM `sh-op`.Orders WHERE `x y` LIKE 'BI%'"),
        Vec::<Vec<String>>::new()
    );
    standin.sql("DELETE FROM `sh-op`.`Orders` WHERE `x y` = \"big\"");
    assert_eq!(standin.query("SELECT `order` FROM `sh-op`.Orders"), [["2"]]);
}

#[test]
fn decimals_are_compared_and_summed_exactly() {
    let standin = Standin::with_orders();
    let rows: String = (0..1000).map(|id| format!("{{\"id\":{id},\"amount\":\"{id}.01\"}}")).collect();
    standin.load("a", &rows);
    assert_eq!(standin.query("SELECT sum(amount) FROM shop.orders"), [["499510.00"]]);
    assert_eq!(standin.query("SELECT max(amount), min(amount) FROM shop.orders"), [["999.01", "0.01"]]);
    assert_eq!(standin.query("SELECT count(*) FROM shop.orders WHERE amount > 99.5"), [["900"]]);
    assert_eq!(standin.query("SELECT id FROM shop.orders WHERE amount = '7.010'"), [["7"]]);
    assert_eq!(standin.query("SELECT id FROM shop.orders ORDER BY amount DESC LIMIT 1"), [["999"]]);
}

#[test]
fn columns_can_be_added_dropped_and_renamed() {
    let standin = Standin::with_orders();
    standin.load("a", r#"{"id":1,"note":"x","amount":"2"}"#);
    standin.sql("ALTER TABLE shop.orders ADD COLUMN state VARCHAR(10) NOT NULL DEFAULT \"new\" AFTER id");
    standin.sql("ALTER TABLE shop.orders RENAME COLUMN note TO remark");
    standin.sql("ALTER TABLE shop.orders DROP COLUMN amount");
    assert_eq!(standin.query("SELECT * FROM shop.orders"), [["1", "new", "x"]]);
    let job = "SHOW ALTER TABLE COLUMN FROM shop WHERE TableName='orders' ORDER BY CreateTime DESC LIMIT 1";
    let jobs: Vec<mysql::Row> = standin.connect("root", "").unwrap().query(job).unwrap();
    assert_eq!(jobs[0].get::<String, _>("State").unwrap(), "FINISHED");
    let answer = standin.load_with("shop/orders", "b", &[("columns", "id,note")], r#"{"id":1}"#);
    assert!(answer["Message"].as_str().unwrap().contains("not in table"));
}

#[test]
fn slow_schema_change_waits_for_open_loads() {
    let standin = Standin::start();
    standin.sql("CREATE DATABASE shop");
    standin.sql(
        "CREATE TABLE shop.orders (id BIGINT NOT NULL, note VARCHAR(64)) PRIMARY KEY (id) DISTRIBUTED BY HASH (id) \
         PROPERTIES (\"replication_num\" = \"1\", \"fast_schema_evolution\" = \"false\")",
    );
    let row = br#"{"id":1,"note":"in time"}"#;
    let mut stream = http::connect(standin.be);
    stream.write_all(load_head("shop/orders", "a", &[("columns", "id,note")], row.len()).as_bytes()).unwrap();
    wait_until("the load is open", || standin.state("a") == "PREPARE");
    standin.sql("ALTER TABLE shop.orders ADD COLUMN x INT NULL");
    let state = || standin.query("SHOW ALTER TABLE COLUMN FROM shop")[0][9].clone();
    assert_eq!(state(), "WAITING_TXN");
    assert!(standin.sql_error("ALTER TABLE shop.orders ADD COLUMN y INT").1.contains("in progress"));
    assert_eq!(standin.sql_error("TRUNCATE TABLE shop.orders").0, 5014);
    stream.write_all(row).unwrap();
    wait_until("the schema change is finished", || state() == "FINISHED");
    assert_eq!(standin.query("SELECT * FROM shop.orders"), [["1", "in time", "NULL"]]);
}

#[test]
fn type_changes_rewrite_the_rows_or_are_cancelled() {
    let standin = Standin::with_orders();
    standin.load("a", r#"{"id":1,"note":"17","amount":"2.5"}{"id":2,"note":null,"amount":null}"#);
    let last_job = || {
        let job =
            "SHOW ALTER TABLE COLUMN FROM shop WHERE TableName='orders' ORDER BY CreateTime DESC LIMIT 1";
        standin.query(job)[0][9].clone()
    };
    standin.sql(
        "ALTER TABLE shop.orders MODIFY COLUMN note BIGINT NULL, MODIFY COLUMN amount DECIMAL(20,4) NULL",
    );
    wait_until("the types are changed", || last_job() == "FINISHED");
    assert_eq!(standin.query("SELECT * FROM shop.orders"), [["1", "17", "2.5000"], ["2", "NULL", "NULL"]]);
    standin.sql("ALTER TABLE shop.orders MODIFY COLUMN note VARCHAR(20) NULL");
    wait_until("the type is changed back", || last_job() == "FINISHED");
    standin.load("b", r#"{"id":3,"note":"x"}"#);
    standin.sql("ALTER TABLE shop.orders MODIFY COLUMN note BIGINT NULL");
    wait_until("the change is cancelled", || last_job() == "CANCELLED");
    assert_eq!(standin.query("SELECT note FROM shop.orders"), [["17"], ["NULL"], ["x"]]);
}

#[test]
fn load_that_was_open_during_a_change_goes_into_the_new_layout() {
    let standin = Standin::with_orders();
    let row = br#"{"id":1,"note":"x"}"#;
    let mut stream = http::connect(standin.be);
    stream.write_all(load_head("shop/orders", "a", &[("columns", "id,note")], row.len()).as_bytes()).unwrap();
    wait_until("the load is open", || standin.state("a") == "PREPARE");
    standin.sql("ALTER TABLE shop.orders ADD COLUMN x INT NOT NULL DEFAULT \"7\", DROP COLUMN amount");
    stream.write_all(row).unwrap();
    http::read_response(&mut stream).unwrap();
    assert_eq!(standin.query("SELECT * FROM shop.orders"), [["1", "x", "7"]]);
}

#[test]
fn client_variables_and_functions_are_answered() {
    let standin = Standin::start();
    assert_eq!(standin.query("SELECT @@version, @@max_allowed_packet"), [["8.0.33", "33554432"]]);
    assert!(standin.query("SELECT current_version()")[0][0].starts_with('3'));
    let mut connection = standin.connect("root", "").unwrap();
    connection.query_drop("SET query_timeout = 10").unwrap();
    assert!(connection.ping().is_ok());
}

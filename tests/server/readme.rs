//! The quick start of the README runs as it is printed, but for the addresses.

use crate::harness::{Outcome, Pair, StarRocks};
use crate::shared_cluster;

const README: &str = include_str!("../../README.md");

/// The first block of SQL.
fn quick_start() -> &'static str {
    let block = README.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next());
    block.unwrap_or_default()
}

/// Statements of the block; comments may hold anything but a semicolon at the end of a line.
fn statements(block: &str) -> impl Iterator<Item = &str> {
    block.split(";\n").map(str::trim).filter(|statement| !statement.is_empty())
}

#[test]
fn the_quick_start_runs_as_printed() -> Outcome {
    let mut pair = Pair::without_server(&shared_cluster(), StarRocks::start()?)?;
    pair.source.execute(
        "DROP EXTENSION dbmazz; CREATE TABLE orders (id bigint PRIMARY KEY, total numeric(10,2));
         CREATE TABLE customers (id bigint PRIMARY KEY, name text); INSERT INTO customers VALUES (1, 'first')",
    )?;
    let (host, password) = (pair.starrocks.host().to_owned(), pair.starrocks.password().to_owned());
    let block = quick_start()
        .replace("http://fe1:8030,http://fe2:8030", &format!("http://{host}:{}", pair.starrocks.fe_port()))
        .replace("sql_host 'fe1'", &format!("sql_host '{host}'"))
        .replace("'9030'", &format!("'{}'", pair.starrocks.sql_port()))
        .replace("database 'shop'", &format!("database '{}'", pair.target.database()))
        .replace("password ''", &format!("password '{password}'"));
    assert!(statements(&block).count() >= 5, "the README has lost its quick start");
    for statement in statements(&block) {
        pair.source.execute(statement)?;
    }
    pair.source.execute("INSERT INTO orders VALUES (1, 9.99)")?;
    assert!(pair.source.is_true("SELECT dbmazz_wait_mirror('shop')")?);
    let compared = pair.compare(&crate::harness::Comparison::of("orders"));
    compared.and_then(|()| pair.compare(&crate::harness::Comparison::of("customers")))
}

#[test]
fn a_server_without_replication_num_suits_a_target_with_one_backend() -> Outcome {
    let mut pair = Pair::without_server(&shared_cluster(), StarRocks::start()?)?;
    let options = pair.server_options();
    let options = options.replace(", replication_num '1'", "");
    assert!(!options.contains("replication_num"));
    pair.create_server("starrocks", &options)?;
    pair.source
        .execute("CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (1, 'one')")?;
    pair.start_mirror(&["item"])?;
    pair.source.execute("INSERT INTO item VALUES (2, 'two')")?;
    pair.wait_and_compare(&["item"])
}

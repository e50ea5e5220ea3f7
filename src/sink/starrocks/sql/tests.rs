//! Statements against a server of the MySQL protocol that answers as the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::testing::{SqlReply, SqlServer, Worker, config, fast};
use super::*;
use crate::definition::AlterStep;
use crate::sink::starrocks::{StarRocksSink, check, ddl};
use crate::sink::{Sink, TableMatch};
use crate::table::{Column, Kind, SourceColumn, TableSpec, TargetTable};

fn reaching(server: &SqlServer) -> StarRocksConfig {
    StarRocksConfig { sql_port: server.port, ..config(&["http://127.0.0.1:9"]) }
}

fn sink(server: &SqlServer) -> StarRocksSink {
    StarRocksSink::with_pace(Arc::new(reaching(server)), fast()).unwrap()
}

fn spec() -> TableSpec {
    let column = |name: &str, target_type: &str| {
        let source = SourceColumn { attnum: 1, name: name.to_owned(), type_oid: 20, typmod: -1 };
        Column { source, name: name.to_owned(), kind: Kind::Int, target_type: target_type.to_owned() }
    };
    TableSpec {
        relid: 1,
        source_name: "public.orders".to_owned(),
        target: TargetTable { database: "shop".to_owned(), table: "orders".to_owned() },
        columns: vec![column("id", "BIGINT"), column("n", "INT")],
        key_len: 1,
    }
}

/// A server that has the table, as `SHOW CREATE TABLE` tells it.
fn with_table(create: &'static str, type_of_n: &'static str) -> SqlServer {
    with_table_of(create, type_of_n, 1)
}

fn with_table_of(create: &'static str, type_of_n: &'static str, rows: usize) -> SqlServer {
    SqlServer::start(move |statement| {
        let described = |rows| SqlReply::Rows(&["Field", "Type", "Null", "Key", "Default", "Extra"], rows);
        match statement.split_whitespace().next().unwrap() {
            "SELECT" if statement.starts_with("SELECT 1 ") => {
                SqlReply::Rows(&["1"], vec![vec![Some("1")]; rows])
            }
            "SELECT" => SqlReply::Rows(&["something"], vec![vec![Some("orders")]]),
            "DESC" => described(vec![
                vec![Some("id"), Some("bigint(20)"), Some("NO"), Some("true"), None, Some("")],
                vec![Some("n"), Some(type_of_n), Some("YES"), Some("false"), None, Some("")],
            ]),
            "SHOW" => SqlReply::Rows(&["Table", "Create Table"], vec![vec![Some("orders"), Some(create)]]),
            _ => SqlReply::Done,
        }
    })
}

/// One that a mirror has made.
const OURS: &str = "CREATE TABLE `orders` (\n  `id` bigint(20) NOT NULL,\n  `n` int(11) NULL\n) ENGINE=OLAP \n\
                    PRIMARY KEY(`id`)\nCOMMENT \"mirrored by dbmazz from public.orders\"\nDISTRIBUTED BY HASH(`id`)";

const PRIMARY: &str = "CREATE TABLE `orders` (\n  `id` bigint(20) NOT NULL,\n  `n` int(11) NULL\n) ENGINE=OLAP \n\
                       PRIMARY KEY(`id`)\nDISTRIBUTED BY HASH(`id`)";

#[test]
fn missing_table_is_created_with_its_database() {
    let server = SqlServer::start(|statement| {
        let is_question = statement.starts_with("SELECT");
        if is_question { SqlReply::Rows(&["table_name"], vec![]) } else { SqlReply::Done }
    });
    let created = sink(&server).prepare(&spec(), &Worker::default());
    assert_eq!(created, Ok(TableMatch::Created));
    let statements = server.statements();
    assert_eq!(statements[0], "CREATE DATABASE IF NOT EXISTS `shop`");
    assert_eq!(statements[2], ddl::create_table_statement(&spec(), Some(1), ddl::Evolution::Fast));
    assert_eq!(statements.len(), 3);
}

#[test]
fn server_that_does_not_know_a_property_is_asked_without_it() {
    let server = SqlServer::start(|statement| match statement {
        _ if statement.starts_with("SELECT") => SqlReply::Rows(&["table_name"], vec![]),
        _ if statement.contains("fast_schema_evolution") => {
            SqlReply::Error(1064, "Getting analyzing error. Unknown properties: {fast_schema_evolution=true}")
        }
        _ => SqlReply::Done,
    });
    assert_eq!(sink(&server).prepare(&spec(), &Worker::default()), Ok(TableMatch::Created));
    assert_eq!(server.statements().len(), 4);
}

#[test]
fn table_that_is_there_is_compared_and_not_touched() {
    let fitting = with_table(OURS, "int(11)");
    assert_eq!(sink(&fitting).prepare(&spec(), &Worker::default()), Ok(TableMatch::Replaceable));
    assert!(fitting.statements().iter().all(|statement| !statement.starts_with("CREATE TABLE")));

    let other_type = with_table(PRIMARY, "date");
    let expected = TableMatch::Differs("its column \"n\" is date, not INT".to_owned());
    assert_eq!(sink(&other_type).prepare(&spec(), &Worker::default()), Ok(expected));

    let duplicate_key = with_table("CREATE TABLE `orders` (…) ENGINE=OLAP \nDUPLICATE KEY(`id`)", "int");
    let expected = TableMatch::Differs("it is not a Primary Key table".to_owned());
    assert_eq!(sink(&duplicate_key).prepare(&spec(), &Worker::default()), Ok(expected));
}

#[test]
fn table_of_a_mirror_with_other_columns_is_told_apart_by_its_rows() {
    let prepare = |rows| sink(&with_table_of(OURS, "date", rows)).prepare(&spec(), &Worker::default());
    let how = || "its column \"n\" is date, not INT".to_owned();
    assert_eq!(prepare(0), Ok(TableMatch::Unused(how())));
    assert_eq!(prepare(1), Ok(TableMatch::Outdated(how())));
}

#[test]
fn rows_that_no_mirror_has_put_there_are_noticed() {
    let occupied = with_table(PRIMARY, "int(11)");
    assert_eq!(sink(&occupied).prepare(&spec(), &Worker::default()), Ok(TableMatch::Occupied));
}

#[test]
fn one_replica_is_taken_where_nobody_said_how_many_and_the_default_is_too_many() {
    let refuse = |statement: &str| match statement {
        _ if statement.starts_with("SELECT") => SqlReply::Rows(&["table_name"], vec![]),
        _ if statement.starts_with("CREATE TABLE") && !statement.contains("\"replication_num\" = \"1\"") => {
            SqlReply::Error(
                1064,
                "Table replication num should be less than or equal to the number of available BE nodes",
            )
        }
        _ => SqlReply::Done,
    };
    let unsaid = SqlServer::start(refuse);
    let without = StarRocksConfig { replication_num: None, ..reaching(&unsaid) };
    let mut sink_without = StarRocksSink::with_pace(Arc::new(without), fast()).unwrap();
    assert_eq!(sink_without.prepare(&spec(), &Worker::default()), Ok(TableMatch::Created));

    let said = SqlServer::start(refuse);
    let three = StarRocksConfig { replication_num: Some(3), ..reaching(&said) };
    let mut sink_three = StarRocksSink::with_pace(Arc::new(three), fast()).unwrap();
    let refused = sink_three.prepare(&spec(), &Worker::default());
    assert!(matches!(refused, Err(StatementError::Refused { code: 1064, .. })), "{refused:?}");
}

#[test]
fn refusal_is_final_and_quotes_the_server() {
    let server = SqlServer::start(|_| SqlReply::Error(5203, "Access denied; you need the DELETE privilege"));
    let worker = Worker::default();
    let refused = sink(&server).truncate(&spec().target, &worker);
    assert_eq!(
        refused,
        Err(StatementError::Refused {
            statement: "TRUNCATE TABLE `shop`.`orders`".to_owned(),
            code: 5203,
            message: "Access denied; you need the DELETE privilege".to_owned(),
        })
    );
    assert_eq!(worker.reasons(), Vec::<String>::new());
}

#[test]
fn statement_is_repeated_after_a_cut_and_while_the_table_is_busy() {
    let count = AtomicUsize::new(0);
    let server = SqlServer::start(move |statement| {
        if statement.starts_with("SHOW") {
            return SqlReply::Rows(&["Command", "Info"], vec![]);
        }
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => SqlReply::Cut,
            1 => SqlReply::Error(5014, "table state is SCHEMA_CHANGE, not NORMAL"),
            _ => SqlReply::Done,
        }
    });
    let worker = Worker::default();
    assert_eq!(sink(&server).truncate(&spec().target, &worker), Ok(()));
    assert_eq!((truncates(&server), worker.reasons().len()), (3, 2));
}

fn truncates(server: &SqlServer) -> usize {
    server.statements().iter().filter(|statement| statement.starts_with("TRUNCATE")).count()
}

#[test]
fn table_is_not_emptied_while_an_earlier_truncate_of_it_is_running() {
    let count = AtomicUsize::new(0);
    let server = SqlServer::start(move |statement| {
        let running = |command, info| vec![Some(command), Some(info)];
        match statement.starts_with("SHOW").then(|| count.fetch_add(1, Ordering::Relaxed)) {
            Some(0 | 1) => {
                let rows = vec![running("Query", "TRUNCATE TABLE `shop`.`orders`")];
                SqlReply::Rows(&["Command", "Info"], rows)
            }
            // Of another table, and of a session that does nothing any more.
            Some(_) => {
                let other = running("Query", "TRUNCATE TABLE `shop`.`items`");
                let idle = running("Sleep", "TRUNCATE TABLE `shop`.`orders`");
                SqlReply::Rows(&["Command", "Info"], vec![other, idle])
            }
            None => SqlReply::Done,
        }
    });
    let worker = Worker::default();
    assert_eq!(sink(&server).truncate(&spec().target, &worker), Ok(()));
    assert_eq!((truncates(&server), worker.reasons().len()), (1, 2));
    assert!(worker.reasons()[0].contains("has not ended"), "{:?}", worker.reasons());
}

#[test]
fn wrong_login_is_told_from_a_server_that_is_away() {
    let server = SqlServer::start(|_| SqlReply::Done);
    let mut config = reaching(&server);
    config.user = "nobody".to_owned();
    let error = SqlSession::connect(&config).err();
    assert!(matches!(error, Some(StatementError::Credentials { .. })), "{error:?}");
    config.sql_port = 9;
    let error = SqlSession::connect(&config).err();
    assert!(matches!(error, Some(StatementError::Unreachable { .. })), "{error:?}");
}

#[test]
fn check_tells_that_the_owners_cannot_be_read_and_is_content_if_there_are_none() {
    for (message, passes) in [
        ("Access denied; you need the SELECT privilege on TABLE dbmazz_owner", false),
        ("Getting analyzing error. Detail message: Unknown table 'shop.dbmazz_owner'.", true),
        ("Unknown database 'shop'", true),
    ] {
        let server = SqlServer::start(move |statement| match statement {
            _ if statement.contains("dbmazz_owner") => SqlReply::Error(5203, message),
            _ => SqlReply::Rows(&["current_version()"], vec![vec![Some("3.3.5 abc")]]),
        });
        assert_eq!(check(&reaching(&server)).owner.is_ok(), passes, "{message}");
    }
}

#[test]
fn check_tells_both_ways_in_at_once() {
    let server = SqlServer::start(|_| SqlReply::Rows(&["current_version()"], vec![vec![Some("3.3.5 abc")]]));
    let info = check(&reaching(&server));
    assert_eq!(info.version, Ok("3.3.5 abc".to_owned()));
    assert_eq!(info.owner, Ok(()));
    let http = info.http.unwrap_err().to_string();
    assert!(http.starts_with("could not ask for a label at \"http://127.0.0.1:9\""), "{http}");
}

#[test]
fn table_that_somebody_else_creates_at_the_same_moment_is_compared() {
    let server = SqlServer::start(|statement| match statement.split_whitespace().next().unwrap() {
        "SELECT" => SqlReply::Rows(&["something"], vec![]),
        "CREATE" if statement.starts_with("CREATE TABLE") => {
            SqlReply::Error(1050, "Table 'orders' already exists")
        }
        "DESC" => SqlReply::Rows(
            &["Field", "Type", "Null", "Key", "Default", "Extra"],
            vec![vec![Some("id"), Some("bigint(20)"), Some("NO"), Some("true"), None, Some("")]],
        ),
        "SHOW" => SqlReply::Rows(&["Table", "Create Table"], vec![vec![Some("orders"), Some(OURS)]]),
        _ => SqlReply::Done,
    });
    let unused = TableMatch::Unused("it has no column \"n\"".to_owned());
    assert_eq!(sink(&server).prepare(&spec(), &Worker::default()), Ok(unused));
}

/// A server with the table `orders` and one beside it, and what it knows of them: whether the first one has the mark, and
/// whether the other one is there. If `late`, the SWAP is executed once more right before the DROP.
fn exchanging(late: bool) -> (SqlServer, Arc<[AtomicBool; 2]>) {
    let state = Arc::new([AtomicBool::new(false), AtomicBool::new(true)]);
    let (held, is_late) = (Arc::clone(&state), AtomicBool::new(late));
    let server = SqlServer::start(move |statement| {
        let [is_new, is_beside] = held.as_ref();
        let swap = || is_new.fetch_xor(true, Ordering::SeqCst);
        let created = |has_mark| {
            let text = if has_mark { "COMMENT \"(copy 7)\"" } else { "COMMENT \"\"" };
            SqlReply::Rows(&["Table", "Create Table"], vec![vec![Some("it"), Some(text)]])
        };
        match statement {
            _ if statement.starts_with("ALTER TABLE `shop`.`orders` SWAP WITH") => drop(swap()),
            _ if statement.starts_with("DROP TABLE") => {
                if is_late.swap(false, Ordering::SeqCst) {
                    swap();
                }
                is_beside.store(false, Ordering::SeqCst);
            }
            _ if statement.starts_with("SELECT table_name") => {
                let rows = vec![vec![Some("it")]; usize::from(is_beside.load(Ordering::SeqCst))];
                return SqlReply::Rows(&["table_name"], rows);
            }
            "SHOW CREATE TABLE `shop`.`orders`" => return created(is_new.load(Ordering::SeqCst)),
            _ if statement.starts_with("SHOW") => return SqlReply::Rows(&["Command", "Info"], vec![]),
            _ => {}
        }
        SqlReply::Done
    });
    (server, state)
}

fn exchange(server: &SqlServer) -> Result<(), StatementError> {
    let (table, mark) = ("copy_of_orders".to_owned(), "(copy 7)".to_owned());
    let swap = AlterStep::Swap { with: table.clone(), mark: mark.clone() };
    let steps = [swap, AlterStep::DropSwapped { table, mark }];
    sink(server).alter(&spec().target, &steps, &Worker::default())
}

#[test]
fn tables_are_exchanged_and_the_old_one_dropped() {
    let (server, state) = exchanging(false);
    assert_eq!(exchange(&server), Ok(()));
    assert_eq!(state.each_ref().map(|it| it.load(Ordering::SeqCst)), [true, false]);
}

#[test]
fn table_that_a_late_statement_has_put_back_is_not_taken_for_the_new_one() {
    let (server, _) = exchanging(true);
    let told = exchange(&server);
    assert!(matches!(told, Err(StatementError::Undone { .. })), "{told:?}");
}

#[test]
fn column_is_not_touched_while_an_earlier_statement_about_its_table_is_executed() {
    let count = AtomicUsize::new(0);
    let server = SqlServer::start(move |statement| {
        if statement != "SHOW FULL PROCESSLIST" {
            return match statement.starts_with("DESC") {
                true => SqlReply::Rows(&["Field", "Type", "Null", "Key"], vec![]),
                false => SqlReply::Done,
            };
        }
        let earlier = vec![Some("Query"), Some("ALTER TABLE `shop`.`orders` DROP COLUMN `n`")];
        let rows = if count.fetch_add(1, Ordering::Relaxed) < 2 { vec![earlier] } else { vec![] };
        SqlReply::Rows(&["Command", "Info"], rows)
    });
    let drop = [AlterStep::Drop { column: "n".to_owned() }];
    assert_eq!(sink(&server).alter(&spec().target, &drop, &Worker::default()), Ok(()));
    assert!(server.statements().iter().all(|statement| !statement.starts_with("ALTER")), "it was dropped");
}

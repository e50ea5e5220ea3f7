//! A stand-in for a StarRocks cluster: one frontend, one backend and the MySQL port, in one process.
//!
//! It is written from the published behaviour of Stream Load and of the SQL dialect, shares no code with the client that it tests,
//! and refuses what it does not know instead of guessing. Rows go to SQLite, or nowhere with `--storage off`, where a
//! benchmark only wants them parsed and counted.
//!
//! ```text
//! starrocks_standin --fe-port 0 --be-port 0 --mysql-port 0 --user root --password '' \
//!     [--storage on|off] [--arrivals on|off] [--data-dir DIR|none] [--backends 1] [--exit-with-stdin]
//! ```
//!
//! When it is ready it prints one line, `{"fe":…,"be":…,"mysql":…}`, with the ports that it listens on.
mod alter;
mod answer;
mod args;
mod arrivals;
mod auth;
mod backend;
mod body;
mod catalog;
mod columns_header;
mod control;
mod counts;
mod ddl;
mod ddl_checks;
mod decimal;
mod dml;
mod error_log;
mod faults;
mod frontend;
mod http;
mod information_schema;
mod labels;
mod load;
mod load_headers;
mod modify;
mod mysql_cells;
mod mysql_port;
mod mysql_wire;
mod ndjson;
mod plan;
mod request_log;
mod rows;
mod scanner;
mod select;
mod server;
mod show;
mod sql_error;
mod sql_parser;
mod sql_tokens;
mod sqlite_functions;
mod statement;
mod storage;
mod temporal;
mod typing;
mod values;

use std::io::Read;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(message) => {
            eprintln!("starrocks_standin: {message}");
            return ExitCode::from(2);
        }
    };
    let exit_with_stdin = args.exit_with_stdin;
    match server::start(args) {
        Ok(ports) => println!("{{\"fe\":{},\"be\":{},\"mysql\":{}}}", ports.fe, ports.be, ports.mysql),
        Err(error) => {
            eprintln!("starrocks_standin: could not start: {error}");
            return ExitCode::FAILURE;
        }
    }
    if exit_with_stdin {
        // Reading to the end is how the parent's death is noticed; what it says does not matter.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        return ExitCode::SUCCESS;
    }
    // SIGTERM and SIGINT end the process by their default action: nothing is held that a kill could damage.
    loop {
        std::thread::park();
    }
}

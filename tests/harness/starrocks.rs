//! The StarRocks that is mirrored into: the stand-in, started for the purpose, or a real cluster.
//!
//! `DBMAZZ_TEST_STARROCKS=host:8030:9030` names a real one (`DBMAZZ_TEST_STARROCKS_USER` and `_PASSWORD` when they are
//! not `root` and empty). It can be told to do nothing wrong, so tests that need a fault say that they are skipped.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use mysql::OptsBuilder;
use serde::Deserialize;

use super::{Control, Failure, Outcome, wait_for};

/// A StarRocks that answers.
pub(crate) struct StarRocks {
    host: String,
    ports: Ports,
    user: String,
    password: String,
    /// None for a real cluster.
    process: Option<Process>,
}

/// The line that the stand-in prints when it is ready. A real cluster's backend port is not known, nor needed.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Ports {
    fe: u16,
    #[serde(default)]
    be: u16,
    mysql: u16,
}

/// The stand-in. It ends when its standard input closes, so it cannot outlive this process.
struct Process {
    child: Child,
    _stdin: Option<ChildStdin>,
    /// What it was started with, but for the ports.
    arguments: Vec<String>,
}

impl StarRocks {
    /// The real cluster that the environment names, else a new stand-in.
    pub(crate) fn start() -> Outcome<Self> {
        match std::env::var("DBMAZZ_TEST_STARROCKS") {
            Ok(address) => Self::real(&address),
            Err(_) => Self::standin(&[]),
        }
    }

    /// A new stand-in with further arguments, whatever the environment says.
    pub(crate) fn standin(arguments: &[&str]) -> Outcome<Self> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (process, ports) = Process::start(arguments, Ports { fe: 0, be: 0, mysql: 0 })?;
        let (host, user) = ("127.0.0.1".to_owned(), "root".to_owned());
        Ok(Self { host, ports, user, password: PASSWORD.to_owned(), process: Some(process) })
    }

    /// Kills the stand-in and starts it on the same ports. With `--data-dir` among its arguments it has its tables, and
    /// knows the labels of the loads that were committed; everything else is gone.
    pub(crate) fn restart_standin(&mut self) -> Outcome {
        let process = self.process.take().ok_or_else(|| Failure::new("there is no stand-in to restart"))?;
        let arguments = process.arguments.clone();
        drop(process);
        // A client that dials a port where nobody listens can, by the rules of TCP, take it for itself for a moment.
        let (process, _) = wait_for("the stand-in has its ports again", Duration::from_secs(30), || {
            Ok(Process::start(arguments.clone(), self.ports).ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn real(address: &str) -> Outcome<Self> {
        let malformed = || Failure::new("DBMAZZ_TEST_STARROCKS must be of the form host:8030:9030");
        let mut parts = address.rsplitn(3, ':');
        let mysql = parts.next().ok_or_else(malformed)?.parse()?;
        let fe = parts.next().ok_or_else(malformed)?.parse()?;
        let host = parts.next().ok_or_else(malformed)?.to_owned();
        let user = std::env::var("DBMAZZ_TEST_STARROCKS_USER").unwrap_or_else(|_| "root".to_owned());
        let password = std::env::var("DBMAZZ_TEST_STARROCKS_PASSWORD").unwrap_or_default();
        Ok(Self { host, ports: Ports { fe, be: 0, mysql }, user, password, process: None })
    }

    /// The host of all ports.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The FE's HTTP port.
    pub(crate) fn fe_port(&self) -> u16 {
        self.ports.fe
    }

    /// The port of the MySQL protocol.
    pub(crate) fn sql_port(&self) -> u16 {
        self.ports.mysql
    }

    /// Who logs in.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// With which password.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// The control interface; a real cluster has none.
    pub(crate) fn control(&self) -> Option<Control> {
        self.process.as_ref().map(|_| Control::on_port(self.ports.fe))
    }

    /// A session over the MySQL protocol.
    pub(crate) fn connect(&self) -> Outcome<mysql::Conn> {
        let options = OptsBuilder::new()
            .ip_or_hostname(Some(self.host.clone()))
            .tcp_port(self.ports.mysql)
            .user(Some(self.user.clone()))
            .pass(Some(self.password.clone()))
            .prefer_socket(false)
            .tcp_connect_timeout(Some(Duration::from_secs(10)))
            .read_timeout(Some(Duration::from_secs(120)));
        mysql::Conn::new(options).map_err(|error| Failure::from(error).while_doing("connect to StarRocks"))
    }
}

/// Not empty, so that a forgotten password shows.
const PASSWORD: &str = "stand-in";

impl Process {
    /// Starts a stand-in and reads which ports it got.
    fn start(arguments: Vec<String>, ports: Ports) -> Outcome<(Self, Ports)> {
        let program = standin_program()?;
        let mut child = Command::new(&program)
            .args(["--fe-port", &ports.fe.to_string(), "--be-port", &ports.be.to_string()])
            .args(["--mysql-port", &ports.mysql.to_string(), "--exit-with-stdin"])
            .args(["--user", "root", "--password", PASSWORD])
            .args(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                Failure::from(error).while_doing(format_args!("run \"{}\"", program.display()))
            })?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let process = Self { child, _stdin: stdin, arguments };
        let ports = serde_json::from_str(&line).map_err(|error| {
            Failure::from(error).while_doing(format_args!("read the stand-in's ports from {line:?}"))
        })?;
        Ok((process, ports))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("could not stop the stand-in: {error}");
        }
    }
}

/// The example lies beside us: `target/<profile>/examples`, while we are in `examples` or `deps`.
fn standin_program() -> Outcome<PathBuf> {
    let here = std::env::current_exe()?;
    let profile = here.parent().and_then(|directory| directory.parent());
    let program = profile.map(|directory| directory.join("examples").join("starrocks_standin"));
    program.filter(|path| path.is_file()).ok_or_else(|| {
        Failure::new("the stand-in is not built: run cargo build --release --example starrocks_standin")
    })
}

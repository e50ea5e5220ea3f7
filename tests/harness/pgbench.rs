//! pgbench, in the foreground to make its tables and in the background to write.

use std::io::Read as _;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;

use super::{Cluster, Database, Failure, Outcome, Progress};

/// A pgbench that is writing.
pub(crate) struct Pgbench {
    child: Child,
}

impl Pgbench {
    /// Makes the tables: `scale` times 100,000 accounts.
    pub(crate) fn initialize(database: &Database, scale: u32) -> Outcome {
        let mut child = database
            .cluster()
            .client_program("pgbench")
            .args(["--initialize", "--quiet", "--scale", &scale.to_string(), database.name()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        finish(&mut child, "making the tables of pgbench")
    }

    /// The TPC-B-like transactions of four clients for so many seconds.
    pub(crate) fn write(cluster: &Arc<Cluster>, database: &str, seconds: u32) -> Outcome<Self> {
        Self::run(cluster, database, &["--time", &seconds.to_string()])
    }

    /// A pgbench with four clients and further arguments.
    pub(crate) fn run(cluster: &Arc<Cluster>, database: &str, arguments: &[&str]) -> Outcome<Self> {
        let child = cluster
            .client_program("pgbench")
            .args(["--no-vacuum", "--client", "4", "--jobs", "1"])
            .args(arguments)
            .arg(database)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self { child })
    }

    /// Whether it still writes.
    pub(crate) fn is_running(&mut self) -> Outcome<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until it is done, whatever it says: its server may have been taken away from it.
    pub(crate) fn join(mut self) -> Outcome {
        finish(&mut self.child, "waiting for pgbench to end").or(Ok(()))
    }

    /// Waits until it is done.
    ///
    /// # Errors
    ///
    /// When it failed.
    pub(crate) fn succeed(mut self) -> Outcome {
        finish(&mut self.child, "waiting for pgbench to end")
    }
}

impl Drop for Pgbench {
    fn drop(&mut self) {
        // It has ended already in all but failed tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn finish(child: &mut Child, what: &str) -> Outcome {
    let mut progress = Progress::new(what);
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(()) } else { Err(failed(child, status)) };
        }
        progress.tick();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// What it said in the end; a few lines, so they fit into the pipe while nobody reads.
fn failed(child: &mut Child, status: ExitStatus) -> Failure {
    let mut words = String::new();
    if let Some(stderr) = &mut child.stderr
        && let Err(error) = stderr.read_to_string(&mut words)
    {
        words = error.to_string();
    }
    Failure::new(format!("pgbench: {status}\n{words}"))
}

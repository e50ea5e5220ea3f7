//! What it was measured on.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::harness::{Installation, Outcome};

/// The machine, and what runs on it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_gb: u64,
    kernel: String,
    postgresql: String,
    /// Day of the run.
    date: String,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Outcome<Self> {
        let cpu =
            first_value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
        let memory = first_value("/proc/meminfo", "MemTotal").unwrap_or_default();
        let memory_kb: u64 = memory.split(' ').next().and_then(|kb| kb.parse().ok()).unwrap_or(0);
        let postgres = Installation::find()?.program("postgres");
        Ok(Self {
            cpu,
            cores: std::thread::available_parallelism()?.get(),
            memory_gb: (memory_kb + (1 << 19)) >> 20,
            kernel: answer_of(Command::new("uname").arg("-sr"))?,
            postgresql: answer_of(Command::new(postgres).arg("--version"))?
                .replace("postgres (PostgreSQL) ", ""),
            date: answer_of(Command::new("date").arg("+%F"))?,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory_gb, kernel, postgresql, date } = self;
        write!(f, "{date}, {cpu}, {cores} cores, {memory_gb} GB, {kernel}, PostgreSQL {postgresql}")
    }
}

fn answer_of(command: &mut Command) -> Outcome<String> {
    Ok(String::from_utf8(command.output()?.stdout)?.trim().to_owned())
}

/// The value behind the first colon of a line that begins like this.
fn first_value(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

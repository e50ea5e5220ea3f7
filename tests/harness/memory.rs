//! What a process has of the machine's memory, as the kernel counts it: pages of several processes in equal parts.

use std::fs;

use super::{Failure, Outcome};

/// All of it.
///
/// # Errors
///
/// When the process is gone.
pub(crate) fn proportional_size(pid: &str) -> Outcome<u64> {
    sum(pid, &["Pss:"])
}

/// Without shared memory, that is, what goes when the process goes.
///
/// # Errors
///
/// When the process is gone.
pub(crate) fn own_size(pid: &str) -> Outcome<u64> {
    sum(pid, &["Pss_Anon:", "Pss_File:"])
}

/// The sum of some lines of what the kernel says, in bytes.
fn sum(pid: &str, names: &[&str]) -> Outcome<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let mut kilobytes = 0;
    for name in names {
        let value = rollup.lines().find_map(|line| line.strip_prefix(name));
        let value = value.ok_or_else(|| Failure::new(format!("the kernel does not tell {name}")))?;
        kilobytes += value.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(kilobytes << 10)
}

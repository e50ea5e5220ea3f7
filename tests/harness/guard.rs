//! Ends a cluster when the process that started it ends.
//!
//! A process that dies by Ctrl-C, by SIGTERM or by SIGKILL runs no destructor, and neither does a `static`. So each
//! cluster has a guard: a small shell that reads from a pipe which nobody writes to. When the other end closes, for
//! whatever reason, the guard stops the postmaster that the data directory names and removes the directory. Dropping
//! the [`Guard`] closes the pipe and waits: there is one way out, not two.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};

use super::Outcome;
use super::account::Account;

/// The directory is `$1`, pg_ctl is `$2`. Immediate stop: nobody will read the data again. Repeated, because the owner
/// may have died while initdb or a start was still at work.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
read -r _
for _ in 1 2 3 4 5; do
    if [ -f "$1/data/postmaster.pid" ]; then
        "$2" stop -D "$1/data" -m immediate -w -t 20 >/dev/null 2>&1
    fi
    rm -rf "$1" 2>/dev/null
    [ -e "$1" ] || exit 0
    sleep 1
done
echo "could not remove $1" >&2
exit 1
"#;

/// The promise that a cluster does not outlive this process.
pub(crate) struct Guard {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Watches over the cluster in `directory`.
    pub(crate) fn watch(account: Account, directory: &Path, pg_ctl: &Path) -> Outcome<Self> {
        let mut shell = account
            .command("/bin/sh")
            .args(["-c", SCRIPT, "guard"])
            .args([directory, pg_ctl])
            .stdin(Stdio::piped())
            // A group of its own: the terminal's Ctrl-C must not reach it.
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        if let Err(error) = self.shell.wait() {
            eprintln!("could not wait for the guard of a cluster: {error}");
        }
    }
}

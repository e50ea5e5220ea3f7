//! Places at which a test makes a process fail.
//!
//! Only with the cargo feature `failpoints`; without it [`hit`] is empty and nothing of this is in the library. A test arms a
//! point from outside, for whichever process comes by first, by a file in the data directory, which is every server
//! process' working directory:
//!
//! ```text
//! dbmazz_failpoints/<point>       what to do: `error`, `kill`, `term` or `wait`, and after how many passes, "kill 3"
//! dbmazz_failpoints/<point>.hit   the same file, renamed by the process that is about to do it
//! dbmazz_failpoints/turn          locked by the process that looks at an order, so that every pass counts
//! ```
//!
//! The rename makes it happen once, and tells the test that it did. A process that waits goes on when the renamed file is
//! removed; it answers interrupts meanwhile. A pass costs one look at the file system, so no point is on the path of
//! single changes.

/// A process passes the point `name`. Not where an ERROR must not be raised.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(super) const fn hit(_name: &str) {}

#[cfg(feature = "failpoints")]
pub(super) use armed::{announce, hit};

#[cfg(feature = "failpoints")]
mod armed {
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::Duration;

    use pgrx::prelude::*;

    use super::super::latch;

    const DIRECTORY: &str = "dbmazz_failpoints";
    /// How often a process that waits looks whether it may go on.
    const LOOK: Duration = Duration::from_millis(20);

    /// Says in the server's log which build this is.
    pub(in super::super) fn announce() {
        warning!("dbmazz has been built with failpoints, which are for tests only");
    }

    /// A process passes the point `name`. Not where an ERROR must not be raised.
    pub(in super::super) fn hit(name: &str) {
        let armed = Path::new(DIRECTORY).join(name);
        let Some(action) = order(&armed) else { return };
        log!("failpoint \"{name}\": {action}");
        act(name, &action, &armed.with_extension("hit"));
    }

    /// What this process has to do, if the point is armed and it is the one: everybody before counts a pass.
    fn order(armed: &Path) -> Option<String> {
        if !armed.exists() {
            return None;
        }
        let turn = File::create(Path::new(DIRECTORY).join("turn")).ok()?;
        turn.lock().ok()?;
        let order = fs::read_to_string(armed).ok()?;
        let (action, passes) = order.trim().split_once(' ').unwrap_or((order.trim(), "0"));
        let passes: u32 = passes.parse().unwrap_or(0);
        if passes == 0 {
            return fs::rename(armed, armed.with_extension("hit")).is_ok().then(|| action.to_owned());
        }
        let written = armed.with_extension("passed");
        fs::write(&written, format!("{action} {}", passes - 1))
            .and_then(|()| fs::rename(&written, armed))
            .ok()?;
        None
    }

    fn act(name: &str, action: &str, reached: &Path) {
        match action {
            "error" => error!("failpoint \"{name}\""),
            "kill" => signal_self(libc::SIGKILL),
            "term" => signal_self(libc::SIGTERM),
            "wait" => {
                while reached.exists() {
                    latch::wait(None, LOOK);
                }
            }
            _ => error!("failpoint \"{name}\" has the unknown action \"{action}\""),
        }
    }

    fn signal_self(signal: i32) {
        // SAFETY: a signal to this very process; what it does is the handler's.
        unsafe { libc::raise(signal) };
        latch::serve_interrupts();
    }
}

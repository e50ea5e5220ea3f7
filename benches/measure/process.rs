//! What a process of the server costs: processor time, memory, wake-ups, from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::{Failure, Outcome, own_size};

/// One process, by its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

/// What it has used up so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    at: Instant,
    cpu: Duration,
    wake_ups: u64,
}

impl Process {
    /// Of all of its threads that are alive.
    pub(crate) fn usage(self) -> Outcome<Usage> {
        let mut usage = Usage { at: Instant::now(), cpu: Duration::ZERO, wake_ups: 0 };
        for thread in fs::read_dir(format!("/proc/{}/task", self.0))? {
            let thread = thread?.path();
            // On the processor, waiting for one, slices: nanoseconds and a count.
            let times = fs::read_to_string(thread.join("schedstat"));
            // A thread may end while it is looked at.
            let Ok((times, status)) =
                times.and_then(|times| Ok((times, fs::read_to_string(thread.join("status"))?)))
            else {
                continue;
            };
            let nanoseconds: u64 = times.split(' ').next().unwrap_or_default().parse()?;
            usage.cpu += Duration::from_nanos(nanoseconds);
            usage.wake_ups += field(&status, "voluntary_ctxt_switches:")?;
        }
        Ok(usage)
    }

    /// Proportional set size without shared memory, in bytes: what goes when the process goes.
    pub(crate) fn memory(self) -> Outcome<u64> {
        own_size(&self.0.to_string())
    }
}

impl Usage {
    /// Processor time since an earlier look.
    pub(crate) fn cpu_since(self, earlier: Self) -> Duration {
        self.cpu.saturating_sub(earlier.cpu)
    }

    /// The same as a part of the time that passed, in percent of one core.
    pub(crate) fn percent_since(self, earlier: Self) -> f64 {
        let passed = self.at.duration_since(earlier.at).as_secs_f64();
        100.0 * self.cpu_since(earlier).as_secs_f64() / passed
    }

    /// Wake-ups per second since an earlier look.
    pub(crate) fn wake_ups_since(self, earlier: Self) -> f64 {
        let passed = self.at.duration_since(earlier.at).as_secs_f64();
        crate::figures::count(self.wake_ups - earlier.wake_ups) / passed
    }
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Outcome<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.ok_or_else(|| Failure::new(format!("the kernel does not tell {name}")))?;
    Ok(value.split_whitespace().next().unwrap_or_default().parse()?)
}

/// Processor time of the children of a process that it has seen end, and of theirs. In steps of 10 ms.
pub(crate) fn cpu_of_children(pid: u32) -> Outcome<Duration> {
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program, in parentheses, may have blanks.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = fields.split(' ').skip(13).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

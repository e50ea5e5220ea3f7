//! The process' own memory, between transactions that are decoded.
//!
//! The reorder buffer keeps the changes of a transaction in blocks of 8 MB and frees them at its end. glibc gives memory at
//! the end of the heap back to the system, and the next transaction touches it anew, page by page: a worker that began by
//! reading 330 MB of rows again had 91,580 page faults, and has 5,762. So the mirror worker keeps what was freed, about as much
//! as the reorder buffer holds before it spills, and gives it back when little has been decoded for a while.

use std::time::{Duration, Instant};

/// So much freed memory at the end of the heap is kept: the default of `logical_decoding_work_mem`.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: i32 = 64 << 20;
/// What is larger has a mapping of its own, which goes when it is freed, but grows without being moved. Blocks of the reorder
/// buffer are just not larger, buffers of large loads are.
#[cfg(target_env = "gnu")]
const LARGEST_IN_HEAP: i32 = (8 << 20) + (64 << 10);
/// A turn that reads so much of the log is work; one that reads less has no use for what is kept.
const WORK_BYTES: u64 = 1 << 20;
/// Freed memory is given back after so long without work.
const QUIET: Duration = Duration::from_secs(5);

/// The memory that the process has freed. One per process.
pub(super) struct FreedMemory {
    /// When the process last worked; none when nothing has been freed since memory was given back.
    worked_at: Option<Instant>,
}

impl FreedMemory {
    /// From now on freed memory is kept.
    pub(super) fn keep() -> Self {
        // SAFETY: both are numbers that the allocator uses from its next call on; it takes its own locks.
        #[cfg(target_env = "gnu")]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_IN_HEAP);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        }
        Self { worked_at: None }
    }

    /// Called once per turn, with how many bytes of the log it has read. Gives the memory back when that was little for long
    /// enough.
    pub(super) fn turn(&mut self, read_bytes: u64) {
        if read_bytes >= WORK_BYTES {
            self.worked_at = Some(Instant::now());
        } else if self.worked_at.is_some_and(|at| at.elapsed() >= QUIET) {
            self.worked_at = None;
            // SAFETY: gives back pages that nobody has; the allocator takes its own locks.
            #[cfg(target_env = "gnu")]
            unsafe {
                libc::malloc_trim(0);
            }
        }
    }
}

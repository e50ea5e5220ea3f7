//! Waiting. The main thread of a process waits here and nowhere else, so that it always answers signals, barriers
//! and the death of the postmaster.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use pgrx::pg_sys;

use super::compat;

/// A file descriptor by which a thread wakes the main thread.
pub(super) struct Waker {
    event: Arc<File>,
}

impl Waker {
    /// A new one, that nobody has written to.
    pub(super) fn new() -> std::io::Result<Self> {
        // SAFETY: no pointers are involved; a negative answer is not taken for a descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { event: Arc::new(File::from(fd)) })
    }

    /// What threads call. It does not block, and it cannot fail in a way that matters: a full counter wakes too.
    pub(super) fn handle(&self) -> Arc<dyn Fn() + Send + Sync> {
        let event = Arc::clone(&self.event);
        Arc::new(move || {
            let _ = (&*event).write(&1u64.to_ne_bytes());
        })
    }

    /// Forgets the wake-ups so far.
    fn clear(&self) {
        let _ = (&*self.event).read(&mut [0; 8]);
    }
}

/// Waits until the latch is set, `waker` is called or `timeout` is over; then serves interrupts.
///
/// Does not return when the postmaster has died or the process was told to end.
pub(super) fn wait(waker: Option<&Waker>, timeout: Duration) {
    let millis = timeout.as_millis().clamp(1, 60_000) as std::ffi::c_long;
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let (events, socket) = match waker {
        Some(waker) => (events | pg_sys::WL_SOCKET_READABLE, waker.event.as_raw_fd()),
        None => (events, -1),
    };
    // SAFETY: `MyLatch` is this process' latch from its start to its end; the descriptor is open for as long as
    // `waker` is borrowed.
    unsafe {
        pg_sys::WaitLatchOrSocket(pg_sys::MyLatch, events as i32, socket, millis, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    if let Some(waker) = waker {
        waker.clear();
    }
    serve_interrupts();
}

/// `CHECK_FOR_INTERRUPTS`: cancels, terminations and barriers.
pub(super) fn serve_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Sets the latch of another process of this server.
pub(super) fn wake(proc_number: i32) {
    compat::set_latch_of(proc_number);
}

//! Signals: which handlers a worker has, and how threads are born without any.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

use pgrx::pg_sys;

use super::{compat, ffi};

/// SIGTERM ends the worker at the next check for interrupts, wherever that is; SIGHUP asks for the configuration.
/// Until this is called, a background worker has all signals blocked.
pub(super) fn install_handlers() {
    compat::set_signal_handler(libc::SIGTERM, ffi::DIE);
    compat::set_signal_handler(libc::SIGHUP, ffi::RELOAD);
    // SAFETY: a background worker's main function calls it once, after its handlers are in place.
    unsafe { pg_sys::BackgroundWorkerUnblockSignals() };
}

/// Every signal blocked in the calling thread, until dropped.
///
/// A thread inherits the mask of its creator. Threads started under this guard never run a handler of PostgreSQL
/// and never swallow the `SIGURG` that wakes the process latch.
#[must_use = "signals are deliverable again once the guard is dropped"]
pub(super) struct SignalsBlocked {
    previous: libc::sigset_t,
    /// The mask belongs to one thread; the guard must not travel.
    _not_send: PhantomData<*const ()>,
}

impl SignalsBlocked {
    /// Blocks all signals.
    pub(super) fn enter() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut previous = MaybeUninit::uninit();
        // SAFETY: `sigfillset` initializes `all`; `pthread_sigmask` reads it, fills `previous`, and can fail only
        // for an invalid first argument.
        let previous = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), previous.as_mut_ptr());
            previous.assume_init()
        };
        Self { previous, _not_send: PhantomData }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `previous` was filled by `pthread_sigmask` in this same thread.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.previous, ptr::null_mut()) };
    }
}

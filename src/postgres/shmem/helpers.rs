//! The processes that help a mirror's worker, in shared memory.

use super::{update, update_at};

/// Processes that can help one mirror at a time: the holder, who leads a copy beside the stream, and the most snapshot
/// workers that an option allows.
const MAX_HELPERS: usize = 66;

/// The processes that help a mirror's worker. They outlive it for a moment when it fails, and must be gone before
/// another one begins anew: what they load would be of an older snapshot.
#[derive(Clone, Copy)]
pub(crate) struct Helpers([i32; MAX_HELPERS]);

impl Default for Helpers {
    fn default() -> Self {
        Self([0; MAX_HELPERS])
    }
}

impl Helpers {
    /// Their process numbers.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.0.iter().copied().filter(|pid| *pid != 0)
    }
}

/// Puts this process among the helpers of a mirror. Not when the worker that started it is gone, or there is no room.
pub(crate) fn join_helpers(mirror: &str, generation: u64, pid: i32) -> bool {
    let joined = update(mirror, |slot| {
        let free = slot.helpers.0.iter_mut().find(|place| **place == 0);
        match free {
            Some(place) if slot.generation == generation && slot.pid != 0 => {
                *place = pid;
                true
            }
            _ => false,
        }
    });
    joined == Some(true)
}

/// Takes this process from among the helpers. For callbacks at a process' end.
pub(crate) fn leave_helpers(place: usize, pid: i32) {
    update_at(place, |slot| slot.helpers.0.iter_mut().filter(|it| **it == pid).for_each(|it| *it = 0));
}

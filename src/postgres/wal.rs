//! The files of the log.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use pgrx::pg_sys;

use crate::lsn::Lsn;

/// Whether the file that a position is in is there, of whatever timeline. When the directory cannot be read, nothing is
/// known, and the reader of the log will say.
pub(super) fn is_there(lsn: Lsn) -> bool {
    // SAFETY: both are set before a process runs anything of ours, and never changed.
    let (directory, segment_bytes) = unsafe { (CStr::from_ptr(pg_sys::DataDir), pg_sys::wal_segment_size) };
    let Some(segment_bytes) = u64::try_from(segment_bytes).ok().filter(|bytes| *bytes > 0) else {
        return true;
    };
    let wanted = name_of_segment(lsn.0 / segment_bytes, segment_bytes);
    let Ok(files) = fs::read_dir(Path::new(&*directory.to_string_lossy()).join("pg_wal")) else {
        return true;
    };
    files
        .flatten()
        .any(|file| file.file_name().to_str().and_then(|name| name.get(8..)) == Some(wanted.as_str()))
}

/// The name of a file without its timeline (xlog_internal.h, `XLogFileName`).
fn name_of_segment(number: u64, segment_bytes: u64) -> String {
    let per_id = (1 << 32) / segment_bytes;
    format!("{:08X}{:08X}", number / per_id, number % per_id)
}

//! The samples of refused rows behind `ErrorURL`.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::server::lock;

/// How many loads' samples are kept.
const MAX_FILES: usize = 1000;

/// All error logs, the newest last.
#[derive(Default)]
pub(crate) struct ErrorLog {
    files: Mutex<VecDeque<(String, String)>>,
}

impl ErrorLog {
    /// Keeps samples; returns the name of their file.
    pub(crate) fn keep(&self, transaction: i64, samples: &[String]) -> String {
        let name = format!("error_log_{transaction:x}");
        let mut files = lock(&self.files);
        if files.len() == MAX_FILES {
            files.pop_front();
        }
        let mut text = samples.join("\n");
        text.push('\n');
        files.push_back((name.clone(), text));
        name
    }

    /// The samples of a file.
    pub(crate) fn find(&self, name: &str) -> Option<String> {
        lock(&self.files).iter().find(|(file, _)| file == name).map(|(_, text)| text.clone())
    }
}

//! A door to the readers of answers, for the fuzz target `tests/fuzz/answers.rs`. There with the feature `fuzz` only.

use super::answer::{LoadAnswer, StateAnswer, message_of};
use super::http::Answer;
use super::url::Url;
use super::verdict::{Verdict, judge};

/// Reads bytes as everything that can come back from StarRocks, and holds the readers to what they promise: a load
/// counts as done only where the status says so, and no text of an answer leads anywhere but to HTTP.
///
/// # Panics
///
/// When a promise is broken.
pub fn read_answers(body: &[u8]) {
    if let Some(answer) = LoadAnswer::parse(body) {
        let status = answer.status.to_ascii_lowercase();
        match judge(&answer) {
            Verdict::Visible => assert!(matches!(status.as_str(), "success" | "ok"), "done: {answer:?}"),
            Verdict::Committed => assert_eq!(status, "publish timeout", "done: {answer:?}"),
            Verdict::LabelFinished | Verdict::LabelInUse | Verdict::Ask | Verdict::Trouble => {}
            Verdict::Credentials | Verdict::Uncompressed | Verdict::Refused(_) | Verdict::Riddle => {}
        }
    }
    let _ = StateAnswer::parse(body);
    let _ = message_of(body);
    let text = String::from_utf8_lossy(body).into_owned();
    if let Some(url) = Url::from_location(&text, "http://fe:8030") {
        assert!(url.base.starts_with("http://") || url.base.starts_with("https://"), "{url:?}");
        assert!(url.path.starts_with('/'), "{url:?}");
        let moved = url.with_host("be");
        assert!(moved.base.contains("://be"), "{moved:?}");
    }
    let summary = Answer { status: 200, location: Some(text), body: body.to_vec() }.summary();
    assert!(summary.len() < 4096, "a message of {} bytes", summary.len());
}

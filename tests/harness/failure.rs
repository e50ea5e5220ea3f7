//! One error for everything that can go wrong around a test: a sentence, and the line where it came up.

use std::fmt;
use std::panic::Location;

/// The result of a step of a test.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a step did not succeed.
pub(crate) struct Failure {
    message: String,
    at: &'static Location<'static>,
}

impl Failure {
    /// A failure in words.
    #[track_caller]
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), at: Location::caller() }
    }

    /// The same failure, told from further away: "could not …: reason".
    pub(crate) fn while_doing(self, what: impl fmt::Display) -> Self {
        Self { message: format!("could not {what}: {}", self.message), at: self.at }
    }

    /// The sentence without the line.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.message, self.at.file(), self.at.line())
    }
}

/// A test that returns a failure is shown by its `Debug`.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! from_error {
    ($($error:ty),+) => {$(
        impl From<$error> for Failure {
            #[track_caller]
            fn from(error: $error) -> Self {
                Self { message: error.to_string(), at: Location::caller() }
            }
        }
    )+};
}

from_error!(
    std::io::Error,
    mysql::Error,
    serde_json::Error,
    std::num::ParseIntError,
    std::num::TryFromIntError,
    std::string::FromUtf8Error
);

/// The `Display` of this error is "db error" alone; what the server said lies in its source.
impl From<postgres::Error> for Failure {
    #[track_caller]
    fn from(error: postgres::Error) -> Self {
        let message = error.as_db_error().map_or_else(|| error.to_string(), describe);
        Self { message, at: Location::caller() }
    }
}

/// A server's error with everything that an administrator would see.
fn describe(error: &postgres::error::DbError) -> String {
    let mut text = format!("{}: {} (SQLSTATE {})", error.severity(), error.message(), error.code().code());
    for (name, value) in [("DETAIL", error.detail()), ("HINT", error.hint()), ("CONTEXT", error.where_())] {
        if let Some(value) = value {
            text.push_str(&format!("\n  {name}: {value}"));
        }
    }
    text
}

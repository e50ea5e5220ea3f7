//! Where loads go.
//!
//! A [`Sink`] settles the fate of one load at a time: when [`Sink::load`] returns `Ok`, the rows are visible at the
//! target; when it returns an error, they are not and never will be under that label. There is no third answer: an
//! unknown outcome is asked for, by label, until it is known or the worker has to stop.

mod load;

pub use load::{Label, Load, LoadShape};

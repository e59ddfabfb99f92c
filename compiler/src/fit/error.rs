//! What can be wrong with the data of a fit. Every message names the place.

use thiserror::Error;

/// A refusal to fit a head or another module.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitError {
    /// A matrix or vector has another length than its shape says.
    #[error("fit at {candidate}: {what} holds {found} values, expected {expected}")]
    Length {
        /// The place: a candidate exit, an FFN.
        candidate: String,
        /// Which input.
        what: &'static str,
        /// Values its shape asks for.
        expected: usize,
        /// Values it has.
        found: usize,
    },
    /// A row to train on does not exist.
    #[error("fit at {candidate}: row {row} is asked for, but the data has {rows} rows")]
    RowOutOfRange {
        /// The place: a candidate exit, an FFN.
        candidate: String,
        /// The row asked for.
        row: usize,
        /// Rows there are.
        rows: usize,
    },
    /// A label is negative or not below the number of classes.
    #[error("fit at {candidate}: row {row} has label {label}, but there are {classes} classes")]
    LabelOutOfRange {
        /// The place: a candidate exit, an FFN.
        candidate: String,
        /// The row of the label.
        row: usize,
        /// The label.
        label: i64,
        /// Number of classes.
        classes: usize,
    },
    /// A feature or a logit of the plain model is NaN or infinite.
    #[error("fit at {candidate}: {what} of row {row} is not finite (column {column})")]
    NotFinite {
        /// The place: a candidate exit, an FFN.
        candidate: String,
        /// Which input.
        what: &'static str,
        /// The row.
        row: usize,
        /// The first column that is not finite.
        column: usize,
    },
    /// Too few rows to learn anything from.
    #[error("fit at {candidate}: {found} rows to train on, at least {needed} are needed")]
    TooFewRows {
        /// The place: a candidate exit, an FFN.
        candidate: String,
        /// Least number of rows.
        needed: usize,
        /// Rows given.
        found: usize,
    },
    /// An option lies outside its range.
    #[error("fit at {candidate}: {option} must be {range}")]
    Option {
        /// The place: a candidate exit, an FFN.
        candidate: String,
        /// The option.
        option: &'static str,
        /// The values it may take.
        range: &'static str,
    },
    /// The loss cannot be minimised: it is not finite where the fit starts.
    #[error("fit at {candidate}: the optimiser failed: {reason}")]
    Optimiser {
        /// The place: a candidate exit, an FFN.
        candidate: String,
        /// What it said.
        reason: String,
    },
}

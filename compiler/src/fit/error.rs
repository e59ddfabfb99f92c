//! What can be wrong with the data of a fit. Every message names the candidate exit.

use thiserror::Error;

/// A refusal to fit a head.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitError {
    /// A matrix or vector has another length than its shape says.
    #[error("exit '{candidate}': {what} holds {found} values, expected {expected}")]
    Length {
        /// The candidate exit.
        candidate: String,
        /// Which input.
        what: &'static str,
        /// Values its shape asks for.
        expected: usize,
        /// Values it has.
        found: usize,
    },
    /// A row to train on does not exist.
    #[error("exit '{candidate}': row {row} is asked for, but the data has {rows} rows")]
    RowOutOfRange {
        /// The candidate exit.
        candidate: String,
        /// The row asked for.
        row: usize,
        /// Rows there are.
        rows: usize,
    },
    /// A label is negative or not below the number of classes.
    #[error("exit '{candidate}': row {row} has label {label}, but there are {classes} classes")]
    LabelOutOfRange {
        /// The candidate exit.
        candidate: String,
        /// The row of the label.
        row: usize,
        /// The label.
        label: i64,
        /// Number of classes.
        classes: usize,
    },
    /// A feature or a logit of the plain model is NaN or infinite.
    #[error("exit '{candidate}': {what} of row {row} is not finite (column {column})")]
    NotFinite {
        /// The candidate exit.
        candidate: String,
        /// Which input.
        what: &'static str,
        /// The row.
        row: usize,
        /// The first column that is not finite.
        column: usize,
    },
    /// Too few rows to learn anything from.
    #[error("exit '{candidate}': {found} rows to train on, at least {needed} are needed")]
    TooFewRows {
        /// The candidate exit.
        candidate: String,
        /// Least number of rows.
        needed: usize,
        /// Rows given.
        found: usize,
    },
    /// An option lies outside its range.
    #[error("exit '{candidate}': {option} must be {range}")]
    Option {
        /// The candidate exit.
        candidate: String,
        /// The option.
        option: &'static str,
        /// The values it may take.
        range: &'static str,
    },
    /// The loss cannot be minimised: it is not finite where the fit starts.
    #[error("exit '{candidate}': the optimiser failed: {reason}")]
    Optimiser {
        /// The candidate exit.
        candidate: String,
        /// What it said.
        reason: String,
    },
}

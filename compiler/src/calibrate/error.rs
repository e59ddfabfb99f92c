//! What can be wrong with the data of a calibration.

use thiserror::Error;

/// A refusal to calibrate.
#[derive(Debug, Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum CalibrateError {
    /// There is no candidate exit.
    #[error("there is no candidate exit to calibrate")]
    NoExits,
    /// One input has another length than the others.
    #[error("{what} holds {found} entries, expected {expected}")]
    Length {
        /// Which input, and of which exit.
        what: String,
        /// Entries asked for.
        expected: usize,
        /// Entries given.
        found: usize,
    },
    /// A confidence is NaN or infinite.
    #[error("exit '{exit}': the confidence of row {row} is not finite")]
    NotFinite {
        /// The candidate exit.
        exit: String,
        /// The row.
        row: usize,
    },
    /// A row of the split does not exist.
    #[error("row {row} of the {part} rows does not exist: the data has {rows} rows")]
    RowOutOfRange {
        /// `tune` or `verify`.
        part: &'static str,
        /// The row.
        row: usize,
        /// Rows there are.
        rows: usize,
    },
    /// A row serves both to tune and to verify, or twice to verify.
    #[error("row {row} is used twice, so the bound on the verify rows would not hold")]
    RowTwice {
        /// The row.
        row: usize,
    },
    /// Too few rows for a statement.
    #[error("{found} {part} rows, at least {needed} are needed")]
    TooFewRows {
        /// `tune` or `verify`.
        part: &'static str,
        /// Least number.
        needed: usize,
        /// Rows given.
        found: usize,
    },
    /// The plain model disagrees with itself.
    #[error("row {row}: without labels the plain model is the reference and cannot be wrong")]
    PlainWrong {
        /// The row.
        row: usize,
    },
    /// An option lies outside its range.
    #[error("{option} must be {range}")]
    Option {
        /// The option.
        option: &'static str,
        /// The values it may take.
        range: &'static str,
    },
}

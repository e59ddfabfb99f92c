//! The data of a fit and its checks: after [`check`], indexing needs no further care.

use super::{FitError, FitOptions, HeadKind, L2, MIN_ROWS};

/// The features at one candidate exit.
#[derive(Clone, Copy, Debug)]
pub struct Features<'a> {
    /// The name of the exit, for messages.
    pub candidate: &'a str,
    /// Number of samples n.
    pub rows: usize,
    /// Length d of a feature row.
    pub width: usize,
    /// Row-major `[n, d]`.
    pub values: &'a [f32],
}

impl<'a> Features<'a> {
    /// The features of sample `r`, which must be below `rows`.
    pub(crate) fn row(&self, r: usize) -> &'a [f32] {
        &self.values[r * self.width..(r + 1) * self.width]
    }
}

/// What a head should learn to say.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// The model's own final logits, row-major `[n, classes]`.
    pub logits: &'a [f32],
    /// Number of classes.
    pub classes: usize,
    /// The true class per sample, `[n]`, if known.
    pub labels: Option<&'a [i64]>,
}

/// Checks everything that the data decides and returns the labels of `rows`, empty without labels.
pub(crate) fn check(
    features: &Features<'_>,
    targets: &Targets<'_>,
    rows: &[usize],
    options: &FitOptions,
) -> Result<Vec<usize>, FitError> {
    let candidate = features.candidate;
    check_options(candidate, targets.classes, options)?;
    check_length(candidate, "features", features.values.len(), features.rows, features.width)?;
    check_length(candidate, "plain logits", targets.logits.len(), features.rows, targets.classes)?;
    if let Some(labels) = targets.labels {
        check_length(candidate, "labels", labels.len(), features.rows, 1)?;
    }
    if let Some(&row) = rows.iter().find(|&&r| r >= features.rows) {
        return Err(FitError::RowOutOfRange { candidate: candidate.into(), row, rows: features.rows });
    }
    if rows.len() < MIN_ROWS {
        let (needed, found) = (MIN_ROWS, rows.len());
        return Err(FitError::TooFewRows { candidate: candidate.into(), needed, found });
    }
    check_finite(candidate, "feature", features.values, features.width, rows)?;
    check_finite(candidate, "plain logit", targets.logits, targets.classes, rows)?;
    targets.labels.map_or(Ok(vec![]), |labels| {
        rows.iter().map(|&row| class(candidate, row, labels[row], targets.classes)).collect()
    })
}

fn check_options(candidate: &str, classes: usize, options: &FitOptions) -> Result<(), FitError> {
    let width = match options.kind {
        HeadKind::Mlp { width: Some(width), .. } => width,
        HeadKind::Mlp { width: None, .. } | HeadKind::Linear => 1,
    };
    let l2 = match options.l2 {
        L2::Fixed(l2) => l2,
        L2::Chosen => 0.0,
    };
    let temperature = options.temperature;
    let rules = [
        (classes >= 2, "the number of classes", "2 or more"),
        (width >= 1, "the hidden width", "1 or more"),
        ((0.0..=1.0).contains(&options.alpha), "alpha", "between 0 and 1"),
        (temperature.is_finite() && temperature > 0.0, "the temperature", "above 0 and finite"),
        (l2.is_finite() && l2 >= 0.0, "l2", "0 or more and finite"),
    ];
    match rules.into_iter().find(|(kept, ..)| !kept) {
        Some((_, option, range)) => Err(FitError::Option { candidate: candidate.into(), option, range }),
        None => Ok(()),
    }
}

pub(super) fn check_length(
    candidate: &str,
    what: &'static str,
    found: usize,
    rows: usize,
    width: usize,
) -> Result<(), FitError> {
    match rows.checked_mul(width) {
        Some(expected) if expected == found && width > 0 => Ok(()),
        product => {
            let expected = product.unwrap_or(usize::MAX);
            Err(FitError::Length { candidate: candidate.into(), what, expected, found })
        }
    }
}

pub(super) fn check_finite(
    candidate: &str,
    what: &'static str,
    values: &[f32],
    width: usize,
    rows: &[usize],
) -> Result<(), FitError> {
    for &row in rows {
        let line = &values[row * width..(row + 1) * width];
        if let Some(column) = line.iter().position(|v| !v.is_finite()) {
            return Err(FitError::NotFinite { candidate: candidate.into(), what, row, column });
        }
    }
    Ok(())
}

fn class(candidate: &str, row: usize, label: i64, classes: usize) -> Result<usize, FitError> {
    usize::try_from(label).ok().filter(|&c| c < classes).ok_or_else(|| FitError::LabelOutOfRange {
        candidate: candidate.into(),
        row,
        label,
        classes,
    })
}

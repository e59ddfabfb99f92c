//! Numbers and tables as people read them.

/// `83.42 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// `83.4 %`.
pub(crate) fn coarse(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A difference of shares in percentage points, with its sign: `-0.20`.
pub(crate) fn points(difference: f64) -> String {
    // Avoids a negative zero.
    format!("{:+.2}", 100.0 * difference + 0.0)
}

/// An accuracy, or a loss in nats.
pub(crate) fn quality(accuracy: Option<f64>, loss: Option<f64>) -> String {
    accuracy.map(percent).or(loss.map(|l| format!("{l:.4}"))).unwrap_or_default()
}

/// `1234567` as `1.23 M`.
pub(crate) fn si(value: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.iter().find(|(scale, _)| value.abs() >= *scale) {
        Some((scale, unit)) => format!("{:.2} {unit}", value / scale),
        None => format!("{value:.0}"),
    }
}

/// The name of a row under a mixture: how many inputs take which choice.
pub(crate) fn mixed_part(share: f64, choice: &str) -> String {
    format!("  {}: {choice}", coarse(share))
}

/// A table with aligned columns: the first to the left, the others to the right.
pub(crate) fn table<R: AsRef<[String]>>(rows: &[R]) -> String {
    table_within(rows, usize::MAX)
}

/// The same, `width` columns of text wide at most: long names in the first column are cut.
pub(crate) fn table_within<R: AsRef<[String]>>(rows: &[R], width: usize) -> String {
    let rows: Vec<&[String]> = rows.iter().map(AsRef::as_ref).collect();
    let columns = rows.iter().map(|r| r.len()).max().unwrap_or(0);
    let widest = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..columns).map(widest).collect();
    let others: usize = widths.iter().skip(1).map(|w| w + 2).sum();
    if let Some(first) = widths.first_mut() {
        *first = (*first).min(width.saturating_sub(others));
    }
    let cell = |(c, (text, w)): (usize, (&String, &usize))| match c {
        0 => format!("{:<w$}", cut(text, *w)),
        _ => format!("{text:>w$}"),
    };
    let line = |row: &&[String]| row.iter().zip(&widths).enumerate().map(cell).collect::<Vec<_>>().join("  ");
    rows.iter().map(|row| line(row).trim_end().to_owned() + "\n").collect()
}

/// `text` with its end replaced by `…` if it is longer than `width`.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_long_names_cut() {
        let row = |cells: &[&str]| cells.iter().map(|c| c.to_string()).collect::<Vec<_>>();
        let rows = [row(&["", "work"]), row(&["a long näme", "1"]), row(&["alone"])];
        assert_eq!(table(&rows), "             work\na long näme     1\nalone\n");
        assert_eq!(table_within(&rows, 12), "        work\na lon…     1\nalone\n");
    }
}

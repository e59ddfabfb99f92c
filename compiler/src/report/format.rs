//! Numbers as people read them, and the facts that text and HTML both state.

use super::Report;
use crate::calibrate::{ALWAYS, Drop, ExitQuality, FixedDepth, Measured, Mixture, Outcome, Policy, Share, Verdict};
use crate::display::{coarse, mixed_part, points};

/// A threshold, or what stands for it.
pub(super) fn threshold(exit: &ExitQuality) -> String {
    match exit.threshold {
        _ if !exit.kept => "left out".into(),
        Some(t) if t <= ALWAYS => "all leave".into(),
        Some(t) => format!("{t:.4}"),
        None => "kept".into(),
    }
}

/// A line of the comparison: the model and its rivals.
pub(super) struct Contender {
    /// What it is.
    pub(super) name: String,
    /// Share of correct answers.
    pub(super) quality: f64,
    /// Executed multiply-accumulates per sample.
    pub(super) macs: f64,
    /// The same as a share of the plain model's.
    pub(super) work: f64,
}

/// The dynamic model, or the one that was refused.
pub(super) fn shown(outcome: &Outcome) -> &Measured {
    outcome.refused.as_ref().map_or(&outcome.dynamic, |p| &p.verify)
}

/// Whether there is a policy with exits to show, chosen or refused.
pub(super) fn has_exits(outcome: &Outcome) -> bool {
    outcome.refused.is_some() || !outcome.policy.is_plain()
}

/// The plain model, the dynamic one and its rivals.
pub(super) fn contenders(report: &Report, outcome: &Outcome) -> Vec<Contender> {
    let words = report.mechanism.words();
    let of = |name: &str, m: &Measured| Contender {
        name: name.into(),
        quality: m.accuracy,
        macs: m.macs,
        work: m.macs_ratio,
    };
    let mut all = vec![of(report.base(), &outcome.plain)];
    if has_exits(outcome) {
        let refused = if outcome.refused.is_some() { " (refused)" } else { "" };
        all.push(of(&format!("with {words}{refused}"), shown(outcome)));
    }
    if let Some(rivals) = &outcome.rivals {
        all.extend(rivals.fixed_depth.iter().flat_map(|m| fixed(report, m, &rivals.depths, &outcome.plain)));
        all.push(Contender {
            name: "random, same histogram".into(),
            quality: rivals.random.accuracy,
            macs: shown(outcome).macs,
            work: rivals.random.macs_ratio,
        });
    }
    all
}

/// A mixture of depths and what it is made of, or the one depth that it is.
fn fixed(report: &Report, mixture: &Mixture, depths: &[FixedDepth], plain: &Measured) -> Vec<Contender> {
    let mechanism = report.mechanism;
    let part = |share: &Share| {
        let depth = depths.get(share.choice)?;
        let is_plain = share.choice + 1 == depths.len();
        let name = if is_plain { report.base().into() } else { mechanism.for_all(&depth.name) };
        let name = if mixture.shares.len() > 1 { mixed_part(share.share, &name) } else { name };
        Some(Contender { name, quality: depth.accuracy, macs: depth.macs, work: depth.macs_ratio })
    };
    let whole = Contender {
        name: mechanism.mixed().into(),
        quality: mixture.quality,
        macs: mixture.work,
        work: mixture.work / plain.macs,
    };
    let whole = (mixture.shares.len() > 1).then_some(whole);
    whole.into_iter().chain(mixture.shares.iter().filter_map(part)).collect()
}

/// The verdict in one line.
pub(super) fn headline(report: &Report) -> String {
    if let Some(gates) = &report.gates {
        return super::gates::headline(gates);
    }
    let Some(outcome) = &report.outcome else {
        return format!("No {}: no block of the model can have one.", report.mechanism.words());
    };
    match &outcome.verdict {
        Verdict::Pays => format!(
            "{} pay: {} of the work saved, {} points of {} ({:.2} allowed).",
            report.mechanism.title(),
            coarse(1.0 - outcome.dynamic.macs_ratio),
            points(outcome.dynamic.accuracy - outcome.plain.accuracy),
            report.measure(),
            100.0 * outcome.drop.max_drop,
        ),
        // Only what the user fixed is kept though it does not pay.
        Verdict::DoesNotPay { reason } => {
            let built = if outcome.policy.is_plain() { "" } else { ", but were built as asked" };
            format!("{} do not pay{built}: {reason}.", report.mechanism.title())
        }
    }
}

/// What is known about the drop, in sentences.
pub(super) fn bound(drop: &Drop, measure: &str) -> String {
    format!(
        "On {} rows that nothing was tuned on, {measure} changes by {} points ({} answers lost, {} gained). {}",
        drop.counts.rows,
        points(-drop.estimate),
        drop.counts.lost,
        drop.counts.gained,
        if drop.passed { shown_to_stay(drop) } else { not_shown(drop) },
    )
}

fn shown_to_stay(drop: &Drop) -> String {
    format!(
        "With {:.0} % confidence the drop stays within the {:.2} points allowed ({}; policies tested in a fixed \
         order, Learn then Test, Angelopoulos et al. 2021), if the rows are independent and like those to come. For \
         this policy alone the same test would allow no less than {:.2}.",
        100.0 * drop.confidence,
        100.0 * drop.max_drop,
        drop.method.words(),
        100.0 * drop.bound,
    )
}

fn not_shown(drop: &Drop) -> String {
    format!(
        "The drop is not shown to stay within the {:.2} points allowed: at {:.0} % confidence it may be as large as \
         {:.2} points ({}), if the rows are independent and like those to come.",
        100.0 * drop.max_drop,
        100.0 * drop.confidence,
        100.0 * drop.bound,
        drop.method.words(),
    )
}

/// The rule as it was calibrated.
pub(super) fn rule(outcome: &Outcome, asked: &str) -> String {
    match &outcome.policy {
        Policy::Patience { patience, .. } => format!("{asked}: {patience} kept heads in a row agree"),
        Policy::Threshold { .. } if outcome.policy.is_one_depth() => format!("{asked}: the same for all inputs"),
        Policy::Threshold { .. } => {
            let confidence = if asked.starts_with("entropy") { "1 - entropy / ln(classes)" } else { "the confidence" };
            format!("{asked}: {confidence} is above the exit's threshold")
        }
    }
}

/// The samples that leave at each candidate under the policy shown, then those at full depth, as
/// shares.
pub(super) fn leaving(outcome: &Outcome) -> Vec<f64> {
    let histogram = &shown(outcome).exit_histogram;
    let all = histogram.iter().sum::<usize>().max(1) as f64;
    histogram.iter().map(|&n| n as f64 / all).collect()
}

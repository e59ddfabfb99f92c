//! eec's own passes as the registry knows them.
//!
//! Heads and gates get seeded weights here; fitted ones are for [`crate::exit_heads::apply`] and
//! [`crate::ffn_gates`].

use eec_ir::Precision;

use super::Entry;
use super::options::{Options, number, places};
use crate::exit_heads::Signal;
use crate::explain;
use crate::ffn_gates::{self, Granularity};
use crate::seeded::{
    Seeded, SeededExits, SeededGateRule, SeededGates, SeededRule, SeededTokenExits, SeededTruncate, TokenRule,
};
use crate::select_early::SelectEarly;
use crate::simplify::Simplify;
use crate::store_weights::StoreWeights;

const AT: &str = "blocks, in order of depth: [1, 3]";
const HEAD: &str = "linear (if left out), mlp:WIDTH, final";

/// eec's own passes.
pub(super) fn entries() -> Vec<Entry> {
    vec![
        Entry::new(Simplify::NAME, "turns what exporters write in many nodes into what it means", |_| {
            Ok(Box::new(Simplify))
        })
        .explained(explain::simplify),
        Entry::new(SelectEarly::NAME, "computes only the rows that are read", |_| Ok(Box::new(SelectEarly)))
            .explained(explain::select_early),
        Entry::new(StoreWeights::NAME, "stores the weights of products in a narrow form", |options| {
            Ok(Box::new(StoreWeights { precision: options.required("as", Precision::from_name)? }))
        })
        .option("as", "f32, f16, bf16, int8")
        .explained(explain::store_weights),
        Entry::new(SeededExits::NAME, "inserts early exits, their heads with seeded weights", |options| {
            Ok(Box::new(SeededExits {
                at: options.required("at", places)?,
                head: options.take("head", head)?.unwrap_or(Seeded::Linear),
                rule: options.required("rule", rule)?,
            }))
        })
        .option("at", AT)
        .option("head", HEAD)
        .option("rule", "maxprob:T, margin:T, entropy:T (leave above T, where entropy counts as 1 - H/ln(classes); T/T/… for one each), patience:N")
        .explained(|graph, cx| explain::exits(SeededExits::NAME, graph, cx)),
        Entry::new(SeededTruncate::NAME, "cuts the model after a block, with a head of seeded weights", |options| {
            Ok(Box::new(SeededTruncate {
                at: options.required("at", number)?,
                head: options.take("head", head)?.unwrap_or(Seeded::Linear),
            }))
        })
        .option("at", "a block")
        .option("head", HEAD)
        .explained(|graph, cx| explain::exits(SeededTruncate::NAME, graph, cx)),
        Entry::new(ffn_gates::NAME, "lets tokens skip FFNs, by gates and replacements of seeded weights", gates)
            .option("at", AT)
            .option("rule", "static, cosine:T/K/W (threshold, FFNs skipped next, warm-up), learned:T (of the score)")
            .option("granularity", "row (if left out), all")
            .option("replace", "the rank of what runs in a skipped FFN's place; nothing if left out")
            .explained(explain::ffn_gates),
        Entry::new(SeededTokenExits::NAME, "lets visual tokens leave the sequence", token_exits)
            .option("at", AT)
            .option("rule", "fixed, learned:T, entropy:T")
            .option("span", "START+LEN; the first span of visual tokens if left out")
            .explained(explain::token_exits),
    ]
}

fn gates(options: &mut Options<'_>) -> super::Made {
    Ok(Box::new(SeededGates {
        at: options.required("at", places)?,
        rule: options.required("rule", gate_rule)?,
        granularity: options.take("granularity", Granularity::named)?.unwrap_or_default(),
        replace: options.take("replace", |t| number(t).filter(|r| *r > 0))?,
    }))
}

fn token_exits(options: &mut Options<'_>) -> super::Made {
    Ok(Box::new(SeededTokenExits {
        at: options.required("at", places)?,
        rule: options.required("rule", token_rule)?,
        span: options.take("span", span)?,
    }))
}

fn head(text: &str) -> Option<Seeded> {
    match (text, text.split_once(':')) {
        ("linear", _) => Some(Seeded::Linear),
        ("final", _) => Some(Seeded::Final),
        (_, Some(("mlp", hidden))) => hidden.parse().ok().filter(|h| *h > 0).map(Seeded::Mlp),
        _ => None,
    }
}

fn rule(text: &str) -> Option<SeededRule> {
    let (name, value) = text.split_once(':')?;
    let signal = match name {
        "patience" => return value.parse().ok().map(SeededRule::Patience),
        "maxprob" => Signal::MaxProb,
        "margin" => Signal::Margin,
        "entropy" => Signal::Entropy,
        _ => return None,
    };
    let thresholds: Option<Vec<f32>> = value.split('/').map(|t| t.parse().ok()).collect();
    thresholds.map(|t| SeededRule::Threshold(signal, t))
}

fn gate_rule(text: &str) -> Option<SeededGateRule> {
    match (text, text.split_once(':')) {
        ("static", _) => Some(SeededGateRule::Static),
        (_, Some(("learned", threshold))) => threshold.parse().ok().map(SeededGateRule::Learned),
        (_, Some(("cosine", values))) => {
            let [threshold, skip_next, warm_up] = values.split('/').collect::<Vec<_>>().try_into().ok()?;
            let (threshold, skip_next, warm_up) = (threshold.parse().ok()?, number(skip_next)?, number(warm_up)?);
            Some(SeededGateRule::Cosine { threshold, skip_next, warm_up })
        }
        _ => None,
    }
}

fn span(text: &str) -> Option<(i64, i64)> {
    let (start, len) = text.split_once('+')?;
    Some((start.trim().parse().ok()?, len.trim().parse().ok()?))
}

fn token_rule(text: &str) -> Option<TokenRule> {
    let threshold = |t: &str| t.parse().ok();
    match text.split_once(':') {
        None if text == "fixed" => Some(TokenRule::Fixed),
        Some(("learned", t)) => threshold(t).map(TokenRule::Learned),
        Some(("entropy", t)) => threshold(t).map(TokenRule::Entropy),
        _ => None,
    }
}

//! Passes by name: `simplify, exit-heads{at=[1, 3], head=linear, rule=maxprob:0.9}`.
//!
//! For text: test cases and the command that runs passes on a file. Heads and gates get seeded
//! weights here; fitted ones are for [`crate::exit_heads::apply`] and [`crate::ffn_gates`].

use eec_ir::Precision;

use crate::exit_heads::Signal;
use crate::ffn_gates::{self, Granularity};
use crate::pass::Pass;
use crate::seeded::{
    Seeded, SeededExits, SeededGateRule, SeededGates, SeededRule, SeededTokenExits, SeededTruncate, TokenRule,
};
use crate::simplify::Simplify;
use crate::store_weights::StoreWeights;

/// A text that names no pass, or options that the pass does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("in `{text}`: {reason}")]
pub struct PipelineError {
    /// The pass as written.
    pub text: String,
    /// What was expected and what was found.
    pub reason: String,
}

/// The passes that `text` lists, separated by commas:
///
/// - `simplify`;
/// - `store-weights{as=bf16}`, or `as=int8`;
/// - `exit-heads{at=[1, 3], head=HEAD, rule=RULE}`, where `HEAD` is `linear` (the default), `mlp:8`
///   (hidden width) or `final`, and `RULE` is `maxprob:T`, `margin:T`, `entropy:T` (a sample leaves
///   when the [`Signal`] exceeds T) or `patience:N`; one T for all exits, or `T/T/…`;
/// - `truncate{at=1, head=HEAD}`;
/// - `ffn-gates{at=[1, 2], rule=RULE, granularity=G, replace=R}`, where `RULE` is `static`,
///   `cosine:T/K/W` (threshold, FFNs that are skipped next, warm-up) or `learned:T` (threshold of the
///   score), `G` is `row` (the default) or `all`, and `R` is the rank of a replacement (none if left
///   out);
/// - `token-exits{at=[1, 3], rule=RULE}`, where `RULE` is `fixed`, `learned:T` or `entropy:T`; the
///   tokens are those of the first span that is found, or `span=START+LEN`.
///
/// Heads, gates and replacements have the same weights wherever the same block gets the same kind.
pub fn pipeline(text: &str) -> Result<Vec<Box<dyn Pass>>, PipelineError> {
    let parts = split(text).into_iter().map(str::trim).filter(|p| !p.is_empty());
    parts.map(|part| pass(part).map_err(|reason| PipelineError { text: part.to_string(), reason })).collect()
}

fn pass(text: &str) -> Result<Box<dyn Pass>, String> {
    let (name, options) = match text.split_once('{') {
        Some((name, rest)) => (name.trim(), rest.strip_suffix('}').ok_or("expected `}` at the end")?),
        None => (text, ""),
    };
    let mut options = Options::parse(options)?;
    Ok(match name {
        Simplify::NAME => {
            options.check(&[])?;
            Box::new(Simplify)
        }
        StoreWeights::NAME => {
            options.check(&["as"])?;
            Box::new(StoreWeights { precision: options.required("as", Precision::from_name)? })
        }
        SeededExits::NAME => {
            options.check(&["at", "head", "rule"])?;
            Box::new(SeededExits {
                at: options.required("at", places)?,
                head: options.take("head", head)?.unwrap_or(Seeded::Linear),
                rule: options.required("rule", rule)?,
            })
        }
        SeededTruncate::NAME => {
            options.check(&["at", "head"])?;
            Box::new(SeededTruncate {
                at: options.required("at", number)?,
                head: options.take("head", head)?.unwrap_or(Seeded::Linear),
            })
        }
        ffn_gates::NAME => {
            options.check(&["at", "rule", "granularity", "replace"])?;
            Box::new(SeededGates {
                at: options.required("at", places)?,
                rule: options.required("rule", gate_rule)?,
                granularity: options.take("granularity", Granularity::named)?.unwrap_or_default(),
                replace: options.take("replace", |t| number(t).filter(|r| *r > 0))?,
            })
        }
        SeededTokenExits::NAME => {
            options.check(&["at", "rule", "span"])?;
            Box::new(SeededTokenExits {
                at: options.required("at", places)?,
                rule: options.required("rule", token_rule)?,
                span: options.take("span", span)?,
            })
        }
        _ => {
            let known = [
                Simplify::NAME,
                StoreWeights::NAME,
                SeededExits::NAME,
                SeededTruncate::NAME,
                ffn_gates::NAME,
                SeededTokenExits::NAME,
            ];
            let known = known.join(", ");
            return Err(format!("expected one of the passes {known}, found `{name}`"));
        }
    })
}

/// The parts between commas that stand in no bracket.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (i, c) in text.char_indices() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Options that no field has taken yet.
struct Options<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Options<'t> {
    fn parse(text: &'t str) -> Result<Self, String> {
        let parts = split(text).into_iter().map(str::trim).filter(|p| !p.is_empty());
        let pair = |p: &'t str| match p.split_once('=') {
            Some((key, value)) => Ok((key.trim(), value.trim())),
            None => Err(format!("expected `key=value`, found `{p}`")),
        };
        parts.map(pair).collect::<Result<_, _>>().map(Options)
    }

    /// Refuses options that are not among `known` or are given twice, before any is missed.
    fn check(&self, known: &[&str]) -> Result<(), String> {
        for (i, (key, _)) in self.0.iter().enumerate() {
            if !known.contains(key) {
                return Err(format!("there is no option `{key}`"));
            }
            if self.0[..i].iter().any(|(k, _)| k == key) {
                return Err(format!("the option `{key}` is given twice"));
            }
        }
        Ok(())
    }

    fn take<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, String> {
        let Some(at) = self.0.iter().position(|(k, _)| *k == key) else {
            return Ok(None);
        };
        let (_, value) = self.0.remove(at);
        read(value).map(Some).ok_or_else(|| format!("`{key}` cannot be `{value}`"))
    }

    fn required<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, String> {
        self.take(key, read)?.ok_or_else(|| format!("expected the option `{key}`"))
    }
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}

fn places(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner.split(',').map(|n| n.trim().parse().ok()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<&'static str>, String> {
        pipeline(text).map(|p| p.iter().map(|p| p.name()).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn passes_are_found_by_name_with_their_options() {
        assert_eq!(
            names("simplify, exit-heads{at=[1, 3], rule=maxprob:0.5/0.9}, simplify"),
            Ok(vec!["simplify", "exit-heads", "simplify"])
        );
        assert_eq!(names("truncate{at=2, head=mlp:8}"), Ok(vec!["truncate"]));
        let gates =
            "ffn-gates{at=[1], rule=cosine:0.9/2/4, granularity=all, replace=3}, ffn-gates{at=[0], rule=learned:-inf}";
        assert_eq!(names(gates), Ok(vec!["ffn-gates"; 2]));
        assert_eq!(names("store-weights{as=int8}"), Ok(vec!["store-weights"]));
        assert_eq!(names(""), Ok(vec![]));
    }

    #[test]
    fn mistakes_are_named() {
        let one = |text: &str, expected: &str| {
            let error = names(text).err().unwrap_or_default();
            assert!(error.contains(expected), "{text}: {error}");
        };
        one("simplfy", "found `simplfy`");
        one("simplify{level=2}", "there is no option `level`");
        one("exit-heads{at=[1]}", "expected the option `rule`");
        one("exit-heads{at=1, rule=maxprob:1}", "`at` cannot be `1`");
        one("exit-heads{at=[1], head=mlp:0, rule=maxprob:1}", "`head` cannot be `mlp:0`");
        one("exit-heads{at=[1], rule=maxprob:x}", "`rule` cannot be `maxprob:x`");
        one("ffn-gates{at=[1], rule=cosine:0.9/1}", "`rule` cannot be `cosine:0.9/1`");
        one("ffn-gates{at=[1], rule=static, granularity=some}", "`granularity` cannot be `some`");
        one("ffn-gates{at=[1], rule=static, replace=0}", "`replace` cannot be `0`");
        one("truncate{at=1, at=2}", "`at` is given twice");
        one("exit-heads{plaice=[1]}", "there is no option `plaice`");
        one("store-weights{as=int4}", "`as` cannot be `int4`");
        one("truncate{at=1", "expected `}`");
    }
}

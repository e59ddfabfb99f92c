//! Passes by name: `simplify, exit-heads{at=[1, 3], head=linear, rule=maxprob:0.9}`.
//!
//! For text: test cases and the command that runs passes on a file. Heads get seeded weights here;
//! fitted ones are for [`crate::exit_heads::apply`].

use eec_ir::{Graph, Tensor};

use crate::exit_heads::{Activation, Exit, ExitHeads, Head, Rule, Signal, apply_to, feature};
use crate::pass::{Changed, Context, Pass, PassError};
use crate::simplify::Simplify;
use crate::structure::{Structure, analyse};
use crate::truncate::truncate;

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
/// - `exit-heads{at=[1, 3], head=HEAD, rule=RULE}`, where `HEAD` is `linear` (the default), `mlp:8`
///   (hidden width) or `final`, and `RULE` is `maxprob:T`, `margin:T`, `entropy:T` (a sample leaves
///   when the [`Signal`] exceeds T) or `patience:N`; one T for all exits, or `T/T/…`;
/// - `truncate{at=1, head=HEAD}`.
///
/// Heads have the same weights wherever the same block gets the same kind of head.
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
        _ => {
            let known = [Simplify::NAME, SeededExits::NAME, SeededTruncate::NAME].join(", ");
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

/// A head whose weights come from a seed.
#[derive(Clone, Copy)]
enum Seeded {
    Linear,
    Mlp(usize),
    Final,
}

impl Seeded {
    /// The head for the exit after `block`.
    fn head(self, graph: &Graph, structure: &Structure, block: usize) -> Result<Head, String> {
        if let Seeded::Final = self {
            return Ok(Head::Final);
        }
        let width = feature(graph, structure, block).map_err(|e| e.to_string())?.width;
        let ty = graph.ty(structure.output);
        let classes = ty.dims.last().and_then(|d| d.as_const()).and_then(|c| usize::try_from(c).ok());
        let classes =
            classes.ok_or_else(|| format!("expected a fixed number of classes, found an output of type {ty}"))?;
        let seed = |part| (block * 4 + part) as u64;
        Ok(match self {
            Seeded::Mlp(hidden) => Head::Mlp {
                hidden_weight: weight(seed(0), &[width, hidden]),
                hidden_bias: weight(seed(1), &[hidden]),
                activation: Activation::Relu,
                weight: weight(seed(2), &[hidden, classes]),
                bias: weight(seed(3), &[classes]),
            },
            Seeded::Linear | Seeded::Final => {
                Head::Linear { weight: weight(seed(2), &[width, classes]), bias: weight(seed(3), &[classes]) }
            }
        })
    }
}

/// Weights in `[-1, 1)`, equal for equal seeds: SplitMix64 (Steele et al. 2014) of the position.
fn weight(seed: u64, dims: &[usize]) -> Tensor {
    let element = |i: usize| {
        let word = (seed << 32).wrapping_add(i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let data: Vec<f32> = (0..dims.iter().product()).map(element).collect();
    // The data has as many elements as the dims ask for.
    Tensor::new(dims, data).unwrap_or_else(|_| Tensor::vector(Vec::<f32>::new()))
}

/// A rule before the number of exits is known.
#[derive(Clone)]
enum SeededRule {
    Threshold(Signal, Vec<f32>),
    Patience(usize),
}

/// [`crate::exit_heads`] with seeded heads.
struct SeededExits {
    at: Vec<usize>,
    head: Seeded,
    rule: SeededRule,
}

impl SeededExits {
    const NAME: &'static str = "exit-heads";
}

impl Pass for SeededExits {
    fn name(&self) -> &'static str {
        SeededExits::NAME
    }

    fn run(&self, graph: &mut Graph, _cx: &mut Context) -> Result<Changed, PassError> {
        let fail = |e: String| PassError::new(SeededExits::NAME, e);
        let structure = analyse(graph).map_err(|e| fail(e.to_string()))?;
        let exit = |block: &usize| Ok(Exit { block: *block, head: self.head.head(graph, &structure, *block)? });
        let exits = self.at.iter().map(exit).collect::<Result<Vec<_>, String>>().map_err(fail)?;
        let rule = match &self.rule {
            SeededRule::Patience(count) => Rule::Patience { count: *count },
            SeededRule::Threshold(signal, thresholds) => {
                let thresholds = match thresholds.as_slice() {
                    [one] => vec![*one; exits.len()],
                    several => several.to_vec(),
                };
                Rule::Threshold { signal: *signal, thresholds }
            }
        };
        *graph = apply_to(graph, &structure, &ExitHeads { exits, rule }).map_err(|e| fail(e.to_string()))?;
        Ok(Changed::Yes)
    }
}

/// [`crate::truncate`] with a seeded head.
struct SeededTruncate {
    at: usize,
    head: Seeded,
}

impl SeededTruncate {
    const NAME: &'static str = "truncate";
}

impl Pass for SeededTruncate {
    fn name(&self) -> &'static str {
        SeededTruncate::NAME
    }

    fn run(&self, graph: &mut Graph, _cx: &mut Context) -> Result<Changed, PassError> {
        let fail = |e: String| PassError::new(SeededTruncate::NAME, e);
        let structure = analyse(graph).map_err(|e| fail(e.to_string()))?;
        let head = self.head.head(graph, &structure, self.at).map_err(fail)?;
        *graph = truncate(graph, &structure, self.at, &head).map_err(|e| fail(e.to_string()))?;
        Ok(Changed::Yes)
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
        one("truncate{at=1, at=2}", "`at` is given twice");
        one("exit-heads{plaice=[1]}", "there is no option `plaice`");
        one("truncate{at=1", "expected `}`");
    }

    #[test]
    fn weights_depend_on_seed_and_position() {
        let (a, b) = (weight(8, &[3, 2]), weight(9, &[3, 2]));
        assert_ne!(a, b);
        let values = a.elements::<f32>().map(|v| v.into_owned()).unwrap_or_default();
        assert!(values.windows(2).all(|p| p[0] != p[1]) && values.iter().all(|v| v.abs() <= 1.0));
    }
}

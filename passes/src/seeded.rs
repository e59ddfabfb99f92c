//! Passes whose heads and gates get seeded weights, for text: equal wherever the same block gets the
//! same kind.

use eec_ir::{Dim, Graph, Tensor};

use crate::exit_heads::{self, Activation, Exit, ExitHeads, Head, Rule, Signal, apply_to, feature};
use crate::ffn_gates::{self, FfnGates, Gate, Granularity, LearnedGate, Replacement};
use crate::pass::{Changed, Context, Pass, PassError};
use crate::structure::{Structure, analyse};
use crate::token_exits::{self, Decision, Span, TokenExit, TokenExits, text_feature_width};
use crate::truncate::truncate;

/// A head whose weights come from a seed.
#[derive(Clone, Copy)]
pub(crate) enum Seeded {
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
        Ok(self.sized(block, width, classes))
    }

    /// A head from a feature of this width.
    fn sized(self, block: usize, width: usize, classes: usize) -> Head {
        let seed = |part| (block * 4 + part) as u64;
        match self {
            Seeded::Final => Head::Final,
            Seeded::Mlp(hidden) => Head::Mlp {
                hidden_weight: weight(seed(0), &[width, hidden]),
                hidden_bias: weight(seed(1), &[hidden]),
                activation: Activation::Relu,
                weight: weight(seed(2), &[hidden, classes]),
                bias: weight(seed(3), &[classes]),
            },
            Seeded::Linear => {
                Head::Linear { weight: weight(seed(2), &[width, classes]), bias: weight(seed(3), &[classes]) }
            }
        }
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
pub(crate) enum SeededRule {
    Threshold(Signal, Vec<f32>),
    Patience(usize),
}

/// [`crate::exit_heads`] with seeded heads.
pub(crate) struct SeededExits {
    pub(crate) at: Vec<usize>,
    pub(crate) head: Seeded,
    pub(crate) rule: SeededRule,
}

impl SeededExits {
    pub(crate) const NAME: &'static str = exit_heads::NAME;
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
pub(crate) struct SeededTruncate {
    pub(crate) at: usize,
    pub(crate) head: Seeded,
}

impl SeededTruncate {
    pub(crate) const NAME: &'static str = "truncate";
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

/// When tokens skip, before the number of gates is known.
#[derive(Clone, Copy)]
pub(crate) enum SeededGateRule {
    Static,
    Cosine { threshold: f32, skip_next: usize, warm_up: usize },
    Learned(f32),
}

/// [`crate::ffn_gates`] with seeded classifiers and replacements.
pub(crate) struct SeededGates {
    pub(crate) at: Vec<usize>,
    pub(crate) rule: SeededGateRule,
    pub(crate) granularity: Granularity,
    /// The rank of replacements.
    pub(crate) replace: Option<usize>,
}

impl SeededGates {
    fn options(&self, graph: &Graph, structure: &Structure) -> FfnGates {
        // The pass refuses a block that does not exist, so any width will do for it.
        let width = |block: usize| {
            let last = structure.blocks.get(block).and_then(|b| graph.ty(b.output).dims.last());
            last.and_then(Dim::as_const).and_then(|w| usize::try_from(w).ok()).unwrap_or(1)
        };
        let gate = |block: &usize| Gate {
            block: *block,
            replacement: self.replace.map(|rank| replacement(*block, width(*block), rank)),
        };
        let learned = |block: &usize, threshold| LearnedGate {
            hidden: None,
            weight: weight((*block * 8 + 4) as u64, &[width(*block), 1]),
            bias: 0.0,
            threshold,
        };
        let rule = match self.rule {
            SeededGateRule::Static => ffn_gates::Rule::Static,
            SeededGateRule::Cosine { threshold, skip_next, warm_up } => {
                ffn_gates::Rule::Cosine { threshold, skip_next, warm_up }
            }
            SeededGateRule::Learned(t) => {
                ffn_gates::Rule::Learned { gates: self.at.iter().map(|b| learned(b, t)).collect() }
            }
        };
        FfnGates { gates: self.at.iter().map(gate).collect(), rule, granularity: self.granularity }
    }
}

fn replacement(block: usize, width: usize, rank: usize) -> Replacement {
    let seed = |part| (block * 8 + part) as u64;
    Replacement {
        down: weight(seed(0), &[width, rank]),
        down_bias: weight(seed(1), &[rank]),
        activation: Some(Activation::Relu),
        up: weight(seed(2), &[rank, width]),
        up_bias: weight(seed(3), &[width]),
    }
}

impl Pass for SeededGates {
    fn name(&self) -> &'static str {
        ffn_gates::NAME
    }

    fn run(&self, graph: &mut Graph, _cx: &mut Context) -> Result<Changed, PassError> {
        let fail = |e: String| PassError::new(ffn_gates::NAME, e);
        let structure = analyse(graph).map_err(|e| fail(e.to_string()))?;
        let options = self.options(graph, &structure);
        *graph = ffn_gates::apply_to(graph, &structure, &options).map_err(|e| fail(e.to_string()))?;
        Ok(Changed::Yes)
    }
}

/// When tokens leave, before the heads are known.
#[derive(Clone, Copy)]
pub(crate) enum TokenRule {
    Fixed,
    Learned(f32),
    Entropy(f32),
}

/// [`crate::token_exits`] with seeded heads.
pub(crate) struct SeededTokenExits {
    pub(crate) at: Vec<usize>,
    pub(crate) rule: TokenRule,
    pub(crate) span: Option<(i64, i64)>,
}

impl SeededTokenExits {
    pub(crate) const NAME: &'static str = "token-exits";

    fn decision(&self, graph: &Graph, structure: &Structure, block: usize) -> Result<Decision, String> {
        Ok(match self.rule {
            TokenRule::Fixed => Decision::Always,
            TokenRule::Entropy(threshold) => {
                Decision::Entropy { head: Seeded::Linear.head(graph, structure, block)?, threshold }
            }
            TokenRule::Learned(threshold) => {
                let width = text_feature_width(graph, structure, block);
                let width = width.ok_or_else(|| format!("the width after block {block} is not known"))?;
                Decision::Learned { head: Seeded::Linear.sized(block, width, 2), threshold }
            }
        })
    }
}

impl Pass for SeededTokenExits {
    fn name(&self) -> &'static str {
        SeededTokenExits::NAME
    }

    fn run(&self, graph: &mut Graph, _cx: &mut Context) -> Result<Changed, PassError> {
        let fail = |e: String| PassError::new(SeededTokenExits::NAME, e);
        let structure = analyse(graph).map_err(|e| fail(e.to_string()))?;
        let span = match self.span {
            Some((start, len)) => Span::at(graph, &structure, start, len).map_err(fail)?,
            None => Span::find(graph, &structure).into_iter().next().ok_or_else(|| fail("no visual tokens".into()))?,
        };
        let exit = |block: &usize| Ok(TokenExit { block: *block, decision: self.decision(graph, &structure, *block)? });
        let exits = self.at.iter().map(exit).collect::<Result<Vec<_>, String>>().map_err(fail)?;
        let options = TokenExits { span, exits };
        *graph = token_exits::apply_to(graph, &structure, &options).map_err(|e| fail(e.to_string()))?;
        Ok(Changed::Yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_depend_on_seed_and_position() {
        let (a, b) = (weight(8, &[3, 2]), weight(9, &[3, 2]));
        assert_ne!(a, b);
        let values = a.elements::<f32>().map(|v| v.into_owned()).unwrap_or_default();
        assert!(values.windows(2).all(|p| p[0] != p[1]) && values.iter().all(|v| v.abs() <= 1.0));
    }
}

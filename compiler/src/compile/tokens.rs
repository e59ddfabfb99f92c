//! The stage of token exits. A gate after a block is fitted by counterfactual (DyVTE, Wu et al.,
//! arXiv 2411.19628): the model is run with all visual tokens gone after the block, and the gate
//! learns for which inputs that changes nothing. Where tokens leave is then calibrated as where
//! samples leave, every block's static edit playing the part of an exit.

use eec_ir::Graph;
use eec_passes::exit_heads::{Head, Signal};
use eec_passes::structure::Structure;
use eec_passes::token_exits::{self, Decision, Span, TokenExit, TokenExits};

use super::costs;
use super::exits::{check_labels, feature_graph};
use super::heads::{Heads, Taps};
use super::places::Standing;
use super::work::{Base, Work, names, pass_error};
use crate::Error;
use crate::calibrate::{self, ALWAYS, Costs, Outcome, Policy, Reference, Samples, Split};
use crate::capture::Column;
use crate::dataset::Dataset;
use crate::fit::{Activation, FitOptions, FitStats, HeadKind, Targets, argmax};
use crate::model::TokenPlaces;
use crate::quality::cross_entropy;
use crate::recipe::{self, TokenRule, VisualTokens};
use crate::report::{self, Mechanism, Report};

/// The counterfactual loss may be this much larger where a gate is to fire, as published.
const LOSS_TOLERANCE: f64 = 1.03;

/// Hidden units of a gate, if the recipe does not say: enough for two summed-up tokens, and cheap
/// beside a block.
const GATE_WIDTH: usize = 16;

/// The stage.
pub(super) struct Tokens<'a> {
    base: &'a Base<'a>,
    work: &'a Work<'a>,
    /// The tokens that the recipe names.
    named_span: Option<(i64, i64)>,
}

/// What the stage gives.
#[derive(Default)]
pub(super) struct Made {
    /// Absent if no token exit pays.
    pub(super) options: Option<TokenExits>,
    /// What it is judged with, if there is one.
    pub(super) places: Option<TokenPlaces>,
    pub(super) report: Option<Report>,
}

/// Where tokens may leave, and what the model answers if all do.
struct Oracle<'a> {
    data: &'a Dataset,
    span: Span,
    blocks: Vec<usize>,
    /// The model's own scores.
    plain: Column,
    /// Per block, the scores of the static edit.
    without: Vec<Column>,
    /// Per block, multiply-accumulates of a sample whose tokens leave there; then the model's own.
    macs: Vec<u64>,
}

impl<'a> Tokens<'a> {
    /// The stage on a model; an error if the recipe names tokens by an input that does not mark them.
    pub(super) fn new(base: &'a Base<'a>, work: &'a Work<'a>) -> Result<Self, Error> {
        let named_span = match &work.recipe().token_exit.tokens {
            VisualTokens::Auto => None,
            VisualTokens::Range { start, len } => Some((*start as i64, *len as i64)),
            VisualTokens::Input(name) => {
                let (start, len) = work.data_for("a mask of visual tokens")?.span_of(name)?;
                Some((start as i64, len as i64))
            }
        };
        Ok(Tokens { base, work, named_span })
    }

    /// Fits and calibrates with data; takes a fixed block without. A block that the recipe names stays,
    /// whether it pays or not; with data it is judged.
    pub(super) fn make(&self) -> Result<Made, Error> {
        let recipe = &self.work.recipe().token_exit;
        let span = span(self.base.graph, self.base.structure, self.named_span)?;
        let decides = !matches!(recipe.rule, TokenRule::Fixed(_));
        let standing = Standing::of(token_exits::candidates(self.base.graph, self.base.structure, &span, decides));
        let standing = standing.at(&recipe.at, "token exit")?;
        if let TokenRule::Fixed(Some(block)) = recipe.rule {
            let chosen = recipe::Places::Blocks(vec![block]);
            let standing = standing.at(&chosen, "token exit")?;
            if let Some(data) = self.work.data {
                return self.calibrate(&self.oracle(data, span, standing.blocks)?);
            }
            let options = fixed(&span, block);
            let places = Some(self.places(standing.blocks, &options));
            return Ok(Made { options: Some(options), places, report: None });
        }
        let data = self.work.data_for("choosing token exits")?;
        if standing.blocks.is_empty() {
            let asked = self.work.recipe();
            let why = &standing.reasons;
            let report = report::without_candidates(self.work.path, data, asked, Mechanism::TokenExits, why);
            return Ok(Made { report: Some(report), ..Made::default() });
        }
        let oracle = self.oracle(data, span, standing.blocks)?;
        self.calibrate(&oracle)
    }

    fn places(&self, candidates: Vec<usize>, chosen: &TokenExits) -> TokenPlaces {
        let exits = chosen.exits.iter().map(|e| e.block).collect();
        TokenPlaces { span: self.named_span, candidates, exits, decides: chosen.decides() }
    }

    fn oracle<'d>(&self, data: &'d Dataset, span: Span, blocks: Vec<usize>) -> Result<Oracle<'d>, Error> {
        let mut plain = self.work.run(self.base.graph, data, "plain model")?;
        // FFN gates decide in the graph, so work is what runs executed.
        let per_row = |macs: u64| macs / data.rows.max(1) as u64;
        let whole = per_row(plain.macs);
        let plain = plain.columns.swap_remove(self.base.structure.main_output);
        check_labels(data, plain.width)?;
        let (mut without, mut macs) = (Vec::new(), Vec::new());
        for block in &blocks {
            let edit = token_exits::apply_to(self.base.graph, self.base.structure, &fixed(&span, *block));
            let edit = edit.map_err(pass_error("token-exits"))?;
            let stage = format!("without visual tokens after block {block}");
            let mut run = self.work.run(&edit, data, &stage)?;
            macs.push(per_row(run.macs));
            without.push(run.columns.swap_remove(self.base.structure.main_output));
        }
        macs.push(whole);
        Ok(Oracle { data, span, blocks, plain, without, macs })
    }

    fn calibrate(&self, oracle: &Oracle) -> Result<Made, Error> {
        let split = self.work.split(oracle.data.rows)?;
        let gates = match self.work.recipe().token_exit.rule {
            TokenRule::Fixed(_) | TokenRule::None => None,
            TokenRule::Learned | TokenRule::Auto => Some(self.learned(oracle, &split)?),
            TokenRule::Entropy => Some(self.answers(oracle, &split)?),
        };
        let goal = self.work.goal();
        let fixed = || -> Result<_, Error> {
            let (samples, costs) = (oracle.samples(&[]), oracle.costs(&[]));
            let outcome = if let TokenRule::Fixed(Some(_)) = self.work.recipe().token_exit.rule {
                let only = vec![calibrate::ThresholdExit { exit: 0, threshold: ALWAYS }];
                calibrate::judge(Policy::Threshold { exits: only }, &samples, &costs, &split, &goal)?
            } else {
                calibrate::fixed_depth(&samples, &costs, &split, &goal)?
            };
            Ok((samples, costs, outcome))
        };
        let adaptive = |gates: &Gates| -> Result<_, Error> {
            let (samples, costs) = (oracle.samples(&gates.confidence), oracle.costs(&gates.macs));
            let outcome = calibrate::calibrate(&samples, &costs, &split, &goal)?;
            Ok((samples, costs, outcome))
        };
        let (samples, costs, outcome) = match &gates {
            None => fixed()?,
            Some(gates) => {
                let adaptive = adaptive(gates)?;
                // With auto, a fixed block takes over where deciding per input does not pay.
                let settled = adaptive.2.verdict.pays() || self.work.recipe().token_exit.rule != TokenRule::Auto;
                if settled { adaptive } else { fixed()? }
            }
        };
        let options = oracle.options(&outcome, gates.as_ref());
        let report = Report::new(report::Inputs {
            model: self.work.path,
            data: oracle.data,
            recipe: self.work.recipe(),
            mechanism: Mechanism::TokenExits,
            is_changed: self.base.is_changed(),
            exits: &samples.exits,
            costs: &costs,
            reference: samples.reference,
            split: &split,
            outcome: &outcome,
            stats: gates.as_ref().map_or(&[], |g| &g.stats),
        });
        let places = options.as_ref().map(|options| self.places(oracle.blocks.clone(), options));
        Ok(Made { options, places, report: Some(report) })
    }

    /// Gates on the text, fitted to the counterfactual.
    fn learned(&self, oracle: &Oracle, split: &Split) -> Result<Gates, Error> {
        let Base { graph, structure, .. } = *self.base;
        let taps = token_exits::with_taps(graph, structure, &oracle.span, &oracle.blocks);
        let captured =
            self.work.run(&taps.map_err(pass_error("token-exits"))?, oracle.data, "reading text features")?;
        let columns = captured.columns.get(1..).unwrap_or_default();
        let labels: Vec<Vec<i64>> = oracle.without.iter().map(|w| oracle.unneeded(w)).collect();
        let zeros = vec![0.0; 2 * oracle.data.rows];
        let target = |l| Targets { logits: &zeros, classes: 2, labels: Some(l) };
        let targets: Vec<Targets> = labels.iter().map(|l| target(l.as_slice())).collect();
        let width = Some(self.work.recipe().token_exit.width.unwrap_or(GATE_WIDTH));
        let kind = HeadKind::Mlp { width, activation: Activation::GeluTanh };
        let options = FitOptions { kind, alpha: 1.0, seed: self.work.recipe().seed, ..FitOptions::default() };
        let taps = Taps { blocks: &oracle.blocks, columns };
        let heads = Heads::fit(self.work, taps, &targets, &split.tune, options)?;
        let judged = heads.judge(self.work, taps, oracle.data.rows, 2, Signal::Class(1))?;
        Ok(Gates {
            macs: heads.all.iter().map(dense_macs).collect(),
            confidence: judged.into_iter().map(|j| j.confidence).collect(),
            heads: heads.all,
            stats: heads.stats,
            form: |head, threshold| Decision::Learned { head, threshold },
        })
    }

    /// Answer heads as for early exits, whose certainty decides.
    fn answers(&self, oracle: &Oracle, split: &Split) -> Result<Gates, Error> {
        let captured =
            self.work.run(&feature_graph(self.base, &oracle.blocks, None)?, oracle.data, "reading features")?;
        let columns = captured.columns.get(1..).unwrap_or_default();
        let (logits, labels) = (oracle.plain.floats.as_slice(), oracle.data.labels.as_deref());
        let targets = vec![Targets { logits, classes: oracle.plain.width, labels }; oracle.blocks.len()];
        let options = FitOptions { seed: self.work.recipe().seed, ..FitOptions::default() };
        let taps = Taps { blocks: &oracle.blocks, columns };
        let heads = Heads::fit(self.work, taps, &targets, &split.tune, options)?;
        let judged = heads.judge(self.work, taps, oracle.data.rows, oracle.plain.width, Signal::Entropy)?;
        let macs = costs::of_exits(self.base, &oracle.blocks, &heads.all, oracle.data)?.head;
        Ok(Gates {
            macs,
            confidence: judged.into_iter().map(|j| j.confidence).collect(),
            heads: heads.all,
            stats: heads.stats,
            form: |head, threshold| Decision::Entropy { head, threshold },
        })
    }
}

/// The gates of all candidates.
struct Gates {
    heads: Vec<Head>,
    /// Per block and row, by a gate that did not see the row.
    confidence: Vec<Vec<f32>>,
    macs: Vec<u64>,
    stats: Vec<FitStats>,
    form: fn(Head, f32) -> Decision,
}

impl Oracle<'_> {
    /// Per row, 1 where the tokens are not needed: the same answer, at no more than [`LOSS_TOLERANCE`]
    /// times the loss.
    fn unneeded(&self, without: &Column) -> Vec<i64> {
        let unneeded = |row: usize| {
            let (with, without) = (self.plain.row(row), without.row(row));
            let truth = self.data.labels.as_ref().and_then(|l| usize::try_from(l[row]).ok());
            let class = truth.unwrap_or_else(|| argmax(with));
            let near = cross_entropy(without, class) <= LOSS_TOLERANCE * cross_entropy(with, class);
            i64::from(near && argmax(with) == argmax(without))
        };
        (0..self.data.rows).map(unneeded).collect()
    }

    fn samples(&self, confidence: &[Vec<f32>]) -> Samples {
        let class = |column: &Column, row: usize| argmax(column.row(row)) as i64;
        let truth = |row: usize| self.data.labels.as_ref().map_or_else(|| class(&self.plain, row), |l| l[row]);
        let correct = |column: &Column| (0..self.data.rows).map(|r| class(column, r) == truth(r)).collect();
        let sure = vec![vec![0.0; self.data.rows]; self.blocks.len()];
        Samples {
            exits: names(self.blocks.iter().copied()),
            signal: calibrate::Signal::Confidence(if confidence.is_empty() { sure } else { confidence.to_vec() }),
            correct: self.without.iter().map(correct).collect(),
            plain_correct: correct(&self.plain),
            reference: if self.data.labels.is_some() { Reference::Labels } else { Reference::PlainModel },
        }
    }

    /// A sample whose tokens leave after a block costs as much as the block's static edit.
    fn costs(&self, gates: &[u64]) -> Costs {
        let steps = self.macs.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        let mut segment: Vec<u64> = self.macs.first().copied().into_iter().chain(steps).collect();
        let tail = segment.pop().unwrap_or(0);
        let head = if gates.is_empty() { vec![0; segment.len()] } else { gates.to_vec() };
        Costs::of_parts(segment, head, tail)
    }

    fn options(&self, outcome: &Outcome, gates: Option<&Gates>) -> Option<TokenExits> {
        let Policy::Threshold { exits: kept } = &outcome.policy else { return None };
        let first = kept.first()?;
        let gates = match gates {
            Some(gates) if first.threshold > ALWAYS => gates,
            _ => return Some(fixed(&self.span, self.blocks[first.exit])),
        };
        let exit = |e: &calibrate::ThresholdExit| TokenExit {
            block: self.blocks[e.exit],
            decision: (gates.form)(gates.heads[e.exit].clone(), e.threshold),
        };
        Some(TokenExits { span: self.span.clone(), exits: kept.iter().map(exit).collect() })
    }
}

/// The tokens that may leave: those that are named, or those that the graph's form shows.
fn span(graph: &Graph, structure: &Structure, named: Option<(i64, i64)>) -> Result<Span, Error> {
    if let Some((start, len)) = named {
        return Span::at(graph, structure, start, len).map_err(Error::request);
    }
    Span::find(graph, structure).into_iter().next().ok_or_else(|| {
        Error::request(
            "no visual tokens found: no concatenation of tokens from a float input with embedded text enters the \
             blocks; name them with --visual-tokens START:LEN",
        )
    })
}

/// The static edit after which a model's visual tokens leave after `block` for all inputs.
pub(crate) fn fixed_token_exit(
    graph: &Graph,
    structure: &Structure,
    places: &TokenPlaces,
    block: usize,
) -> Result<TokenExits, Error> {
    Ok(fixed(&span(graph, structure, places.span)?, block))
}

/// All tokens leave after `block`.
fn fixed(span: &Span, block: usize) -> TokenExits {
    TokenExits { span: span.clone(), exits: vec![TokenExit { block, decision: Decision::Always }] }
}

/// Multiply-accumulates of a dense head.
fn dense_macs(head: &Head) -> u64 {
    let size = |w: &eec_ir::Tensor| w.len() as u64;
    match head {
        Head::Linear { weight, .. } => size(weight),
        Head::Mlp { hidden_weight, weight, .. } => size(hidden_weight) + size(weight),
        Head::Final | Head::Custom(_) => 0,
    }
}

//! The residual stream around FFNs, on rows that gates and replacements are fitted on.

use eec_passes::ffn_gates;
use eec_runtime::Control;

use super::super::work::{Base, pass_error};
use super::PASS;
use super::field::Field;
use crate::Error;
use crate::capture::{BATCH, capture};
use crate::quality;

/// Tokens that are fitted on; more do not make a linear gate better.
const FIT_TOKENS: usize = 16_384;

/// Vectors of tokens.
pub(super) struct Tokens {
    pub(super) width: usize,
    /// `[tokens, width]`.
    pub(super) values: Vec<f32>,
}

impl Tokens {
    pub(super) fn count(&self) -> usize {
        self.values.len() / self.width.max(1)
    }
}

impl Field<'_> {
    /// How many of the tune rows, from the first, are fitted on.
    pub(super) fn fit_rows(&self) -> usize {
        (FIT_TOKENS / self.tokens()).clamp(1, self.tune.data.rows.max(1))
    }

    /// What the FFNs of all blocks read, per block.
    pub(super) fn before(&self) -> Result<Vec<Tokens>, Error> {
        self.tapped(&self.blocks.iter().map(|b| format!("ffn_in.{b}")).collect::<Vec<_>>())
    }

    /// What they leave.
    pub(super) fn after(&self) -> Result<Vec<Tokens>, Error> {
        self.tapped(&self.blocks.iter().map(|b| format!("ffn_out.{b}")).collect::<Vec<_>>())
    }

    /// What the FFN of one block reads, and what it leaves.
    pub(super) fn around(&self, block: usize) -> Result<(Tokens, Tokens), Error> {
        let mut both = self.tapped(&[format!("ffn_in.{block}"), format!("ffn_out.{block}")])?.into_iter();
        let missing = || Error::request(format!("FFN {block} has no values"));
        Ok((both.next().ok_or_else(missing)?, both.next().ok_or_else(missing)?))
    }

    /// These taps of the plain model on the rows that are fitted on.
    fn tapped(&self, names: &[String]) -> Result<Vec<Tokens>, Error> {
        let Base { graph, structure, .. } = *self.base;
        let mut tapped = ffn_gates::with_taps(graph, structure, &self.blocks).map_err(pass_error(PASS))?;
        let outputs = tapped.output_names().iter().zip(tapped.outputs());
        let kept = outputs.filter(|(n, _)| names.iter().any(|w| **w == ***n)).map(|(n, v)| (n.to_string(), *v));
        let kept = kept.collect();
        tapped.set_outputs(kept);
        tapped.remove_dead();
        let mut session = quality::session(&tapped, self.runs)?;
        let data = self.tune.data.clone().truncated(self.fit_rows());
        let progress = self.runs.progress;
        let captured = capture(&mut session, &data, BATCH, Control::Auto, "reading FFN inputs", progress)?;
        let per_row = self.tokens();
        let tokens = |name: &String| {
            let column = captured.column(name)?;
            Ok(Tokens { width: (column.width / per_row).max(1), values: column.floats.clone() })
        };
        names.iter().map(tokens).collect()
    }
}

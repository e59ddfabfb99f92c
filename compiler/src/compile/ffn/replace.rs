//! Modules that stand for skipped FFNs: each is fitted to what its FFN adds to the residual stream, the
//! norm after the sum included where the block has one, from what the FFN reads.

use eec_passes::ffn_gates::{Gate, Replacement};
use serde::{Deserialize, Serialize};

use super::super::heads::{activation, dense};
use super::features::Tokens;
use super::field::Field;
use crate::Error;
use crate::fit::{Activation, Bottleneck, Features, Narrow, fit_bottleneck};
use crate::recipe::Replace;

/// A module per block; nothing stands for FFNs of other blocks.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Replacements(Vec<(usize, Bottleneck)>);

impl Replacements {
    /// Gates at `blocks`.
    ///
    /// # Errors
    ///
    /// Weights of another number than their layer says.
    pub fn gates_at(&self, blocks: &[usize]) -> Result<Vec<Gate>, Error> {
        let gate = |block: &usize| {
            let module = self.0.iter().find(|(b, _)| b == block);
            Ok(Gate { block: *block, replacement: module.map(|(_, m)| replacement(m)).transpose()? })
        };
        blocks.iter().map(gate).collect()
    }
}

/// A module as the pass takes it.
fn replacement(module: &Bottleneck) -> Result<Replacement, Error> {
    let ((down, down_bias), (up, up_bias)) = (dense(&module.down)?, dense(&module.up)?);
    Ok(Replacement { down, down_bias, activation: module.activation.map(activation), up, up_bias })
}

impl Field<'_> {
    /// Fits what is to stand for the FFN of every block.
    pub(super) fn fit_replacements(&self, replace: Replace, seed: u64) -> Result<Replacements, Error> {
        let form = match replace {
            Replace::None => return Ok(Replacements::default()),
            Replace::LowRank(rank) => Narrow { rank, activation: None },
            Replace::Mlp(rank) => Narrow { rank, activation: Some(Activation::GeluTanh) },
        };
        let fitted = |block: &usize| {
            let (before, after) = self.around(*block)?;
            Ok((*block, fit(*block, &before, &after, form, seed)?))
        };
        self.blocks.iter().map(fitted).collect::<Result<_, _>>().map(Replacements)
    }
}

/// A module from what an FFN reads to what it adds.
fn fit(block: usize, before: &Tokens, after: &Tokens, form: Narrow, seed: u64) -> Result<Bottleneck, Error> {
    let added: Vec<f32> = after.values.iter().zip(&before.values).map(|(y, x)| y - x).collect();
    let name = format!("FFN {block}");
    let features = Features { candidate: &name, rows: before.count(), width: before.width, values: &before.values };
    Ok(fit_bottleneck(&features, &added, after.width, form, seed)?)
}

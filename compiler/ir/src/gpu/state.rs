//! The words that decisions are made of: where each stands.

use super::{GpuProgram, Param};
use crate::program::Program;

/// Where the words of the state are.
///
/// In order: the symbols; a live word per block; an offset per buffer; a home offset per buffer; a home offset per
/// scratch; the steps that loops may still make; the number of a step per loop; a control word and then a count of rows per decision; the planned group
/// counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    symbols: usize,
    blocks: usize,
    buffers: usize,
    scratch: usize,
    repeats: usize,
    pub(super) decisions: usize,
    dispatches: usize,
}

impl State {
    /// The layout for a program and its GPU form.
    pub fn of(program: &Program, gpu: &GpuProgram) -> State {
        State {
            symbols: gpu.symbols.len(),
            blocks: program.blocks.len(),
            buffers: program.buffers.len(),
            scratch: gpu.scratch.len(),
            repeats: gpu.repeats.len(),
            decisions: program.exits.len() + program.gates.len(),
            dispatches: gpu.dispatches.len(),
        }
    }

    /// Position of the first symbol: 0.
    pub fn symbols(&self) -> usize {
        0
    }

    /// Position of the live word of block 0.
    pub fn live(&self) -> usize {
        self.symbols
    }

    /// Position of the offset of buffer 0.
    pub fn offsets(&self) -> usize {
        self.live() + self.blocks
    }

    /// Position of the home offset of buffer 0.
    pub fn homes(&self) -> usize {
        self.offsets() + self.buffers
    }

    /// Position of the home offset of scratch 0.
    pub fn scratch(&self) -> usize {
        self.homes() + self.buffers
    }

    /// Position of the steps that loops may still make.
    pub fn steps_left(&self) -> usize {
        self.scratch() + self.scratch
    }

    /// Position of the number of loop 0's step.
    pub fn steps(&self) -> usize {
        self.steps_left() + 1
    }

    /// Position of the first control word.
    pub fn controls(&self) -> usize {
        self.steps() + self.repeats
    }

    /// Position of the first count of rows.
    pub fn rows(&self) -> usize {
        self.controls() + self.decisions
    }

    /// Position of the planned group count of dispatch 0.
    pub fn planned(&self) -> usize {
        self.rows() + self.decisions
    }

    /// Words in all.
    pub fn len(&self) -> usize {
        self.planned() + self.dispatches
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number that a parameter of dispatch `dispatch` stands for; `outputs` are the places in the arena from where
    /// outputs are read back.
    pub fn resolve(&self, dispatch: usize, param: &Param, outputs: &[usize]) -> Option<i32> {
        let position = match param {
            Param::Number(n) => return Some(*n),
            Param::Symbol(i) => self.symbols() + *i as usize,
            Param::Offset(b) => self.offsets() + b.index(),
            Param::Home(b) => self.homes() + b.index(),
            Param::Scratch(i) => self.scratch() + *i as usize,
            Param::Live(b) => self.live() + b.0 as usize,
            Param::Step(i) => self.steps() + *i as usize,
            Param::StepsLeft => self.steps_left(),
            Param::Control(i) => self.controls() + *i as usize,
            Param::Rows(i) => self.rows() + *i as usize,
            Param::Planned => self.planned(),
            Param::Counter => dispatch,
            Param::Fault => self.dispatches,
            Param::Sum(i) => self.dispatches + 1 + *i as usize,
            Param::Output(i) => *outputs.get(*i as usize)?,
        };
        i32::try_from(position).ok()
    }
}

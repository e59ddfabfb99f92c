//! The compiled form: buffers with symbolic sizes, a few kernel forms, and steps with real branches.
//!
//! Code generators know only this: no ONNX operator, no graph. A program is a list of blocks; block
//! 0 is the body, and a control step names the blocks it runs, whose numbers are always larger, so
//! that nesting is finite by construction. Buffers are dense, their first axis outermost; kernels
//! read and write them through strided [`View`]s, which say how they lie (images have their channels last). Where
//! values enter or leave a block, both sides lie alike by construction: only rows are moved there. What a program
//! is given and gives is row-major. Shape arithmetic is [`Dim`]s over the program's symbols, which
//! are bound from the inputs' dims when a run starts; for the rows of a region and the length of
//! a [`Join`], when a [`RouteStep`] is reached; and for what data decides, by a [`SizeStep`].

mod definitions;
mod epilogue;
mod kernel;
mod print;
mod typing;
mod verify;

pub use epilogue::Epilogue;
pub use kernel::{
    Attention, BinaryFn, Conv, Dense, Expr, ExprId, Form, Host, Indexed, Kernel, Loop, MatMul, Per, Pool, PoolKind,
    Reduction, ReductionFn, Scalar, Scan, Store, UnaryFn, View,
};

pub use crate::ops::control::MAX_STEPS;
pub use typing::ExprFacts;
pub use verify::{VerifiedProgram, VerifyErrors, verify};

use serde::{Deserialize, Serialize};

use crate::constant::ContentHash;
use crate::dim::{Dim, Symbol};
use crate::entity::{BufferId, KernelId};
use crate::types::DType;

/// A compiled model.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Program {
    /// The model's name.
    pub name: String,
    /// Inputs in the model's order.
    pub inputs: Vec<Port>,
    /// Outputs in the model's order.
    pub outputs: Vec<Port>,
    /// Pairs of sizes that must be equal when a run binds its input dims.
    pub assumptions: Vec<(Dim, Dim)>,
    /// Constants that buffers refer to by position; their bytes stand beside the program.
    pub constants: Vec<Constant>,
    /// Buffers.
    pub buffers: Vec<Buffer>,
    /// Kernels; each is run by at least one step.
    pub kernels: Vec<Kernel>,
    /// Blocks; block 0 is the body and takes no parameters.
    pub blocks: Vec<Block>,
    /// Early exits, by the number in [`Decision::Exit`].
    pub exits: Vec<Exit>,
    /// Gates, by the number in [`Decision::Gate`].
    pub gates: Vec<Gate>,
}

/// An input or output.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dims.
    pub dims: Vec<Dim>,
    /// The buffer that holds it. Outputs may share a buffer with each other, an input or a constant.
    pub buffer: BufferId,
}

/// A constant's identity and type.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Constant {
    /// Content hash, by which its bytes are found.
    pub hash: ContentHash,
    /// Element type.
    pub dtype: DType,
    /// Dims.
    pub dims: Vec<usize>,
}

/// Memory for one tensor.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Buffer {
    /// Element type.
    pub dtype: DType,
    /// Elements.
    pub len: Dim,
    /// What it holds before the first kernel writes it.
    pub source: Source,
}

/// Where a buffer's bytes come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Source {
    /// The caller's input.
    Input(u32),
    /// A constant.
    Constant(u32),
    /// Written by kernels.
    Temp,
    /// A block's parameter: the operand itself if all rows went one way, else its gathered rows.
    Param,
    /// A control step's result: what the block that ran yielded if only one did, else the merge.
    Result,
}

/// A list of steps, with parameters and results if a control step owns it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Block {
    /// The symbol of its row count, for a block of a [`RouteStep`].
    pub rows: Option<Symbol>,
    /// One buffer ([`Source::Param`]) per operand of the owner, or for a [`Join`] per value that the
    /// block before it yields; `None` where it is not read.
    pub params: Vec<Option<BufferId>>,
    /// What to do.
    pub steps: Vec<Step>,
    /// One buffer per result of the owner, or per parameter of the join that follows.
    pub yields: Vec<BufferId>,
}

/// The number of a block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct BlockId(pub u32);

/// One step of a block.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Runs a kernel.
    Run(KernelId),
    /// Runs one of two blocks.
    If(IfStep),
    /// Splits rows between two blocks.
    Route(RouteStep),
    /// Runs a block again and again.
    Repeat(RepeatStep),
    /// Makes a number a size.
    Size(SizeStep),
}

/// What a control step decides, as runs count and control it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Decision {
    /// Something of the model's own.
    #[default]
    None,
    /// Whether rows leave at this early exit.
    Exit(u32),
    /// Whether this gate skips or shortens the rows' work; the run goes on.
    Gate(u32),
}

/// A branch on one boolean.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IfStep {
    /// What it decides, as runs count and control it.
    pub decision: Decision,
    /// A `Bool` buffer of one element.
    pub condition: BufferId,
    /// Runs if the condition holds.
    pub then: BlockId,
    /// Runs otherwise.
    pub other: BlockId,
    /// Results ([`Source::Result`]).
    pub results: Vec<BufferId>,
}

/// The row-wise conditional: splits rows by a mask, runs each block on its rows, merges in order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RouteStep {
    /// What it decides, as runs count and control it.
    pub decision: Decision,
    /// The number of rows.
    pub rows: Dim,
    /// A `Bool` buffer of `rows` elements.
    pub mask: BufferId,
    /// Operands: dense, `rows` times `elements per row`.
    pub operands: Vec<RowBuffer>,
    /// Runs on the rows where the mask holds, if there are any.
    pub then: BlockId,
    /// Runs on the other rows, if there are any.
    pub other: BlockId,
    /// What follows either block, if what they yield is not yet the result.
    pub join: Option<Join>,
    /// Results ([`Source::Result`]).
    pub results: Vec<RowBuffer>,
}

/// A loop: runs a block while a condition holds, so many times at most.
///
/// The block's parameters are the number of the step (`I64`, one element), then what is carried. It yields
/// the condition if there is one, what is carried on, then a row for each of `rows`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RepeatStep {
    /// For people: the node that it was made of.
    pub name: String,
    /// Steps at most; below zero stands for none. Without it the condition alone ends the loop. The loops of
    /// a run may not make more steps together than it is told, [`MAX_STEPS`] if nothing else.
    pub trips: Option<Dim>,
    /// A `Bool` buffer of one element: whether there is a first step. Without it all `trips` are made.
    pub condition: Option<BufferId>,
    /// What to do.
    pub body: BlockId,
    /// What the first step is given.
    pub carried: Vec<BufferId>,
    /// What the last step carried on ([`Source::Result`]), one per `carried`; that itself without steps.
    pub results: Vec<BufferId>,
    /// What the steps gave, one row each ([`Source::Result`]), for all `trips`; zeros for those not made.
    pub rows: Vec<RowBuffer>,
}

/// Gives a symbol the value that data decides. The rest of the block, and the blocks inside it, may use it; outputs
/// may if the block is the body.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SizeStep {
    /// For people: the node that it was made of.
    pub name: String,
    /// An `I64` buffer of one element.
    pub value: BufferId,
    /// The symbol.
    pub symbol: Symbol,
    /// What it is at most, as every run checks; at least it is 0. Buffers are planned for this.
    pub most: Dim,
    /// Pairs of sizes that must be equal once it is known.
    pub equal: Vec<(Dim, Dim)>,
}

/// The shared continuation of a route: a block that runs after either of the two, on what it yielded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Join {
    /// Runs once for each of the route's blocks that ran; yields the results for its rows.
    pub block: BlockId,
    /// The size that differs between what the two blocks yield.
    pub length: Option<Length>,
}

/// A size of a join that depends on the block that ran before it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Length {
    /// What it is called in the join.
    pub symbol: Symbol,
    /// Its value after [`RouteStep::then`].
    pub then: Dim,
    /// Its value after [`RouteStep::other`].
    pub other: Dim,
}

/// A buffer seen as rows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RowBuffer {
    /// The buffer.
    pub buffer: BufferId,
    /// Elements per row.
    pub row: Dim,
}

/// An early exit.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Exit {
    /// For people: `block 3`.
    pub name: String,
}

/// A decision that skips or shortens work but does not end the run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Gate {
    /// For people: `layer 3, FFN`.
    pub name: String,
}

impl Program {
    /// A buffer.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.index()]
    }

    /// A kernel.
    pub fn kernel(&self, id: KernelId) -> &Kernel {
        &self.kernels[id.index()]
    }

    /// A block.
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.0 as usize]
    }
}

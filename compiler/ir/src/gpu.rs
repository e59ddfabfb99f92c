//! The GPU form of a [`Program`]: shaders, and the dispatches of one inference in the order in which they
//! run, with every decision taken on the device.
//!
//! # Memory
//!
//! Every element is one 32-bit word: `F32` its bits, `I32`, `I64` and `Bool` an `i32`. (An `I64` that does not
//! fit is refused where it enters: as an input or a constant.) A shader sees, in group 0:
//!
//! | binding | WGSL | what |
//! |---|---|---|
//! | 0 | `var<uniform> array<vec4<i32>, N>` | the dispatch's [`Param`]s, with a dynamic offset |
//! | 1 | `var<storage, read> array<i32>`; `read_write` for [`Role::Control`] | the state: see [`State`] |
//! | 2 | `var<storage, read_write> array<u32>` | the counters: how often each dispatch ran, after them a [`Fault`], and then the [`GpuProgram::sums`] |
//! | 3 | `var<storage, read_write> array<f32>` | the arena: buffers, at the word offsets that the state says ([`ARENA`]) |
//! | 4 | `var<storage, read_write> array<u32>` | for [`Role::Control`]: the arguments of indirect dispatches, three words each |
//! | 5… | `var<storage, read>` | [`Dispatch::constants`] in order, each in its pieces |
//!
//! A constant is bound in pieces of [`GpuProgram::piece`] words, since adapters limit what one binding may show. Of
//! the constants in [`GpuProgram::halves`] a word is two 16-bit floats, the first one in its lower bits; they are
//! decoded by integer arithmetic, for which no adapter needs a feature.
//!
//! Constants that are small, or that a parameter, a result or an output may stand for, are not bound: they are
//! written into the arena once, where they have an offset like other buffers ([`GpuProgram::resident`]).
//!
//! An arena that one binding cannot show takes several, over which the runtime puts the texts ([`over_bindings`]).
//!
//! A shader declares only what it uses; those that may fault see the counters as `array<atomic<u32>>`. The
//! uniform has as many words as the dispatch has parameters, a multiple of four. Entry points are called `main`; the grid is one-dimensional, and a
//! shader loops over its work with the grid as stride, so that the runtime may start fewer workgroups than
//! [`Dispatch::groups`]. All sizes are computed in 32 bits; [`Dispatch::sizes`] are those that the runtime must find
//! to fit.
//!
//! # Decisions
//!
//! A block of the program is live or not; its word in the state says so, and every dispatch of the block
//! returns at once when it is 0 (the direct guard). A control dispatch follows each mask: it counts rows, sets
//! the live words, symbols and buffer offsets of its blocks, clears those of all blocks nested in what does not
//! run, and writes the group counts of their dispatches (the indirect guard): those planned, or 0.
//! A parameter or result that stands for another buffer takes over that buffer's offset; otherwise it has its
//! own ("home"). A join's block runs for one side and then for the other: its dispatches stand in the list twice.
//!
//! # The host
//!
//! What has no shader is a [`Role::Host`]: the run is cut there, the host reads what the dispatches before it put into
//! scratch, calls the operator's evaluator, and writes the results to their places. It stands only in the body of the
//! program, which always runs, and a session makes such runs only if it is told to.
//!
//! # Loops
//!
//! The dispatches of a [`Repeat`] are recorded as often as the loop may make steps; its block's live word guards them.
//! The control dispatch before them decides whether there is a first step, and lets results and parameters stand for
//! what is carried into the loop. The last of them decides whether there is another: it counts the step, and lets
//! results and parameters stand for what the step carried on, which copies before it put in turn into the result's own
//! place and the parameter's. A loop that has ended, by its condition, its count or a fault, is not live, and what is
//! recorded of it beyond that does not run.

mod arena;
mod print;
mod state;
mod verify;

pub use arena::{ARENA, over_bindings};
pub use state::State;
pub use verify::verify;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::dim::{Dim, Symbol};
use crate::entity::{BufferId, KernelId};
use crate::program::{BlockId, Program};

/// The shaders and dispatches of a program.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GpuProgram {
    /// Shaders; equal text stands once.
    pub shaders: Vec<Shader>,
    /// The symbols of the program, in the order of their words in the state: those of the inputs, which the host
    /// binds, then those that control dispatches set.
    pub symbols: Vec<Symbol>,
    /// What runs, in order.
    pub dispatches: Vec<Dispatch>,
    /// Sums that dispatches keep ([`Dispatch::sums`]), each of the values that a symbol has whenever the dispatch runs:
    /// how much work it did follows from them and from how often it ran.
    pub sums: Vec<u32>,
    /// Dispatches that run again and again, in the order in which they begin; one may stand inside another.
    pub repeats: Vec<Repeat>,
    /// Scratch of control steps (row numbers), in arena words; live from the first to the last dispatch that
    /// names it.
    pub scratch: Vec<Dim>,
    /// Constant buffers that stand in the arena for as long as the program is loaded, each in words of its own.
    pub resident: Vec<BufferId>,
    /// Constants whose elements are rounded to 16-bit floats and bound two in a word; a last one alone is followed by
    /// a zero.
    pub halves: Vec<u32>,
    /// Words of a constant that one binding shows at most.
    pub piece: u32,
}

/// Words of a binding that every adapter has: 128 MiB.
pub const PIECE: u32 = 1 << 25;

impl Default for GpuProgram {
    fn default() -> GpuProgram {
        GpuProgram {
            shaders: Vec::new(),
            symbols: Vec::new(),
            dispatches: Vec::new(),
            sums: Vec::new(),
            repeats: Vec::new(),
            scratch: Vec::new(),
            resident: Vec::new(),
            halves: Vec::new(),
            piece: PIECE,
        }
    }
}

impl GpuProgram {
    /// Words of a constant where it is bound.
    pub fn words(&self, program: &Program, constant: u32) -> usize {
        let dims = program.constants.get(constant as usize).map_or(&[][..], |c| &c.dims);
        let elements = dims.iter().fold(1usize, |n, d| n.saturating_mul(*d));
        if self.halves.contains(&constant) { elements.div_ceil(2) } else { elements }
    }

    /// Bindings of a constant: at least one.
    pub fn pieces(&self, program: &Program, constant: u32) -> usize {
        self.words(program, constant).div_ceil(self.piece.max(1) as usize).max(1)
    }

    /// The kernels that the host computes, in order.
    pub fn host_kernels(&self) -> impl Iterator<Item = KernelId> {
        self.dispatches.iter().filter_map(|dispatch| match dispatch.role {
            Role::Host(kernel) => Some(kernel),
            Role::Kernel(_) | Role::Control | Role::Rows | Role::Output(_) => None,
        })
    }

    /// Bindings of all constants of a dispatch.
    pub fn bindings(&self, program: &Program, dispatch: &Dispatch) -> usize {
        dispatch.constants.iter().fold(0, |n, c| self.pieces(program, *c).saturating_add(n))
    }
}

/// One compute shader.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Shader {
    /// WGSL that every adapter understands.
    pub text: String,
    /// The same with subgroup operations, for adapters on which they work; nothing where they do not help.
    pub with_subgroups: Option<String>,
}

/// The steps of a loop; one inside of a join stands in the list twice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Repeat {
    /// The body of the program's loop.
    pub body: BlockId,
    /// The dispatches of a step. The one before them decides whether there is a first, the last whether there is
    /// another.
    pub dispatches: Range<u32>,
}

/// What stops a run: the word after the counters is 0, or `1 + dispatch · `[`Fault::KINDS`]` + fault`. The outputs of such a run are
/// worth nothing; later dispatches may still run, inside their buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Fault {
    /// A gather's index is out of range.
    Index = 0,
    /// An integer is divided by zero.
    Division = 1,
    /// Loops take more steps than they may.
    Steps = 2,
}

impl Fault {
    /// How many there are.
    pub const KINDS: u32 = 3;

    /// The fault of this number among [`Fault::KINDS`].
    pub fn of(number: u32) -> Fault {
        [Fault::Index, Fault::Division, Fault::Steps][(number % Fault::KINDS) as usize]
    }
}

/// One dispatch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Dispatch {
    /// Position in [`GpuProgram::shaders`]; means nothing for [`Role::Host`].
    pub shader: u32,
    /// What it is for.
    pub role: Role,
    /// Kernels that are computed with that of [`Role::Kernel`].
    pub with: Vec<KernelId>,
    /// The block that it belongs to, whose live word guards it.
    pub block: BlockId,
    /// Workgroups that do all the work at once; the runtime takes symbols set on the device at their bounds.
    pub groups: Dim,
    /// Numbers of the shader, in the order of its uniform.
    pub params: Vec<Param>,
    /// Constants of the program, bound from binding 5 on.
    pub constants: Vec<u32>,
    /// The sizes that the shader computes of symbols. It does so in 32 bits, operand by operand: a run in which one
    /// does not fit must be refused.
    pub sizes: Vec<Dim>,
    /// Its part of [`GpuProgram::sums`]: of those symbols that are set on the device.
    pub sums: Range<u32>,
}

/// What a dispatch does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// A kernel.
    Kernel(KernelId),
    /// Decides; one workgroup.
    Control,
    /// Copies rows, or puts them together.
    Rows,
    /// Copies output `0..` of the program to where it is read back from.
    Output(u32),
    /// No dispatch: the host computes a kernel. Parameters from the third on are the [`Param::Scratch`] of every operand
    /// that is no constant, in order, and then the [`Param::Home`] of every result.
    Host(KernelId),
}

/// One number of a dispatch, resolved by the runtime when it lays out the state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Param {
    /// A plain number.
    Number(i32),
    /// The position in the state of a symbol's word.
    Symbol(u32),
    /// The position in the state of a buffer's offset word; the offset itself is in arena words.
    Offset(BufferId),
    /// The position in the state of a buffer's home offset.
    Home(BufferId),
    /// The position in the state of the home offset of a scratch ([`GpuProgram::scratch`]).
    Scratch(u32),
    /// The position in the state of a block's live word.
    Live(BlockId),
    /// The position in the state of the number of a loop's step ([`GpuProgram::repeats`]).
    Step(u32),
    /// The position in the state of the steps that the loops of the run may still make.
    StepsLeft,
    /// The position in the state of the control word (auto 0, never 1, always 2) of an exit or, after all exits, a
    /// gate.
    Control(u32),
    /// The position in the state of the count of rows that left at an exit or, after all exits, a gate.
    Rows(u32),
    /// The position in the state of the planned group counts, one word per dispatch.
    Planned,
    /// The number of this dispatch: its word among the counters.
    Counter,
    /// The position of the fault among the counters.
    Fault,
    /// The position of a sum among the counters.
    Sum(u32),
    /// The place in the arena from where an output is read back.
    Output(u32),
}

//! Kernel forms: the few shapes of computation that code generators know.

use serde::{Deserialize, Serialize};

use super::epilogue::Epilogue;
use crate::dim::Dim;
use crate::entity::BufferId;
use crate::op::Op;
use crate::precision::Precision;
use crate::types::DType;

/// One kernel: what it computes, for what, and what it costs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// The path of the source node that it stands for; of several that were fused the product or
    /// convolution, else the last one.
    pub name: String,
    /// The pass that inserted it; empty for kernels of the source model.
    pub pass: String,
    /// Multiply-accumulates per run.
    pub macs: Dim,
    /// What it computes.
    pub form: Form,
}

impl Kernel {
    /// The name, with the operator of one that the host runs.
    pub fn title(&self) -> String {
        match &self.form {
            Form::Host(host) => format!("{} ({})", self.name, host.op),
            _ => self.name.clone(),
        }
    }
}

/// The forms.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Form {
    /// Elementwise maps, indexing, and row reductions (softmax, norms, means).
    Loop(Loop),
    /// Batched matrix product.
    MatMul(MatMul),
    /// Scaled dot-product attention.
    Attention(Attention),
    /// 2-D convolution.
    Conv(Conv),
    /// 2-D pooling.
    Pool(Pool),
    /// Running sum.
    Scan(Scan),
    /// A rare operator, by its reference evaluator.
    Host(Host),
}

/// A buffer read or written with strides: element `offset + Σ index[i]·strides[i]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct View {
    /// The buffer.
    pub buffer: BufferId,
    /// First element.
    pub offset: Dim,
    /// Elements between neighbours, per axis of the index space; 0 repeats, negative runs backwards.
    pub strides: Vec<Dim>,
}

/// Scalar expressions over an index space.
///
/// For every index of `dims`, in any order: the reductions run over `inner` one after the other,
/// then every store is made. Without reductions `inner` is empty and the loop is a map.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Loop {
    /// The parallel index space.
    pub dims: Vec<Dim>,
    /// The reduced index space of one row.
    pub inner: Vec<Dim>,
    /// What expressions load from; strides over `dims ++ inner`.
    pub inputs: Vec<View>,
    /// Expressions; operands come before users.
    pub exprs: Vec<Expr>,
    /// Reductions over `inner`, in order.
    pub reductions: Vec<Reduction>,
    /// Results.
    pub stores: Vec<Store>,
}

/// The position of an expression in [`Loop::exprs`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ExprId(pub u32);

/// A constant scalar.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Scalar {
    /// `F32`.
    F32(f32),
    /// `I64`.
    I64(i64),
    /// `I32`.
    I32(i32),
    /// `Bool`.
    Bool(bool),
}

/// A scalar expression. Types are those of the operands; nothing converts but `Cast`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Expr {
    /// The element of an input at the current index.
    Load(u32),
    /// The element of an input at the current index plus computed offsets (gathers). An index
    /// outside `[-extent, extent)` stops the run with an error that names the kernel.
    LoadAt {
        /// Position in [`Loop::inputs`].
        input: u32,
        /// Computed coordinates.
        at: Vec<Indexed>,
    },
    /// The current index along an axis of `dims ++ inner`, as `I64`.
    Index(u32),
    /// A size, as `I64`.
    Size(Dim),
    /// A constant.
    Const(Scalar),
    /// A function of one operand.
    Unary(UnaryFn, ExprId),
    /// A function of two operands of one type.
    Binary(BinaryFn, ExprId, ExprId),
    /// The second if the first (`Bool`) holds, else the third.
    Select(ExprId, ExprId, ExprId),
    /// Conversion: float to integer truncates and saturates; to `Bool` is `x != 0`.
    Cast(DType, ExprId),
    /// The result of a reduction for the current row; only in later reductions and in stores.
    Reduced(u32),
}

/// A computed coordinate.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Indexed {
    /// The coordinate, `I64` or `I32`; negative counts from the end.
    pub index: ExprId,
    /// The coordinate's limit.
    pub extent: Dim,
    /// Elements between neighbours.
    pub stride: Dim,
}

/// Functions of one scalar.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum UnaryFn {
    /// `-x` (float or integer).
    Neg,
    /// `|x|` (float or integer).
    Abs,
    /// Square root (float).
    Sqrt,
    /// `1/x` (float).
    Reciprocal,
    /// `e^x`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// Hyperbolic tangent.
    Tanh,
    /// Error function.
    Erf,
    /// `1/(1+e^-x)`.
    Sigmoid,
    /// The largest integer that is not larger (float).
    Floor,
    /// The smallest integer that is not smaller (float).
    Ceil,
    /// The nearest integer, of two equally near ones the even one (float).
    Round,
    /// Logical not (`Bool`).
    Not,
    /// Whether a float is NaN; the result is `Bool`.
    IsNaN,
}

/// Functions of two scalars of one type. Comparisons give `Bool`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BinaryFn {
    /// Sum; integers wrap.
    Add,
    /// Difference; integers wrap.
    Sub,
    /// Product; integers wrap.
    Mul,
    /// Quotient; integers truncate towards zero, division by zero stops the run with an error.
    Div,
    /// Power of floats.
    Pow,
    /// The larger; NaN if either is NaN.
    Max,
    /// The smaller; NaN if either is NaN.
    Min,
    /// Logical and (`Bool`).
    And,
    /// Logical or (`Bool`).
    Or,
    /// `a == b`.
    Equal,
    /// `a < b`.
    Less,
    /// `a <= b`.
    LessOrEqual,
}

/// One reduction over the inner index space.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reduction {
    /// How values combine.
    pub function: ReductionFn,
    /// The value at each inner index.
    pub value: ExprId,
}

/// How a reduction combines values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReductionFn {
    /// Sum; the order depends on the number of elements alone.
    Sum,
    /// The largest; NaN if any is NaN.
    Max,
    /// The smallest; NaN if any is NaN.
    Min,
    /// The flat inner index of the first largest, as `I64`.
    ArgMax,
}

/// Where a result goes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Store {
    /// How often it is made.
    pub per: Per,
    /// Where to: strides over `dims` ([`Per::Row`]) or `dims ++ inner` ([`Per::Element`]).
    pub view: View,
    /// What.
    pub value: ExprId,
}

/// How often a store is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Per {
    /// Once per index of `dims`.
    Row,
    /// Once per index of `dims ++ inner`.
    Element,
}

/// `c[…, m, n] = scale · Σ_k a[…, m, k] · b[…, k, n]`, plus `bias[n]`, in f32, and then
/// what the epilogue makes of it. Every sum is one chain of fused multiply-adds in the order of k, whatever
/// the tiling; with [`Precision::Bf16`] weights it is a sum of exact products of rounded operands in an order
/// that the CPU's instructions fix, the same for all rows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MatMul {
    /// Batch dims.
    pub batch: Vec<Dim>,
    /// Rows of a and c.
    pub m: Dim,
    /// Columns of b and c.
    pub n: Dim,
    /// Columns of a, rows of b.
    pub k: Dim,
    /// Strides over `batch ++ [m, k]`.
    pub a: View,
    /// Strides over `batch ++ [k, n]`. A constant that does not depend on the batch is packed once.
    pub b: View,
    /// How b is stored, and with it what is rounded. All but [`Precision::F32`] need a constant b.
    pub weights: Precision,
    /// Strides over `batch ++ [m, n]`; the last is 1.
    pub c: View,
    /// What every finished sum is multiplied with, before the bias; 1 leaves it as it is.
    pub scale: f32,
    /// Strides over `[n]`.
    pub bias: Option<View>,
    /// What follows the bias; strides over `batch ++ [m, n]`.
    pub epilogue: Option<Epilogue>,
}

/// `c = softmax(scale · q·k + mask) · v` over the last axis of the scores (Vaswani et al. 2017, eq. 1), in
/// f32, without a tensor of all scores.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Attention {
    /// Batch dims (batch, heads), at most [`Attention::MAX_BATCH`].
    pub batch: Vec<Dim>,
    /// Queries: rows of q and c.
    pub m: Dim,
    /// Keys: columns of k, rows of v.
    pub n: Dim,
    /// Width of a query and a key.
    pub d: Dim,
    /// Width of a value and of a row of c.
    pub width: Dim,
    /// Strides over `batch ++ [m, d]`.
    pub q: View,
    /// Strides over `batch ++ [d, n]`.
    pub k: View,
    /// Strides over `batch ++ [n, width]`.
    pub v: View,
    /// Added to the scaled scores; strides over `batch ++ [m, n]`.
    pub mask: Option<View>,
    /// Strides over `batch ++ [m, width]`; the last is 1.
    pub c: View,
    /// What the scores are multiplied with, before the mask.
    pub scale: f32,
    /// What stands in for probabilities that are NaN, as in a row that is masked as a whole.
    pub instead_of_nan: Option<f32>,
}

impl Attention {
    /// Batch dims at most.
    pub const MAX_BATCH: usize = 3;
}

/// 2-D convolution in f32 (1-D has height 1). The result lies with its channels last, as what convolutions and
/// poolings read best. Every sum is one chain of multiply-adds, fused where the CPU has them, over the rows,
/// columns and channels of the kernel, in this order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Conv {
    /// `[batch, channels, height, width]`.
    pub x_dims: [Dim; 4],
    /// `[out_channels, channels/group, kernel_height, kernel_width]`.
    pub w_dims: [Dim; 4],
    /// Height and width of the result.
    pub y_size: [Dim; 2],
    /// Groups.
    pub group: i64,
    /// Height, width.
    pub strides: [i64; 2],
    /// Height, width.
    pub dilations: [i64; 2],
    /// Before height, before width (what lies after follows from `y_size`).
    pub pads: [i64; 2],
    /// Input; strides over `x_dims`.
    pub x: View,
    /// Weight, dense.
    pub w: BufferId,
    /// Bias `[out_channels]`, dense.
    pub bias: Option<BufferId>,
    /// Result, dense as `[batch, height, width, out_channels]`.
    pub y: BufferId,
    /// What follows the bias; strides over `[batch, height · width, out_channels]` of the result.
    pub epilogue: Option<Epilogue>,
}

/// What a pooling window gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PoolKind {
    /// The largest element; padding never wins.
    Max,
    /// The mean over the elements inside the input.
    Average,
    /// The mean over the window, padding counted as zeros.
    AverageWithPads,
}

/// 2-D pooling in f32, of images and to images whose channels are last.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Pool {
    /// Kind.
    pub kind: PoolKind,
    /// `[batch, channels, height, width]`.
    pub x_dims: [Dim; 4],
    /// Height and width of the result.
    pub y_size: [Dim; 2],
    /// Window height and width.
    pub kernel: [i64; 2],
    /// Height, width.
    pub strides: [i64; 2],
    /// Height, width.
    pub dilations: [i64; 2],
    /// Before height, before width, after height, after width.
    pub pads: [i64; 4],
    /// Input; strides over `x_dims`, that of the channels is 1.
    pub x: View,
    /// Result, dense as `[batch, height, width, channels]`.
    pub y: BufferId,
}

/// Running sum along the middle axis of a dense `[outer, len, inner]` tensor.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Scan {
    /// Element type.
    pub dtype: DType,
    /// Product of the dims before.
    pub outer: Dim,
    /// The summed dim.
    pub len: Dim,
    /// Product of the dims after.
    pub inner: Dim,
    /// Leaves out the element itself.
    pub exclusive: bool,
    /// From the end.
    pub reverse: bool,
    /// Input, dense.
    pub x: BufferId,
    /// Result, dense.
    pub y: BufferId,
}

/// An operator that has no code of its own: the runtime calls its reference evaluator
/// ([`crate::ops::eval`]) on the values that the tensors hold.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Host {
    /// What it computes; no control operator. Its sizes are over the program's symbols.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<Dense>,
    /// Results.
    pub outputs: Vec<Dense>,
}

/// A whole buffer, row-major.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Dense {
    /// The buffer.
    pub buffer: BufferId,
    /// What it holds.
    pub dims: Vec<Dim>,
}

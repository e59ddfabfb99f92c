//! The operators: one table, from which the enum, names, arities and attribute access are made.
//!
//! The names are ONNX's. What ONNX passes as small integer tensors (target shapes, slice bounds,
//! axes) are attributes here: the importer evaluates shape arithmetic symbolically, and `Squeeze`,
//! `Unsqueeze` and `Flatten` are `Reshape`. To add an operator: a row here, `infer` and `eval` in
//! its family file under `ops/`, a lowering, an import and export rule if it differs from the
//! generic one, and a test case.

use std::fmt;
use std::ops::RangeInclusive;

use crate::attr::{AttrValue, Attribute, Combine};
use crate::dim::{Dim, Symbol};
use crate::precision::Precision;
use crate::types::DType;

/// Why attributes do not make an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// No operator has this name.
    #[error("unknown operator `{0}`")]
    Unknown(String),
    /// The operator has no such attribute.
    #[error("{op} has no attribute `{attr}`")]
    UnknownAttribute {
        /// Operator.
        op: &'static str,
        /// Attribute.
        attr: String,
    },
    /// The attribute must be given.
    #[error("{op} needs the attribute `{attr}`")]
    MissingAttribute {
        /// Operator.
        op: &'static str,
        /// Attribute.
        attr: &'static str,
    },
    /// The attribute's value has the wrong type.
    #[error("{op}: attribute `{attr}` cannot be {value}")]
    WrongAttribute {
        /// Operator.
        op: &'static str,
        /// Attribute.
        attr: &'static str,
        /// The value found, as text.
        value: String,
    },
}

/// A pattern of the operators whose result has their one operand's elements, each by itself.
#[macro_export]
macro_rules! elementwise_unary {
    () => {
        $crate::Op::Neg {}
            | $crate::Op::Abs {}
            | $crate::Op::Sqrt {}
            | $crate::Op::Reciprocal {}
            | $crate::Op::Exp {}
            | $crate::Op::Log {}
            | $crate::Op::Sin {}
            | $crate::Op::Cos {}
            | $crate::Op::Tanh {}
            | $crate::Op::Erf {}
            | $crate::Op::Sigmoid {}
            | $crate::Op::Relu {}
            | $crate::Op::Gelu { .. }
            | $crate::Op::Clip { .. }
            | $crate::Op::Not {}
            | $crate::Op::IsNaN {}
            | $crate::Op::Cast { .. }
            | $crate::Op::Floor {}
            | $crate::Op::Ceil {}
            | $crate::Op::Round {}
            | $crate::Op::Sign {}
            | $crate::Op::Tan {}
            | $crate::Op::Asin {}
            | $crate::Op::Acos {}
            | $crate::Op::Atan {}
            | $crate::Op::Sinh {}
            | $crate::Op::Cosh {}
            | $crate::Op::Asinh {}
            | $crate::Op::Acosh {}
            | $crate::Op::Atanh {}
            | $crate::Op::BitwiseNot {}
            | $crate::Op::CastUnsaturated { .. }
            | $crate::Op::BitCast { .. }
    };
}

/// A pattern of the operators whose operands are broadcast and then combined element by element.
#[macro_export]
macro_rules! elementwise_broadcast {
    () => {
        $crate::Op::Add {}
            | $crate::Op::Sub {}
            | $crate::Op::Mul {}
            | $crate::Op::Div {}
            | $crate::Op::Mod { .. }
            | $crate::Op::Pow {}
            | $crate::Op::BitShift { .. }
            | $crate::Op::BitwiseAnd {}
            | $crate::Op::BitwiseOr {}
            | $crate::Op::BitwiseXor {}
            | $crate::Op::Max {}
            | $crate::Op::Min {}
            | $crate::Op::And {}
            | $crate::Op::Or {}
            | $crate::Op::Equal {}
            | $crate::Op::Less {}
            | $crate::Op::LessOrEqual {}
            | $crate::Op::Greater {}
            | $crate::Op::GreaterOrEqual {}
            | $crate::Op::Where {}
    };
}

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident { $($attr:ident : $ty:ty $(= $default:expr)?),* } $arity:expr, since $since:literal;)*) => {
        /// An operator with its attributes.
        #[derive(Clone, PartialEq, Debug)]
        #[allow(missing_docs, reason = "fields are the attributes named in each variant's own documentation")]
        pub enum Op {
            $($(#[$doc])* $name { $($attr: $ty),* },)*
        }

        impl Op {
            /// Every operator's name.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// The name: ONNX's, if ONNX has the operator.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$name { .. } => stringify!($name),)* }
            }

            /// How many operands it takes.
            pub fn arity(&self) -> RangeInclusive<usize> {
                match self { $(Op::$name { .. } => $arity,)* }
            }

            /// The ONNX opset that introduced the form modelled here (0: not an ONNX operator).
            pub fn since(&self) -> u32 {
                match self { $(Op::$name { .. } => $since,)* }
            }

            /// Its attributes in table order.
            pub fn attributes(&self) -> Vec<(&'static str, AttrValue)> {
                match self { $(Op::$name { $($attr),* } => vec![$((stringify!($attr), $attr.to_value())),*],)* }
            }

            /// The operator `name` with these attributes; those left out take their defaults.
            pub fn from_attributes(name: &str, attrs: &[(String, AttrValue)]) -> Result<Op, OpError> {
                match name {
                    $(stringify!($name) => {
                        let known: &[&str] = &[$(stringify!($attr)),*];
                        if let Some((a, _)) = attrs.iter().find(|(a, _)| !known.contains(&a.as_str())) {
                            return Err(OpError::UnknownAttribute { op: stringify!($name), attr: a.clone() });
                        }
                        Ok(Op::$name { $($attr: match attrs.iter().find(|(a, _)| a == stringify!($attr)) {
                            Some((_, value)) => <$ty>::from_value(value).ok_or_else(|| OpError::WrongAttribute {
                                op: stringify!($name), attr: stringify!($attr), value: value.to_string(),
                            })?,
                            None => ops!(@default $name, $attr $(, $default)?),
                        }),* })
                    })*
                    _ => Err(OpError::Unknown(name.to_string())),
                }
            }

            /// Replaces every dim in the attributes by `f(dim)`.
            pub fn map_dims(&mut self, f: &mut dyn FnMut(&Dim) -> Dim) {
                let _ = &f;
                match self { $(Op::$name { $($attr),* } => { $($attr.map_dims(f);)* })* }
            }
        }
    };
    (@default $name:ident, $attr:ident, $default:expr) => { $default };
    (@default $name:ident, $attr:ident) => {
        return Err(OpError::MissingAttribute { op: stringify!($name), attr: stringify!($attr) })
    };
}

ops! {
    // Elementwise, one operand.
    /// `-x`.
    Neg {} 1..=1, since 13;
    /// `|x|`.
    Abs {} 1..=1, since 13;
    /// Square root.
    Sqrt {} 1..=1, since 13;
    /// `1/x`.
    Reciprocal {} 1..=1, since 13;
    /// `e^x`.
    Exp {} 1..=1, since 13;
    /// Natural logarithm.
    Log {} 1..=1, since 13;
    /// Sine.
    Sin {} 1..=1, since 7;
    /// Cosine.
    Cos {} 1..=1, since 7;
    /// Hyperbolic tangent.
    Tanh {} 1..=1, since 13;
    /// Error function.
    Erf {} 1..=1, since 13;
    /// `1/(1+e^-x)`.
    Sigmoid {} 1..=1, since 13;
    /// `max(x, 0)`.
    Relu {} 1..=1, since 14;
    /// Gaussian error linear unit; `tanh` chooses the tanh approximation.
    Gelu { tanh: bool = false } 1..=1, since 20;
    /// `min(max(x, min), max)` with constant bounds.
    Clip { min: f32 = f32::NEG_INFINITY, max: f32 = f32::INFINITY } 1..=1, since 6;
    /// Logical not.
    Not {} 1..=1, since 1;
    /// The largest integer that is not larger.
    Floor {} 1..=1, since 13;
    /// The smallest integer that is not smaller.
    Ceil {} 1..=1, since 13;
    /// The nearest integer, of two equally near ones the even one.
    Round {} 1..=1, since 11;
    /// The sign: -1, 0 or 1.
    Sign {} 1..=1, since 13;
    /// Tangent.
    Tan {} 1..=1, since 7;
    /// Inverse sine.
    Asin {} 1..=1, since 7;
    /// Inverse cosine.
    Acos {} 1..=1, since 7;
    /// Inverse tangent.
    Atan {} 1..=1, since 7;
    /// Hyperbolic sine.
    Sinh {} 1..=1, since 9;
    /// Hyperbolic cosine.
    Cosh {} 1..=1, since 9;
    /// Inverse hyperbolic sine.
    Asinh {} 1..=1, since 9;
    /// Inverse hyperbolic cosine.
    Acosh {} 1..=1, since 9;
    /// Inverse hyperbolic tangent.
    Atanh {} 1..=1, since 9;
    /// Every bit of an integer inverted.
    BitwiseNot {} 1..=1, since 18;
    /// Whether the element is NaN.
    IsNaN {} 1..=1, since 20;
    /// Conversion to another element type; float to integer truncates, to bool is `x != 0`.
    Cast { to: DType } 1..=1, since 13;
    /// Like `Cast`, but a value beyond the largest of an 8-bit float becomes infinity or NaN.
    CastUnsaturated { to: DType } 1..=1, since 19;
    /// The same bits as another element type of the same size.
    BitCast { to: DType } 1..=1, since 26;

    // Elementwise, two or three operands, with broadcasting.
    /// Sum.
    Add {} 2..=2, since 14;
    /// Difference.
    Sub {} 2..=2, since 14;
    /// Product.
    Mul {} 2..=2, since 14;
    /// Quotient; integers truncate towards zero.
    Div {} 2..=2, since 14;
    /// Power.
    Pow {} 2..=2, since 15;
    /// Remainder with the divisor's sign, or with `fmod` the dividend's.
    Mod { fmod: bool = false } 2..=2, since 13;
    /// The first operand's bits moved by the second's number of places.
    BitShift { right: bool = false } 2..=2, since 11;
    /// Bits that both have.
    BitwiseAnd {} 2..=2, since 18;
    /// Bits that either has.
    BitwiseOr {} 2..=2, since 18;
    /// Bits that one of the two has.
    BitwiseXor {} 2..=2, since 18;
    /// The larger.
    Max {} 2..=2, since 13;
    /// The smaller.
    Min {} 2..=2, since 13;
    /// Logical and.
    And {} 2..=2, since 7;
    /// Logical or.
    Or {} 2..=2, since 7;
    /// `a == b`.
    Equal {} 2..=2, since 13;
    /// `a < b`.
    Less {} 2..=2, since 13;
    /// `a <= b`.
    LessOrEqual {} 2..=2, since 16;
    /// `a > b`.
    Greater {} 2..=2, since 13;
    /// `a >= b`.
    GreaterOrEqual {} 2..=2, since 16;
    /// `condition ? a : b`.
    Where {} 3..=3, since 16;

    // Matrix products and convolutions.
    /// Matrix product of the last two dims, the others broadcast (numpy's `matmul`). `weights` says how the
    /// second operand, a matrix, is stored; both operands are rounded as that implies.
    MatMul { weights: Precision = Precision::F32 } 2..=2, since 13;
    /// `alpha·A·B + beta·C` for matrices, each possibly transposed; `weights` is as in `MatMul`.
    Gemm { alpha: f32 = 1.0, beta: f32 = 1.0, trans_a: bool = false, trans_b: bool = false, weights: Precision = Precision::F32 } 2..=3, since 13;
    /// Convolution over any number of spatial dims: x `[n, c, h, w]`, weight `[m, c/group, kh, kw]`, bias `[m]`.
    Conv { group: i64 = 1, strides: Vec<i64>, dilations: Vec<i64>, pads: Vec<i64> } 2..=3, since 11;
    /// Convolution over images whose taps are moved, and perhaps weighted, for every window: x, weight and bias are as in
    /// `Conv`, in the order x, weight, offset `[n, 2·offset_group·kh·kw, oh, ow]` (down, then to the right), bias, mask
    /// `[n, offset_group·kh·kw, oh, ow]`. Between elements x is bilinear.
    DeformConv { group: i64 = 1, offset_group: i64 = 1, strides: Vec<i64>, dilations: Vec<i64>, pads: Vec<i64> } 4..=5, since 19;
    /// Maximum pooling over any number of spatial dims.
    MaxPool { kernel: Vec<i64>, strides: Vec<i64>, dilations: Vec<i64>, pads: Vec<i64>, ceil_mode: bool = false } 1..=1, since 12;
    /// Average pooling over any number of spatial dims.
    AveragePool { kernel: Vec<i64>, strides: Vec<i64>, pads: Vec<i64>, ceil_mode: bool = false, count_include_pad: bool = false } 1..=1, since 11;
    /// Boxes `[r, 4]` (left, top, right, bottom) of images `[n, c, h, w]`, the number of its image for each `[r]`, in bins
    /// of which each is the mean of its bilinear samples or, with `max`, the largest of their weighted neighbours.
    /// `sampling_ratio` samples stand along a bin, or as many as it has elements if it is 0.
    RoiAlign { output_height: i64 = 1, output_width: i64 = 1, sampling_ratio: i64 = 0, spatial_scale: f32 = 1.0, max: bool = false, half_pixel: bool = true } 3..=3, since 16;
    /// Determinant of the matrices in the last two dims.
    Det {} 1..=1, since 11;

    // Reductions and normalisations.
    /// `softmax` along one axis.
    Softmax { axis: i64 = -1 } 1..=1, since 13;
    /// `log(softmax)` along one axis.
    LogSoftmax { axis: i64 = -1 } 1..=1, since 13;
    /// Layer normalisation over the dims from `axis` on: x, scale, optional bias.
    LayerNormalization { axis: i64 = -1, epsilon: f32 = 1e-5 } 2..=3, since 17;
    /// Sum over axes.
    ReduceSum { axes: Vec<i64>, keepdims: bool = true } 1..=1, since 13;
    /// Mean over axes.
    ReduceMean { axes: Vec<i64>, keepdims: bool = true } 1..=1, since 13;
    /// Product over axes.
    ReduceProd { axes: Vec<i64>, keepdims: bool = true } 1..=1, since 13;
    /// Maximum over axes.
    ReduceMax { axes: Vec<i64>, keepdims: bool = true } 1..=1, since 13;
    /// Minimum over axes.
    ReduceMin { axes: Vec<i64>, keepdims: bool = true } 1..=1, since 13;
    /// Position of the first largest element along one axis, as i64.
    ArgMax { axis: i64 = 0, keepdims: bool = true } 1..=1, since 13;
    /// Running sum along one axis.
    CumSum { axis: i64, exclusive: bool = false, reverse: bool = false } 1..=1, since 14;

    /// Running product along one axis.
    CumProd { axis: i64, exclusive: bool = false, reverse: bool = false } 1..=1, since 26;
    /// The `k` largest (or smallest) elements along one axis, sorted, and their positions.
    TopK { axis: i64 = -1, k: Dim, largest: bool = true } 1..=1, since 11;

    // Selections whose number data decides: as many places as there can be, of which the last result says
    // how many hold something; the others hold zeros.
    /// The positions of the elements that are not 0, one per column `[rank, elements]`, and their number.
    NonZero {} 1..=1, since 13;
    /// The different slices along an axis: where each stands first, which one each slice is, how often each
    /// occurs, and their number. In ascending order, or without `sorted` in that of their first places.
    Unique { axis: i64, sorted: bool = true } 1..=1, since 11;
    /// Boxes of high scores that overlap none of a higher one by more than `overlap`, at most `most` per class,
    /// with scores above `above`: batch, class and box of each, one per row, and their number.
    NonMaxSuppression { most: i64, overlap: f32 = 0.0, above: f32 = f32::NEG_INFINITY, centred: bool = false } 2..=2, since 11;

    // Movement and indexing.
    /// The same elements in row-major order under other dims.
    Reshape { dims: Vec<Dim> } 1..=1, since 14;
    /// Permutation of the axes.
    Transpose { perm: Vec<i64> } 1..=1, since 13;
    /// Broadcast to `dims`.
    Expand { dims: Vec<Dim> } 1..=1, since 13;
    /// Concatenation along one axis.
    Concat { axis: i64 } 1..=65_536, since 13;
    /// Part of a tensor; `starts` and `ends` are within `[0, dim]` (`-1` as the end of a backward slice).
    Slice { axes: Vec<i64>, starts: Vec<Dim>, ends: Vec<Dim>, steps: Vec<i64> } 1..=1, since 13;
    /// Slices of the first operand along `axis` at the indices in the second.
    Gather { axis: i64 = 0 } 2..=2, since 13;
    /// Elements of the first operand along `axis` at the indices in the second (of the result's shape).
    GatherElements { axis: i64 = 0 } 2..=2, since 13;
    /// Slices of the first operand at the index tuples in the last dim of the second.
    GatherND { batch_dims: i64 = 0 } 2..=2, since 13;
    /// The first operand with the elements of the third along `axis` at the indices in the second.
    ScatterElements { axis: i64 = 0, reduction: Combine = Combine::None } 3..=3, since 18;
    /// The first operand with the slices of the third at the index tuples in the last dim of the second.
    ScatterND { reduction: Combine = Combine::None } 3..=3, since 18;
    /// Constant padding: `pads` holds all begins, then all ends; the second operand is the value (default 0).
    Pad { pads: Vec<Dim> } 1..=2, since 13;

    // Sizes as values.
    /// The dims `start..end` of the operand as an i64 vector.
    Shape { start: i64 = 0, end: i64 = i64::MAX } 1..=1, since 15;
    /// The given sizes as an i64 vector (what folded shape arithmetic becomes where data needs it).
    Sizes { values: Vec<Dim> } 0..=0, since 0;
    /// Makes the one element of an i64 tensor a size that the nodes after it may mention: `size`, a symbol
    /// of its own. It must lie in `0..=most`; memory is planned for `most`. The result is the operand. It
    /// stays even where nothing reads it.
    LateSize { size: Dim, most: Dim } 1..=1, since 0;
    /// `start, start+delta, …` below `limit`, as i64.
    Range { start: Dim, limit: Dim, delta: i64 = 1 } 0..=0, since 11;

    // Control.
    /// Runs the first region if the scalar operand is true, else the second. `exit` numbers an
    /// early-exit decision (-1: not an exit), `gate` one that skips or shortens work without ending the
    /// run (-1: not a gate); a node is at most one of both.
    If { exit: i64 = -1, gate: i64 = -1 } 1..=1, since 16;
    /// Splits the rows (axis 0) of the operands after the first by the boolean mask `[rows]` that is
    /// the first, runs each region once on its gathered rows, and merges what they yield in the
    /// original order. A region without rows does not run. A third region, the join, goes on with what
    /// either of them yielded, and then it is what the join yields that is merged. `exit` and `gate` are as
    /// in `If`.
    Route { exit: i64 = -1, gate: i64 = -1 } 1..=65_536, since 0;
    /// Runs the region again and again while one truth value holds, `trips` times at most (-1: no bound;
    /// any other size below 0 counts as 0). The first operand is that truth before the first step, the
    /// others are what is carried. The region takes the number of the step, an i64 scalar, and what is
    /// carried; it yields the truth for the next step, what is carried on, in the same types, and rows.
    /// Results are what is carried in the end, then for every row of a step a stack of them along a new
    /// axis 0, of `trips` rows, which rows need. Rows of steps that are not made hold zeros.
    Loop { trips: Dim = Dim::from(-1) } 1..=65_536, since 16;
}

impl Op {
    /// A matrix product whose operands are not rounded.
    pub const MATMUL: Op = Op::MatMul { weights: Precision::F32 };

    /// How the second operand of a product is stored; [`Precision::F32`] for all that is no product.
    pub fn weights(&self) -> Precision {
        let (Op::MatMul { weights } | Op::Gemm { weights, .. }) = self else { return Precision::F32 };
        *weights
    }

    /// The symbol that it gives a value, if it is a `LateSize`.
    pub fn late_symbol(&self) -> Option<&Symbol> {
        let Op::LateSize { size, .. } = self else { return None };
        size.as_symbol()
    }

    /// Whether it owns regions.
    pub fn is_control(&self) -> bool {
        matches!(self, Op::If { .. } | Op::Route { .. } | Op::Loop { .. })
    }

    /// The number of the early-exit decision that it makes, if it makes one.
    pub fn exit(&self) -> Option<i64> {
        let (Op::If { exit, .. } | Op::Route { exit, .. }) = self else { return None };
        (*exit >= 0).then_some(*exit)
    }

    /// The number of the gate that it is, if it is one.
    pub fn gate(&self) -> Option<i64> {
        let (Op::If { gate, .. } | Op::Route { gate, .. }) = self else { return None };
        (*gate >= 0).then_some(*gate)
    }
}

/// An operator as bytes: its name and attributes.
impl serde::Serialize for Op {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.name(), self.attributes()).serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Op {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Op, D::Error> {
        let (name, attributes) = <(String, Vec<(String, AttrValue)>)>::deserialize(deserializer)?;
        Op::from_attributes(&name, &attributes).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip_and_default() {
        let op = Op::Gemm { alpha: 0.5, beta: 1.0, trans_a: false, trans_b: true, weights: Precision::Bf16 };
        let attrs: Vec<_> = op.attributes().into_iter().map(|(n, v)| (n.to_string(), v)).collect();
        assert_eq!(Op::from_attributes("Gemm", &attrs), Ok(op));
        assert_eq!(Op::from_attributes("Softmax", &[]), Ok(Op::Softmax { axis: -1 }));
    }

    #[test]
    fn wrong_attributes_are_named() {
        let unknown = Op::from_attributes("Relu", &[("alpha".into(), AttrValue::Int(1))]);
        assert_eq!(unknown.map_err(|e| e.to_string()), Err("Relu has no attribute `alpha`".into()));
        let missing = Op::from_attributes("Transpose", &[]);
        assert_eq!(missing.map_err(|e| e.to_string()), Err("Transpose needs the attribute `perm`".into()));
    }
}

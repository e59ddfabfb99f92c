//! Scalar expressions as WGSL, for loops and for epilogues.

use eec_ir::DType;
use eec_ir::program::{BinaryFn, ExprId, Scalar, UnaryFn};

use super::dims::number;
use super::helpers::Helper;
use super::text::{Reason, Writer, word};

impl Writer<'_> {
    /// A constant.
    pub(super) fn scalar(&mut self, scalar: Scalar) -> Result<String, Reason> {
        match scalar {
            Scalar::F32(x) => Ok(self.float(x)),
            Scalar::I64(x) => number(x),
            Scalar::I32(x) => number(x.into()),
            Scalar::Bool(x) => Ok(x.to_string()),
        }
    }

    /// A float, bit by bit.
    pub(super) fn float(&mut self, x: f32) -> String {
        if x.is_finite() {
            let text = format!("{x:?}");
            return if x.is_sign_negative() { format!("({text})") } else { text };
        }
        self.helper(Helper::FromBits);
        format!("from_bits({:#010x}u)", x.to_bits())
    }

    fn call(&mut self, helper: Helper, name: &str, args: &str) -> String {
        self.helper(helper);
        format!("{name}({args})")
    }

    /// A function of one operand of type `dtype`.
    pub(super) fn unary(&mut self, function: UnaryFn, dtype: DType, a: &str) -> String {
        match function {
            UnaryFn::Neg => format!("-{a}"),
            UnaryFn::Abs => format!("abs({a})"),
            UnaryFn::Sqrt => format!("sqrt({a})"),
            UnaryFn::Reciprocal => format!("1.0 / {a}"),
            UnaryFn::Exp => format!("exp({a})"),
            UnaryFn::Log => format!("log({a})"),
            UnaryFn::Sin => self.call(Helper::Sine, "sine", &format!("{a}, 0")),
            UnaryFn::Cos => self.call(Helper::Sine, "sine", &format!("{a}, 1")),
            UnaryFn::Tanh => self.call(Helper::Tanh, "tanh_of", a),
            UnaryFn::Erf => self.call(Helper::Erf, "erf_of", a),
            UnaryFn::Sigmoid => format!("1.0 / (1.0 + exp(-{a}))"),
            UnaryFn::Floor => format!("floor({a})"),
            UnaryFn::Ceil => format!("ceil({a})"),
            UnaryFn::Round => format!("round({a})"),
            UnaryFn::Not => format!("!{a}"),
            UnaryFn::IsNaN if dtype == DType::F32 => self.call(Helper::IsNan, "is_nan", a),
            UnaryFn::IsNaN => "false".into(),
        }
    }

    /// A function of two operands of type `dtype`. Integers divide by what [`Writer::divisor`] checked.
    pub(super) fn binary(&mut self, function: BinaryFn, dtype: DType, a: &str, b: &str) -> String {
        let float = dtype == DType::F32;
        match function {
            BinaryFn::Add => format!("{a} + {b}"),
            BinaryFn::Sub => format!("{a} - {b}"),
            BinaryFn::Mul => format!("{a} * {b}"),
            BinaryFn::Div => format!("{a} / {b}"),
            BinaryFn::Pow => self.call(Helper::Power, "power", &format!("{a}, {b}")),
            BinaryFn::Max if float => self.call(Helper::Larger, "larger", &format!("{a}, {b}")),
            BinaryFn::Min if float => self.call(Helper::Smaller, "smaller", &format!("{a}, {b}")),
            BinaryFn::Max => format!("max({a}, {b})"),
            BinaryFn::Min => format!("min({a}, {b})"),
            BinaryFn::And => format!("{a} && {b}"),
            BinaryFn::Or => format!("{a} || {b}"),
            BinaryFn::Equal => format!("{a} == {b}"),
            BinaryFn::Less => format!("{a} < {b}"),
            BinaryFn::LessOrEqual => format!("{a} <= {b}"),
        }
    }

    /// A conversion.
    pub(super) fn cast(&mut self, from: DType, to: DType, a: &str) -> Result<String, Reason> {
        let (from_word, to_word) = (word(from)?, word(to)?);
        Ok(match (from_word, to_word) {
            ("f32", "i32") => self.call(Helper::ToInteger, "to_integer", a),
            ("f32", "bool") => format!("{a} != 0.0"),
            ("i32", "bool") => format!("{a} != 0"),
            ("bool", "f32") => format!("select(0.0, 1.0, {a})"),
            ("bool", "i32") => format!("select(0, 1, {a})"),
            ("i32", "f32") => format!("f32({a})"),
            _ => a.to_string(),
        })
    }
}

/// The variable that holds an expression.
pub(super) fn name(id: ExprId) -> String {
    format!("e{}", id.0)
}

//! Epilogues: what finished elements of a product or convolution become before they leave the caches.

use serde::{Deserialize, Serialize};

use super::kernel::{BinaryFn, Expr, ExprId, Scalar, UnaryFn, View};

/// An elementwise expression in f32 over a finished element and operands at the element's own coordinates.
///
/// The same operations in the same order as a map over the result would make: where an element is computed
/// does not change it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Epilogue {
    /// What expressions load, in f32; strides over the result's index space, the last 0 or 1.
    pub operands: Vec<View>,
    /// Expressions; operands come before users. `Reduced(0)` is the finished element, `Load` reads one of
    /// `operands`; see [`Epilogue::check`] for what else there may be.
    pub exprs: Vec<Expr>,
    /// The element's value in the result.
    pub value: ExprId,
}

impl Epilogue {
    /// Expressions at most.
    pub const MAX_EXPRS: usize = 1 << 10;

    /// Checks the expressions: constants, operands, the element itself, and functions from f32 to f32 that
    /// kernels compute for many values at once.
    ///
    /// # Errors
    ///
    /// What is wrong with the first ill-formed expression.
    pub fn check(&self) -> Result<(), String> {
        if self.exprs.len() > Self::MAX_EXPRS {
            return Err(format!("it has {} expressions, more than {}", self.exprs.len(), Self::MAX_EXPRS));
        }
        for (i, expr) in self.exprs.iter().enumerate() {
            self.check_one(i, expr).map_err(|why| format!("expression {i}: {why}"))?;
        }
        if self.value.0 as usize >= self.exprs.len() {
            return Err(format!("expression {} does not exist", self.value.0));
        }
        Ok(())
    }

    fn check_one(&self, at: usize, expr: &Expr) -> Result<(), String> {
        let before = |id: &ExprId| match (id.0 as usize) < at {
            true => Ok(()),
            false => Err(format!("operand {} does not come before it", id.0)),
        };
        match expr {
            Expr::Reduced(0) | Expr::Const(Scalar::F32(_)) => Ok(()),
            Expr::Load(i) if (*i as usize) < self.operands.len() => Ok(()),
            Expr::Load(i) => Err(format!("operand {i} of {} does not exist", self.operands.len())),
            Expr::Unary(function, a) if is_strip_unary(*function) => before(a),
            Expr::Binary(function, a, b) if is_strip_binary(*function) => before(a).and(before(b)),
            Expr::Unary(..) | Expr::Binary(..) | Expr::Select(..) | Expr::Cast(..) => refused(expr),
            Expr::LoadAt { .. } | Expr::Index(_) | Expr::Size(_) | Expr::Const(_) | Expr::Reduced(_) => refused(expr),
        }
    }
}

fn refused(expr: &Expr) -> Result<(), String> {
    Err(format!("{expr:?} has no place in an epilogue"))
}

fn is_strip_unary(function: UnaryFn) -> bool {
    match function {
        UnaryFn::Neg | UnaryFn::Abs | UnaryFn::Sqrt | UnaryFn::Reciprocal => true,
        UnaryFn::Exp | UnaryFn::Log | UnaryFn::Tanh | UnaryFn::Erf | UnaryFn::Sigmoid => true,
        UnaryFn::Sin | UnaryFn::Cos | UnaryFn::Not | UnaryFn::IsNaN => false,
        UnaryFn::Floor | UnaryFn::Ceil | UnaryFn::Round => false,
    }
}

fn is_strip_binary(function: BinaryFn) -> bool {
    match function {
        BinaryFn::Add | BinaryFn::Sub | BinaryFn::Mul | BinaryFn::Div | BinaryFn::Max | BinaryFn::Min => true,
        BinaryFn::Pow | BinaryFn::And | BinaryFn::Or => false,
        BinaryFn::Equal | BinaryFn::Less | BinaryFn::LessOrEqual => false,
    }
}

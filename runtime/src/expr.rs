//! What the expressions of a program need.

use eec_ir::program::{Expr, ExprId};

/// Calls `f` with the operands of an expression.
pub(crate) fn operands(expr: &Expr, f: &mut dyn FnMut(ExprId)) {
    match expr {
        Expr::Load(_) | Expr::Index(_) | Expr::Size(_) | Expr::Const(_) | Expr::Reduced(_) => {}
        Expr::LoadAt { at, .. } => at.iter().for_each(|c| f(c.index)),
        Expr::Unary(_, a) | Expr::Cast(_, a) => f(*a),
        Expr::Binary(_, a, b) => [*a, *b].into_iter().for_each(f),
        Expr::Select(c, a, b) => [*c, *a, *b].into_iter().for_each(f),
    }
}

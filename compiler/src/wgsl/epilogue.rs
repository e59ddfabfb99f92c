//! What finished sums of products and convolutions become before they are stored.

use eec_ir::DType;
use eec_ir::program::{Epilogue, Expr};

use super::exprs::name;
use super::text::{Reason, Writer};

/// Writes the epilogue of the sum in variable `sum` at these indices; gives the name of the result.
pub(super) fn finish(
    w: &mut Writer,
    epilogue: Option<&Epilogue>,
    sum: &str,
    indices: &[String],
) -> Result<String, Reason> {
    let Some(epilogue) = epilogue else { return Ok(sum.to_string()) };
    for (at, expr) in epilogue.exprs.iter().enumerate() {
        let value = match expr {
            Expr::Reduced(_) => sum.to_string(),
            Expr::Load(operand) => {
                let (place, position) = w.view(&epilogue.operands[*operand as usize], indices)?;
                place.load(&position)
            }
            Expr::Const(scalar) => w.scalar(*scalar)?,
            Expr::Unary(function, a) => w.unary(*function, DType::F32, &name(*a)),
            Expr::Binary(function, a, b) => w.binary(*function, DType::F32, &name(*a), &name(*b)),
            Expr::Select(..) | Expr::Cast(..) | Expr::LoadAt { .. } | Expr::Index(_) | Expr::Size(_) => {
                return Err(format!("{expr:?} has no place in an epilogue"));
            }
        };
        w.line(format!("let e{at} = {value};"));
    }
    Ok(name(epilogue.value))
}

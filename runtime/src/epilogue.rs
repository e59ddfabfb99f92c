//! Epilogues of a Program as steps of the kernels.

use eec_ir::program::{BinaryFn, Epilogue, Expr, ExprId, Form, Program, Scalar, UnaryFn};

use crate::expr::operands;
use crate::kernels::epilogue::{Join, MAX_LINKS, Make, Operation, Place, Step, Steps};
use crate::kernels::math::Function;

/// Per kernel of a verified program the steps of its epilogue.
pub(crate) fn epilogues(program: &Program) -> Vec<Option<Steps>> {
    let epilogue = |form: &Form| match form {
        Form::MatMul(form) => form.epilogue.as_ref().map(steps),
        Form::Conv(form) => form.epilogue.as_ref().map(steps),
        Form::Loop(_) | Form::Attention(_) | Form::Pool(_) | Form::Scan(_) | Form::Host(_) => None,
    };
    program.kernels.iter().map(|kernel| epilogue(&kernel.form)).collect()
}

fn steps(epilogue: &Epilogue) -> Steps {
    let value = epilogue.value.0 as usize;
    let exprs = &epilogue.exprs[..=value];
    let last_uses = last_uses(exprs);
    let mut planner = Planner { places: Vec::with_capacity(exprs.len()), free: Vec::new(), slots: 0 };
    let mut steps = Vec::new();
    for (id, expr) in exprs.iter().enumerate() {
        let made = match expr {
            Expr::Unary(function, a) => Some((unary(*function), [*a; 2])),
            Expr::Binary(function, a, b) => Some((Make::Pass(binary(*function)), [*a, *b])),
            _ => None,
        };
        let used = id == value || last_uses[id].is_some();
        let Some((make, operands)) = made.filter(|_| used) else {
            planner.places.push(leaf(expr));
            continue;
        };
        let places = operands.map(|o| planner.places[o.0 as usize]);
        planner.release(&operands, id, &last_uses);
        let to = (id != value).then(|| planner.take());
        planner.places.push(to.map_or(Place::Sum, Place::Slot));
        steps.push(Step { make, operands: places, to });
    }
    if steps.last().is_none_or(|step| step.to.is_some()) {
        let place = planner.places[value];
        steps.push(Step { make: Make::Pass(Operation::Copy), operands: [place; 2], to: None });
    }
    Steps { links: links(&steps), steps, slots: planner.slots, operands: epilogue.operands.len() }
}

/// The steps as links: each joins one value to the result of the step before.
fn links(steps: &[Step]) -> Option<Vec<(Join, Place)>> {
    let mut sum = Place::Sum;
    let mut link = |step: &Step| {
        let (join, either) = match step.make {
            Make::Pass(Operation::Add) => (Join::Add, true),
            Make::Pass(Operation::Max) => (Join::Max, false),
            Make::Pass(Operation::Min) => (Join::Min, false),
            Make::Pass(_) | Make::Call(_) => return None,
        };
        let other = match step.operands {
            [a, other] if a == sum => other,
            [other, b] if b == sum && either => other,
            _ => return None,
        };
        sum = step.to.map_or(Place::Sum, Place::Slot);
        matches!(other, Place::Operand(_) | Place::Const(_)).then_some((join, other))
    };
    if steps.len() > MAX_LINKS {
        return None;
    }
    steps.iter().map(&mut link).collect()
}

/// Per expression the last one that the last of all needs and that reads it.
fn last_uses(exprs: &[Expr]) -> Vec<Option<usize>> {
    let mut last = vec![None; exprs.len()];
    for (id, expr) in exprs.iter().enumerate().rev() {
        if id + 1 == exprs.len() || last[id].is_some() {
            operands(expr, &mut |o| {
                last[o.0 as usize].get_or_insert(id);
            });
        }
    }
    last
}

/// Where values are while the steps are listed.
struct Planner {
    /// Per expression.
    places: Vec<Place>,
    /// Slots whose values nobody needs.
    free: Vec<usize>,
    slots: usize,
}

impl Planner {
    /// Frees the slots of operands that are last used by `id`: a step may write where it reads.
    fn release(&mut self, operands: &[ExprId; 2], id: usize, last_uses: &[Option<usize>]) {
        for operand in operands.iter().map(|o| o.0 as usize).filter(|o| last_uses[*o] == Some(id)) {
            if let Place::Slot(slot) = self.places[operand]
                && !self.free.contains(&slot)
            {
                self.free.push(slot);
            }
        }
    }

    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }
}

/// Where a value is that no step makes; what the verifier refuses counts as 0.
fn leaf(expr: &Expr) -> Place {
    match expr {
        Expr::Reduced(_) => Place::Sum,
        Expr::Load(operand) => Place::Operand(*operand as usize),
        Expr::Const(Scalar::F32(x)) => Place::Const(*x),
        Expr::Const(_) | Expr::LoadAt { .. } | Expr::Index(_) | Expr::Size(_) => Place::Const(0.0),
        Expr::Unary(..) | Expr::Binary(..) | Expr::Select(..) | Expr::Cast(..) => Place::Const(0.0),
    }
}

fn unary(function: UnaryFn) -> Make {
    match function {
        UnaryFn::Neg => Make::Pass(Operation::Neg),
        UnaryFn::Abs => Make::Pass(Operation::Abs),
        UnaryFn::Sqrt => Make::Pass(Operation::Sqrt),
        UnaryFn::Reciprocal => Make::Pass(Operation::Reciprocal),
        UnaryFn::Exp => Make::Call(Function::Exp),
        UnaryFn::Log => Make::Call(Function::Log),
        UnaryFn::Tanh => Make::Call(Function::Tanh),
        UnaryFn::Erf => Make::Call(Function::Erf),
        UnaryFn::Sigmoid => Make::Call(Function::Sigmoid),
        // The verifier refuses these here.
        UnaryFn::Sin | UnaryFn::Cos | UnaryFn::Not | UnaryFn::IsNaN => Make::Pass(Operation::Copy),
        UnaryFn::Floor | UnaryFn::Ceil | UnaryFn::Round => Make::Pass(Operation::Copy),
    }
}

fn binary(function: BinaryFn) -> Operation {
    match function {
        BinaryFn::Add => Operation::Add,
        BinaryFn::Sub => Operation::Sub,
        BinaryFn::Mul => Operation::Mul,
        BinaryFn::Div => Operation::Div,
        BinaryFn::Max => Operation::Max,
        BinaryFn::Min => Operation::Min,
        // The verifier refuses these here.
        BinaryFn::Pow | BinaryFn::And | BinaryFn::Or => Operation::Copy,
        BinaryFn::Equal | BinaryFn::Less | BinaryFn::LessOrEqual => Operation::Copy,
    }
}

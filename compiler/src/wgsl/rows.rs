//! Copies: outputs to what is read back, operands to where the host finds them, rows to the block that runs on them, and results back to their rows.

use eec_ir::gpu::Param;
use eec_ir::program::{BlockId, Dense, RouteStep, RowBuffer};
use eec_ir::{BufferId, DType, Dim};

use super::Body;
use super::dims::groups;
use super::place::Place;
use super::text::{Kind, Reason, Shared, Writer};

/// Lanes of a workgroup, each with one element.
const LANES: u32 = 128;

/// A shader that is written, and its workgroups.
pub(super) type Made<'p> = Result<(Writer<'p>, Body), Reason>;

/// Copies an output.
pub(super) fn output<'p>(shared: &'p Shared<'p>, number: usize) -> Made<'p> {
    let mut w = Writer::new(shared, Kind::Kernel, BlockId(0));
    let port = &shared.program.outputs[number];
    let (from, to) = (w.place(port.buffer)?, w.arena_at(Param::Output(number as u32), port.dtype)?);
    copy(w, &from, &to, &Dim::product(&port.dims))
}

/// Copies an operand of the host to where it finds it.
pub(super) fn operand<'p>(shared: &'p Shared<'p>, owner: BlockId, tensor: &Dense, scratch: u32) -> Made<'p> {
    let mut w = Writer::new(shared, Kind::Kernel, owner);
    let (from, to) = (w.place(tensor.buffer)?, w.arena(Param::Scratch(scratch), DType::F32)?);
    copy(w, &from, &to, &Dim::product(&tensor.dims))
}

/// Copies so many elements.
fn copy<'p>(mut w: Writer<'p>, from: &Place, to: &Place, elements: &Dim) -> Made<'p> {
    let total = w.dim(elements)?;
    w.line(format!("let total = {total};"));
    each(&mut w, "total");
    w.line(to.store_word("i", &from.word("i")));
    w.line("}");
    Ok((w, body(elements)?))
}

/// Begins a loop over elements.
pub(super) fn each(w: &mut Writer, total: &str) {
    w.line(format!("for (var i = group * {LANES} + lane; i < {total}; i += groups * {LANES}) {{"));
}

pub(super) fn body(elements: &Dim) -> Result<Body, Reason> {
    Ok(Body { lanes: LANES, groups: groups(elements, LANES.into())? })
}

/// The rows of a route: its lists of row numbers, first those that go to `then`, and how many go where.
struct Split {
    list: Place,
    taken: String,
    rest: String,
}

/// Names a route's rows; nothing runs unless both blocks have some.
fn split(w: &mut Writer, step: &RouteStep, list: u32) -> Result<Split, Reason> {
    let program = w.shared.program;
    let mut count = |id: BlockId| match &program.block(id).rows {
        Some(symbol) => w.symbol(symbol),
        None => Err(format!("block {} of a route has no rows", id.0)),
    };
    let (taken, rest) = (count(step.then)?, count(step.other)?);
    w.unless(format!("{taken} == 0 || {rest} == 0"));
    let list = w.arena(Param::Scratch(list), DType::I32)?;
    Ok(Split { list, taken, rest })
}

/// Copies the operands' rows to the parameters of both blocks, if both run. `None` if there are no parameters.
pub(super) fn gather<'p>(
    shared: &'p Shared<'p>,
    owner: BlockId,
    step: &RouteStep,
    list: u32,
) -> Result<Option<(Writer<'p>, Body)>, Reason> {
    let mut w = Writer::new(shared, Kind::Kernel, owner);
    let Split { list, taken, rest } = split(&mut w, step, list)?;
    let mut elements = Dim::default();
    for (id, count, first) in [(step.then, &taken, "0"), (step.other, &rest, taken.as_str())] {
        for (param, RowBuffer { buffer, row }) in shared.program.block(id).params.iter().zip(&step.operands) {
            let Some(param) = param else { continue };
            let (from, to, size) = (w.place(*buffer)?, w.arena(Param::Home(*param), DType::F32)?, w.dim(row)?);
            let by = w.divisor(row)?;
            each(&mut w, &format!("{count} * {size}"));
            w.line(format!("let position = i / {by};"));
            w.line(format!("let row = {};", list.load(&format!("{first} + position"))));
            w.line(to.store_word("i", &from.word(&format!("row * {size} + i - position * {size}"))));
            w.line("}");
            elements = &elements + &(&step.rows * row);
        }
    }
    if elements == Dim::default() {
        return Ok(None);
    }
    Ok(Some((w, body(&elements)?)))
}

/// Which of a route's rows results are written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// Those that went to `then`.
    Then,
    /// The others.
    Other,
}

/// Copies what one side yielded to its rows of the results, if both sides have rows.
pub(super) fn merge<'p>(
    shared: &'p Shared<'p>,
    owner: BlockId,
    step: &RouteStep,
    list: u32,
    sides: &[(Side, &[BufferId])],
) -> Made<'p> {
    let mut w = Writer::new(shared, Kind::Kernel, owner);
    let Split { list, taken, rest } = split(&mut w, step, list)?;
    let mut elements = Dim::default();
    for (at, RowBuffer { buffer, row }) in step.results.iter().enumerate() {
        for (side, yields) in sides {
            let (count, first) = match side {
                Side::Then => (&taken, "0"),
                Side::Other => (&rest, taken.as_str()),
            };
            let given = yields.get(at).ok_or("a block yields too little")?;
            let (from, to, size) = (w.place(*given)?, w.arena(Param::Home(*buffer), DType::F32)?, w.dim(row)?);
            let by = w.divisor(row)?;
            each(&mut w, &format!("{count} * {size}"));
            w.line(format!("let position = i / {by};"));
            w.line(format!("let row = {};", list.load(&format!("{first} + position"))));
            w.line(to.store_word(&format!("row * {size} + i - position * {size}"), &from.word("i")));
            w.line("}");
            elements = &elements + &(&step.rows * row);
        }
    }
    Ok((w, body(&elements)?))
}

//! The shaders of loops: those that decide whether there is a first and a next step, and the copies of what a step
//! carries on. What is carried lies in turn in the result's own place and the parameter's, so that a step reads one
//! while the next one's is written; a parameter that nothing reads needs no second place.

use eec_ir::gpu::{Fault, Param};
use eec_ir::program::{Block, BlockId, RepeatStep};
use eec_ir::{BufferId, DType, Dim};

use super::Body;
use super::control::{self, Decide, Region};
use super::rows::{self, Made};
use super::text::{Kind, Reason, Shared, Writer};

/// What a loop carries: its result, the parameter if a step reads it, and what it is at first and what a step yields.
struct Carried {
    result: BufferId,
    param: Option<BufferId>,
    first: BufferId,
    given: BufferId,
}

fn carried(block: &Block, step: &RepeatStep) -> Vec<Carried> {
    let given = block.yields.iter().skip(usize::from(step.condition.is_some()));
    let all = step.results.iter().zip(block.params.iter().skip(1)).zip(&step.carried).zip(given);
    let one = |(((result, param), first), given): (((&BufferId, &Option<BufferId>), &BufferId), &BufferId)| Carried {
        result: *result,
        param: *param,
        first: *first,
        given: *given,
    };
    all.map(one).collect()
}

/// Before the first step: whether there is one, and what it is given.
pub(super) fn begin<'p>(
    shared: &'p Shared<'p>,
    owner: BlockId,
    step: &RepeatStep,
    number: u32,
    region: &Region,
) -> Made<'p> {
    let mut w = Writer::new(shared, Kind::Control, owner);
    let block = shared.program.block(step.body);
    let wanted = wanted(&mut w, step, "0", step.condition)?;
    w.line("if lane == 0 {");
    take_step(&mut w, &wanted);
    set_number(&mut w, block, number, "i32(0)")?;
    let carried = carried(block, step);
    let results: Vec<Vec<Param>> =
        carried.iter().map(|c| vec![Param::Offset(c.result), Param::Offset(c.first)]).collect();
    w.copies(&results, "state[param(at)] = state[param(at + 1)];");
    aim_params(&mut w, &carried);
    w.line("}");
    go_on(&mut w, region);
    Ok((w, control::body()))
}

/// After a step: whether there is another, and what it is given.
pub(super) fn turn<'p>(shared: &'p Shared<'p>, step: &RepeatStep, number: u32, region: &Region) -> Made<'p> {
    let mut w = Writer::new(shared, Kind::Control, step.body);
    let block = shared.program.block(step.body);
    let next = step.condition.and(block.yields.first().copied());
    let made = w.param(Param::Step(number));
    let wanted = wanted(&mut w, step, "number", next)?;
    w.line("if lane == 0 {");
    w.line(format!("let number = state[{made}] + 1;"));
    take_step(&mut w, &wanted);
    set_number(&mut w, block, number, "number")?;
    let carried = carried(block, step);
    let (twice, once): (Vec<&Carried>, Vec<&Carried>) = carried.iter().partition(|c| c.param.is_some());
    let in_turn = |c: &&Carried| Some(vec![Param::Offset(c.result), Param::Home(c.result), Param::Home(c.param?)]);
    let in_turn: Vec<Vec<Param>> = twice.iter().filter_map(in_turn).collect();
    let to = "select(state[param(at + 1)], state[param(at + 2)], state[param(at)] == state[param(at + 1)])";
    w.copies(&in_turn, &format!("state[param(at)] = {to};"));
    let own: Vec<Vec<Param>> = once.iter().map(|c| vec![Param::Offset(c.result), Param::Home(c.result)]).collect();
    w.copies(&own, "state[param(at)] = state[param(at + 1)];");
    aim_params(&mut w, &carried);
    w.line("}");
    go_on(&mut w, region);
    Ok((w, control::body()))
}

/// Whether a step of this number is wanted, by the count and by a condition.
fn wanted(w: &mut Writer, step: &RepeatStep, number: &str, condition: Option<BufferId>) -> Result<String, Reason> {
    let mut all = Vec::new();
    // What no word holds limits nothing: a run makes fewer steps.
    if let Some(trips) = step.trips.as_ref().filter(|t| t.as_const().is_none_or(|n| n <= i64::from(i32::MAX))) {
        all.push(format!("{number} < {}", w.dim(trips)?));
    }
    if let Some(condition) = condition {
        all.push(w.place(condition)?.load("0"));
    }
    Ok(if all.is_empty() { "true".into() } else { all.join(" && ") })
}

/// Lets a wanted step run, unless the run has failed or makes too many.
fn take_step(w: &mut Writer, wanted: &str) {
    let (left, failed, fail) = (w.param(Param::StepsLeft), w.failed(), w.fail(Fault::Steps));
    w.global("var<workgroup> next: i32;");
    w.line("next = 0;");
    w.line(format!("if {wanted} && !{failed} {{"));
    w.line(format!("if state[{left}] > 0 {{"));
    w.line(format!("state[{left}] -= 1;"));
    w.line("next = 1;");
    w.line("} else {");
    w.line(fail);
    w.line("}");
    w.line("}");
}

/// Notes the number of the step that follows, for the loop and for what reads it.
fn set_number(w: &mut Writer, block: &Block, number: u32, value: &str) -> Result<(), Reason> {
    let made = w.param(Param::Step(number));
    w.line(format!("state[{made}] = {value};"));
    if let Some(read) = block.params.first().copied().flatten() {
        let place = w.place(read)?;
        w.line(place.store("0", value));
    }
    Ok(())
}

/// Lets parameters stand for what results stand for.
fn aim_params(w: &mut Writer, carried: &[Carried]) {
    let params = carried.iter().filter_map(|c| Some(vec![Param::Offset(c.param?), Param::Offset(c.result)]));
    let params: Vec<Vec<Param>> = params.collect();
    w.copies(&params, "state[param(at)] = state[param(at + 1)];");
}

/// Lets the body run once more, or nothing of it any more.
fn go_on(w: &mut Writer, region: &Region) {
    w.line("let runs = workgroupUniformLoad(&next) != 0;");
    w.run(region, "runs");
}

/// Copies what a step yields to where the next one, and what follows the loop, find it. `None` if that is nothing.
pub(super) fn carry<'p>(
    shared: &'p Shared<'p>,
    step: &RepeatStep,
    number: u32,
) -> Result<Option<(Writer<'p>, Body)>, Reason> {
    let program = shared.program;
    let block = program.block(step.body);
    let mut w = Writer::new(shared, Kind::Kernel, step.body);
    let mut elements = Dim::default();
    for Carried { result, param, given, .. } in carried(block, step) {
        let buffer = program.buffer(result);
        let (from, home) = (w.place(given)?, Param::Home(result));
        let to = match param {
            Some(param) => w.in_turn(Param::Offset(result), [home, Param::Home(param)], buffer.dtype)?,
            None => w.arena(home, buffer.dtype)?,
        };
        let total = w.dim(&buffer.len)?;
        rows::each(&mut w, &total);
        w.line(to.store_word("i", &from.word("i")));
        w.line("}");
        elements = &elements + &buffer.len;
    }
    let kept = usize::from(step.condition.is_some()) + step.results.len();
    for (row, given) in step.rows.iter().zip(block.yields.iter().skip(kept)) {
        let (from, to) = (w.place(*given)?, w.arena(Param::Home(row.buffer), DType::F32)?);
        let (size, made) = (w.dim(&row.row)?, w.param(Param::Step(number)));
        rows::each(&mut w, &size);
        w.line(to.store_word(&format!("state[{made}] * {size} + i"), &from.word("i")));
        w.line("}");
        elements = &elements + &row.row;
    }
    Ok(if elements == Dim::default() { None } else { Some((w, rows::body(&elements)?)) })
}

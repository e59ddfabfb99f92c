//! Control operators: `If`, `Route` and `Loop`. Their evaluation is the interpreter's (`crate::eval`).

use crate::dim::Dim;
use crate::entity::{RegionId, ValueId};
use crate::graph::Graph;
use crate::op::Op;
use crate::ops::{Facts, InferError, join};
use crate::types::{DType, Type};

/// A run whose loops make more steps together than this fails, unless it is told another limit.
pub const MAX_STEPS: u64 = 1 << 24;

/// The result types of a control operator from what its regions yield.
///
/// `If`: both regions take no parameters and yield the same types. `Route`: the first two regions
/// take the operands after the mask, with the region's row symbol as first dim. Without a join they
/// yield the same types up to that symbol. A join takes what they yield ([`join::lengths`]), and
/// then it is the join that gives the results. Results have the mask's rows. `Loop`: the region takes
/// a number and the carried operands, and yields a truth, as many values of the same types, and rows.
pub fn infer(graph: &Graph, op: &Op, inputs: &[ValueId], regions: &[RegionId]) -> Result<Vec<Facts>, InferError> {
    let Some((first, operands)) = inputs.split_first() else {
        return Err(InferError::new(op, "needs a condition or mask as first operand"));
    };
    let first = graph.ty(*first);
    if first.dtype != DType::Bool {
        return Err(InferError::new(op, format!("the first operand must be bool, found {first}")));
    }
    match (op, regions) {
        (Op::Route { .. }, &[then, other]) => infer_route(graph, op, first, operands, [then, other], None),
        (Op::Route { .. }, &[then, other, join]) => infer_route(graph, op, first, operands, [then, other], Some(join)),
        (Op::Loop { trips }, &[body]) => infer_loop(graph, op, trips, inputs, body),
        (Op::Loop { .. }, _) => Err(InferError::new(op, format!("needs 1 region, found {}", regions.len()))),
        (_, &[then, other]) => infer_if(graph, op, first, [then, other]),
        _ => Err(InferError::new(op, format!("needs 2 regions, found {}", regions.len()))),
    }
}

fn infer_if(graph: &Graph, op: &Op, condition: &Type, [then, other]: [RegionId; 2]) -> Result<Vec<Facts>, InferError> {
    check_truth(op, condition)?;
    let types = |r: RegionId| graph.region(r).yields.iter().map(|v| graph.ty(*v).clone()).collect::<Vec<_>>();
    let (a, b) = (types(then), types(other));
    if a != b {
        return Err(InferError::new(op, format!("the branches yield {a:?} and {b:?}")));
    }
    Ok(a.into_iter().map(Facts::of).collect())
}

fn check_truth(op: &Op, condition: &Type) -> Result<(), InferError> {
    match condition.dtype == DType::Bool && condition.elements().as_const() == Some(1) {
        true => Ok(()),
        false => Err(InferError::new(op, format!("the condition must have one element, a bool, found {condition}"))),
    }
}

/// Why a number that data gave is no size.
pub fn no_size(value: i64, most: i64) -> String {
    let why = match value < 0 {
        true => "which is negative: a window, for one, must fit into what it runs over".to_string(),
        false => format!("which is more than the {most} that it can be"),
    };
    format!("data makes it a size of {value}, {why}")
}

/// The number of steps that a `Loop` takes at most; `None` if only its condition ends it.
pub fn bound(trips: &Dim) -> Option<Dim> {
    (trips.as_const() != Some(-1)).then(|| trips.larger(&Dim::default()))
}

/// Whether a truth value is known to hold.
pub fn is_always(graph: &Graph, condition: ValueId) -> bool {
    let contents = graph.value(condition).contents.as_deref();
    contents.is_some_and(|c| matches!(c, [one] if one.as_const().is_some_and(|truth| truth != 0)))
}

fn infer_loop(
    graph: &Graph,
    op: &Op,
    trips: &Dim,
    inputs: &[ValueId],
    body: RegionId,
) -> Result<Vec<Facts>, InferError> {
    let fail = |reason: String| Err(InferError::new(op, reason));
    let types = |values: &[ValueId]| values.iter().map(|v| graph.ty(*v).clone()).collect::<Vec<_>>();
    let region = graph.region(body);
    let (carried, params) = (types(&inputs[1..]), types(&region.params));
    let step = Type::new(DType::I64, []);
    if params.split_first() != Some((&step, &carried[..])) {
        return fail(format!("{body} takes {params:?} for a number of type {step} and {carried:?}"));
    }
    let Some((next, yields)) = region.yields.split_first() else {
        return fail(format!("{body} yields no condition"));
    };
    check_truth(op, graph.ty(inputs[0]))?;
    check_truth(op, graph.ty(*next))?;
    let Some((kept, rows)) = yields.split_at_checked(carried.len()) else {
        return fail(format!("{body} yields {} values for {} that are carried", yields.len(), carried.len()));
    };
    let kept = types(kept);
    if kept != carried {
        return fail(format!("{body} takes {carried:?} and carries on {kept:?}"));
    }
    let count = match bound(trips) {
        Some(count) => count,
        None if rows.is_empty() => Dim::default(),
        None => return fail("a row of every step needs a bound on the number of steps".into()),
    };
    let stacked = types(rows).into_iter().map(|ty| Type::new(ty.dtype, std::iter::once(count.clone()).chain(ty.dims)));
    Ok(kept.into_iter().chain(stacked).map(Facts::of).collect())
}

fn infer_route(
    graph: &Graph,
    op: &Op,
    mask: &Type,
    operands: &[ValueId],
    sides: [RegionId; 2],
    join: Option<RegionId>,
) -> Result<Vec<Facts>, InferError> {
    let [rows] = mask.dims.as_slice() else {
        return Err(InferError::new(op, format!("the mask must have one dim, found {mask}")));
    };
    sides.iter().try_for_each(|side| check_params(graph, op, rows, operands, *side))?;
    let types = match join {
        Some(join) => {
            join::lengths(graph, sides, join).map_err(|e| InferError::new(op, e))?;
            result_types(graph, op, rows, join)?
        }
        None => {
            let [then, other] = sides.map(|side| result_types(graph, op, rows, side));
            let (then, other) = (then?, other?);
            if then != other {
                return Err(InferError::new(op, format!("the regions yield {then:?} and {other:?}")));
            }
            then
        }
    };
    Ok(types.into_iter().map(Facts::of).collect())
}

/// What `region` yields, with the mask's rows in place of its own; no other size may be its own.
fn result_types(graph: &Graph, op: &Op, rows: &Dim, region: RegionId) -> Result<Vec<Type>, InferError> {
    let (symbol, length) = (region_rows(graph, op, region)?, &graph.region(region).length);
    let own = |d: &Dim| symbol.as_symbol().into_iter().chain(length).any(|s| d.mentions(s));
    let result = |v: &ValueId| {
        let ty = graph.ty(*v);
        match ty.dims.iter().skip(1).find(|d| own(d)) {
            Some(dim) => Err(format!("{region} yields a value of type {ty}, whose size {dim} is unknown outside")),
            None => with_rows(ty, &symbol, rows),
        }
    };
    let types = graph.region(region).yields.iter().map(result).collect::<Result<Vec<_>, _>>();
    types.map_err(|e| InferError::new(op, e))
}

fn region_rows(graph: &Graph, op: &Op, region: RegionId) -> Result<Dim, InferError> {
    let rows = graph.region(region).rows.clone();
    rows.map(Dim::from).ok_or_else(|| InferError::new(op, format!("{region} has no row symbol")))
}

fn check_params(graph: &Graph, op: &Op, rows: &Dim, operands: &[ValueId], region: RegionId) -> Result<(), InferError> {
    let params = &graph.region(region).params;
    let symbol = region_rows(graph, op, region)?;
    if params.len() != operands.len() {
        let (want, have) = (operands.len(), params.len());
        return Err(InferError::new(op, format!("{region} takes {have} parameters for {want} operands")));
    }
    for (param, operand) in params.iter().zip(operands) {
        let (have, given) = (graph.ty(*param), graph.ty(*operand));
        if given.dims.first() != Some(rows) {
            return Err(InferError::new(op, format!("operand {operand} of type {given} has not {rows} rows")));
        }
        let expected = with_rows(have, &symbol, rows).map_err(|e| InferError::new(op, e))?;
        if &expected != given {
            return Err(InferError::new(op, format!("parameter {param} of {region} has type {have}, operand {given}")));
        }
    }
    Ok(())
}

/// `ty` with its first dim, which must be `symbol`, replaced by `rows`.
fn with_rows(ty: &Type, symbol: &Dim, rows: &Dim) -> Result<Type, String> {
    match ty.dims.split_first() {
        Some((first, rest)) if first == symbol => {
            Ok(Type::new(ty.dtype, std::iter::once(rows.clone()).chain(rest.iter().cloned())))
        }
        _ => Err(format!("a value of type {ty} must have {symbol} as its first dim")),
    }
}

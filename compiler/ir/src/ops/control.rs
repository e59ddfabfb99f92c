//! Control operators: `If` and `Route`. Their evaluation is the interpreter's (`crate::eval`).

use crate::dim::Dim;
use crate::entity::{RegionId, ValueId};
use crate::graph::Graph;
use crate::op::Op;
use crate::ops::{Facts, InferError, join};
use crate::types::{DType, Type};

/// The result types of a control operator from what its regions yield.
///
/// `If`: both regions take no parameters and yield the same types. `Route`: the first two regions
/// take the operands after the mask, with the region's row symbol as first dim. Without a join they
/// yield the same types up to that symbol. A join takes what they yield ([`join::lengths`]), and
/// then it is the join that gives the results. Results have the mask's rows.
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
        (_, &[then, other]) => infer_if(graph, op, first, [then, other]),
        _ => Err(InferError::new(op, format!("needs 2 regions, found {}", regions.len()))),
    }
}

fn infer_if(graph: &Graph, op: &Op, condition: &Type, [then, other]: [RegionId; 2]) -> Result<Vec<Facts>, InferError> {
    if condition.elements().as_const() != Some(1) {
        return Err(InferError::new(op, format!("the condition must have one element, found {condition}")));
    }
    let types = |r: RegionId| graph.region(r).yields.iter().map(|v| graph.ty(*v).clone()).collect::<Vec<_>>();
    let (a, b) = (types(then), types(other));
    if a != b {
        return Err(InferError::new(op, format!("the branches yield {a:?} and {b:?}")));
    }
    Ok(a.into_iter().map(Facts::of).collect())
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

//! Control operators: `If` and `Route`. Their evaluation is the interpreter's (`crate::eval`).

use crate::dim::Dim;
use crate::entity::{RegionId, ValueId};
use crate::graph::Graph;
use crate::op::Op;
use crate::ops::{Facts, InferError};
use crate::types::{DType, Type};

/// The result types of a control operator from what its regions yield.
///
/// `If`: both regions take no parameters and yield the same types. `Route`: both regions take the
/// operands after the mask, with the region's row symbol as first dim, and yield the same types up
/// to that symbol; results have the mask's rows.
pub fn infer(graph: &Graph, op: &Op, inputs: &[ValueId], regions: &[RegionId]) -> Result<Vec<Facts>, InferError> {
    let &[then, other] = regions else {
        return Err(InferError::new(op, format!("needs 2 regions, found {}", regions.len())));
    };
    let Some((first, operands)) = inputs.split_first() else {
        return Err(InferError::new(op, "needs a condition or mask as first operand"));
    };
    if graph.ty(*first).dtype != DType::Bool {
        return Err(InferError::new(op, format!("the first operand must be bool, found {}", graph.ty(*first))));
    }
    match op {
        Op::Route { .. } => infer_route(graph, op, graph.ty(*first), operands, [then, other]),
        _ => infer_if(graph, op, graph.ty(*first), [then, other]),
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
    regions: [RegionId; 2],
) -> Result<Vec<Facts>, InferError> {
    let [rows] = mask.dims.as_slice() else {
        return Err(InferError::new(op, format!("the mask must have one dim, found {mask}")));
    };
    let mut yields = Vec::new();
    for region in regions {
        check_params(graph, op, rows, operands, region)?;
        let symbol = region_rows(graph, op, region)?;
        let types = graph.region(region).yields.iter().map(|v| with_rows(graph.ty(*v), &symbol, rows));
        yields.push(types.collect::<Result<Vec<_>, _>>().map_err(|e| InferError::new(op, e))?);
    }
    if yields[0] != yields[1] {
        return Err(InferError::new(op, format!("the regions yield {:?} and {:?}", yields[0], yields[1])));
    }
    Ok(yields.swap_remove(0).into_iter().map(Facts::of).collect())
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

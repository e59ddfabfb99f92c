//! Control operators: `If` and `Route`. Their evaluation is the interpreter's (`crate::eval`).

use crate::dim::{Dim, Symbol};
use crate::entity::{RegionId, ValueId};
use crate::graph::Graph;
use crate::op::Op;
use crate::ops::{Facts, InferError};
use crate::types::{DType, Type};

/// The result types of a control operator from what its regions yield.
///
/// `If`: both regions take no parameters and yield the same types. `Route`: both regions take the
/// operands after the mask, with the region's row symbol as first dim, and yield the same types up
/// to that symbol; results have the mask's rows. With a join, the two may yield anything that the
/// join's parameters stand for: its row symbol for their rows, its length symbol where their sizes
/// differ; results are those of the join.
pub fn infer(graph: &Graph, op: &Op, inputs: &[ValueId], regions: &[RegionId]) -> Result<Vec<Facts>, InferError> {
    let (sides, join) = match *regions {
        [then, other] => ([then, other], None),
        [then, other, join] if matches!(op, Op::Route { .. }) => ([then, other], Some(join)),
        _ => return Err(InferError::new(op, format!("needs 2 regions, found {}", regions.len()))),
    };
    let Some((first, operands)) = inputs.split_first() else {
        return Err(InferError::new(op, "needs a condition or mask as first operand"));
    };
    let first = graph.ty(*first);
    if first.dtype != DType::Bool {
        return Err(InferError::new(op, format!("the first operand must be bool, found {first}")));
    }
    match (op, join) {
        (Op::Route { .. }, None) => infer_route(graph, op, first, operands, sides),
        (Op::Route { .. }, Some(join)) => infer_joined(graph, op, first, operands, sides, join),
        _ => infer_if(graph, op, first, sides),
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
    let rows = rows_of(op, mask)?;
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

fn rows_of<'t>(op: &Op, mask: &'t Type) -> Result<&'t Dim, InferError> {
    match mask.dims.as_slice() {
        [rows] => Ok(rows),
        _ => Err(InferError::new(op, format!("the mask must have one dim, found {mask}"))),
    }
}

fn infer_joined(
    graph: &Graph,
    op: &Op,
    mask: &Type,
    operands: &[ValueId],
    sides: [RegionId; 2],
    join: RegionId,
) -> Result<Vec<Facts>, InferError> {
    let rows = rows_of(op, mask)?;
    for side in sides {
        check_params(graph, op, rows, operands, side)?;
    }
    join_lengths(graph, sides, join).map_err(|e| InferError::new(op, e))?;
    let symbol = region_rows(graph, op, join)?;
    let length = graph.region(join).length.as_ref();
    let result = |v: &ValueId| {
        let ty = with_rows(graph.ty(*v), &symbol, rows)?;
        match length.filter(|l| ty.dims.iter().any(|d| d.mentions(l))) {
            Some(length) => Err(format!("a result of type {ty} cannot have the length {length}")),
            None => Ok(Facts::of(ty)),
        }
    };
    graph.region(join).yields.iter().map(result).collect::<Result<_, _>>().map_err(|e| InferError::new(op, e))
}

/// What the length symbol of a join stands for after each of the two regions; `None` if it has no such
/// symbol. An error if the join's parameters do not stand for what the regions yield.
pub fn join_lengths(graph: &Graph, sides: [RegionId; 2], join: RegionId) -> Result<Option<[Dim; 2]>, String> {
    let inner = graph.region(join);
    let [then, other] = sides.map(|side| graph.region(side));
    let counts = [inner.params.len(), then.yields.len(), other.yields.len()];
    if counts.iter().any(|c| *c != counts[0]) {
        let [params, then, other] = counts;
        return Err(format!("{join} takes {params} parameters, the regions before it yield {then} and {other}"));
    }
    let mut lengths: Option<[Dim; 2]> = None;
    for ((param, a), b) in inner.params.iter().zip(&then.yields).zip(&other.yields) {
        let [have, a, b] = [param, a, b].map(|v| graph.ty(*v));
        let misfit = || format!("parameter {param} of {join} has type {have}, the regions yield {a} and {b}");
        if have.dtype != a.dtype || have.dtype != b.dtype || have.rank() != a.rank() || have.rank() != b.rank() {
            return Err(misfit());
        }
        for (axis, dim) in have.dims.iter().enumerate() {
            let (x, y) = (&a.dims[axis], &b.dims[axis]);
            let is = |symbol: &Option<Symbol>, dim: &Dim| symbol.is_some() && dim.as_symbol() == symbol.as_ref();
            let fits = if is(&inner.rows, dim) {
                axis == 0 && is(&then.rows, x) && is(&other.rows, y)
            } else if is(&inner.length, dim) {
                let found = [x.clone(), y.clone()];
                *lengths.get_or_insert_with(|| found.clone()) == found
            } else {
                dim == x && dim == y
            };
            if !fits {
                return Err(misfit());
            }
        }
    }
    match (&inner.length, lengths) {
        (Some(symbol), None) => Err(format!("no parameter of {join} has the length {symbol}")),
        (_, lengths) => Ok(lengths),
    }
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

//! Regions over some rows: their parameters, what they take in, and the control operator over them.

use eec_ir::{Dim, Graph, Op, RegionId, Symbol, Type, ValueId};

use super::InsertError;
use super::attach::Scope;
use super::build::Builder;
use super::plan::{Outer, Place};
use crate::clone::{self, Substitution, ValueMap};
use crate::token_exits::Axis;

/// A value with its rows as first dim.
pub(super) struct Packed {
    pub(super) value: ValueId,
    /// The dims it had.
    dims: Vec<Dim>,
    form: Form,
}

/// Where the rows of a value are.
#[derive(Clone, Copy)]
enum Form {
    /// They are its first dim.
    First,
    /// They come first, but share this dim with others: `[rows*7, 4]`. Dims before it are 1.
    Shared { axis: usize },
    /// Others come before them.
    Inside,
}

impl Packed {
    /// The axes that were `axes` before the rows became the first dim; `None` if they are no axes now.
    pub(super) fn axes(&self, axes: &[Axis]) -> Option<Vec<Axis>> {
        match self.form {
            Form::First => Some(axes.to_vec()),
            Form::Shared { axis: first } => {
                let split = |a: &Axis| Some(Axis { axis: a.axis.checked_sub(first)? + 1, with_batch: false });
                axes.iter().map(split).collect()
            }
            Form::Inside => axes.is_empty().then(Vec::new),
        }
    }
}

/// A region, its parameters, and its rows.
pub(super) struct Region {
    pub(super) id: RegionId,
    pub(super) params: Vec<ValueId>,
    pub(super) rows: Symbol,
}

impl Builder<'_> {
    /// A region with a parameter for every operand, over fresh rows.
    pub(super) fn region(&mut self, operands: &[ValueId]) -> Region {
        let rows = clone::fresh_symbol(self.attach.source, self.attach.target, "r");
        let target = &mut self.attach.target;
        let id = target.new_region(Some(rows.clone()));
        let param = |v: &ValueId| {
            let ty = target.ty(*v);
            let dims = std::iter::once(Dim::from(rows.clone())).chain(ty.dims.iter().skip(1).cloned());
            let ty = Type::new(ty.dtype, dims);
            target.add_param(id, ty)
        };
        let params = operands.iter().map(param).collect();
        Region { id, params, rows }
    }

    /// The scope of a region: what is the same for all rows is as in `outside`.
    pub(super) fn inside(&self, outside: &Scope, region: &Region) -> Scope {
        let batch = self.attach.structure.batch.dim();
        let rows = batch.as_symbol().map(|from| Substitution { from: from.clone(), to: region.rows.clone().into() });
        let shared = outside.map.iter().filter(|(v, _)| self.plan.is_shared(**v));
        let map: ValueMap = shared.map(|(v, w)| (*v, *w)).collect();
        Scope { region: region.id, map, rows, length: outside.length.clone() }
    }

    /// The values that the rest of the model needs from before a decision.
    pub(super) fn pack_all(&mut self, place: &Place, scope: &Scope, path: &str) -> Result<Vec<Packed>, InsertError> {
        place.outers.iter().map(|outer| self.pack(scope, outer, path)).collect()
    }

    fn pack(&mut self, scope: &Scope, outer: &Outer, path: &str) -> Result<Packed, InsertError> {
        let value = scope.get(self.attach.source, outer.value, "the rest")?;
        let ty = self.attach.target.ty(value).clone();
        let rows = scope.rows_dim(self.attach.structure);
        let before = Substitution::apply_all(&scope.sizes(), &outer.before);
        let (split, form) = split_rows(&ty, &before, &rows);
        let Some(split) = split else { return Ok(Packed { value, dims: ty.dims, form }) };
        let mut emit = self.attach.emit(scope.region, path);
        let mut value = emit.op("split-rows", Op::Reshape { dims: split }, &[value])?;
        if matches!(form, Form::Inside) {
            value = emit.op("rows-first", Op::Transpose { perm: vec![1, 0, 2] }, &[value])?;
        }
        Ok(Packed { value, dims: ty.dims, form })
    }

    /// The inverse of [`Builder::pack_all`] on a region's parameters.
    pub(super) fn unpack_all(
        &mut self,
        place: &Place,
        outside: &Scope,
        packed: &[Packed],
        params: &[ValueId],
        inner: &mut Scope,
        path: &str,
    ) -> Result<(), InsertError> {
        for ((outer, packed), param) in place.outers.iter().zip(packed).zip(params) {
            let dims = self.dims_inside(outer, packed, outside, inner);
            let mut emit = self.attach.emit(inner.region, path);
            let value = match packed.form {
                Form::First => *param,
                Form::Shared { .. } => emit.op("join-rows", Op::Reshape { dims }, &[*param])?,
                Form::Inside => {
                    let back = emit.op("rows-back", Op::Transpose { perm: vec![1, 0, 2] }, &[*param])?;
                    emit.op("join-rows", Op::Reshape { dims }, &[back])?
                }
            };
            inner.map.insert(outer.value, value);
        }
        Ok(())
    }

    /// The dims of a packed value in `inner`, which may have other rows and another length.
    fn dims_inside(&self, outer: &Outer, packed: &Packed, outside: &Scope, inner: &Scope) -> Vec<Dim> {
        let (from, to) = (outside.rows_dim(self.attach.structure), inner.rows_dim(self.attach.structure));
        let rows = from.as_symbol().map(|from| Substitution { from: from.clone(), to: to.clone() });
        let rows: Vec<Substitution> = rows.into_iter().collect();
        let mut dims: Vec<Dim> = packed.dims.iter().map(|d| Substitution::apply_all(&rows, d)).collect();
        if let (Some(length), Some(tokens)) = (&inner.length, &self.plan.tokens) {
            for a in tokens.trace.axes(outer.value) {
                dims[a.axis] = if a.with_batch { &to * &length.to } else { length.to.clone() };
            }
        }
        dims
    }
}

/// Where the rows are in a value with `before` elements before them, and the dims in which they have
/// one of their own, if they have none yet.
fn split_rows(ty: &Type, before: &Dim, rows: &Dim) -> (Option<Vec<Dim>>, Form) {
    let one = Dim::from(1);
    if ty.dims.first() == Some(rows) {
        return (None, Form::First);
    }
    let first = ty.dims.iter().position(|d| *d != one).filter(|_| *before == one);
    if let Some((axis, rest)) = first.and_then(|axis| Some((axis, ty.dims[axis].exact_div(rows)?))) {
        let dims = [&[rows.clone(), rest], &ty.dims[axis + 1..]].concat();
        return (Some(dims), Form::Shared { axis });
    }
    match ty.elements().exact_div(&(before * rows)) {
        Some(after) => (Some(vec![before.clone(), rows.clone(), after]), Form::Inside),
        None => (None, Form::First),
    }
}

/// The types of `values` as parameters over `rows` rows, where the lengths of two sequences meet.
pub(super) fn joined(graph: &Graph, then: ValueId, other: ValueId, sizes: [&Dim; 3], length: &Dim) -> Type {
    let [then_rows, other_rows, rows] = sizes;
    let (a, b) = (graph.ty(then), graph.ty(other));
    let dim = |(i, (x, y)): (usize, (&Dim, &Dim))| match x == y {
        true => x.clone(),
        false if i == 0 && x == then_rows && y == other_rows => rows.clone(),
        false => length.clone(),
    };
    Type::new(a.dtype, a.dims.iter().zip(&b.dims).enumerate().map(dim))
}

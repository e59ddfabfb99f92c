//! Regions over some rows: their parameters, what they take in, and the control operator over them.

use eec_ir::{Dim, Graph, Op, RegionId, Symbol, Type, ValueId};

use super::InsertError;
use super::attach::Scope;
use super::build::Builder;
use super::plan::{Outer, Place};
use crate::clone::{self, Substitution, ValueMap};

/// A value with its rows as first dim.
pub(super) struct Packed {
    pub(super) value: ValueId,
    /// The dims it had, if its rows were elsewhere.
    dims: Option<Vec<Dim>>,
}

impl Packed {
    /// Whether its rows were elsewhere.
    pub(super) fn is_moved(&self) -> bool {
        self.dims.is_some()
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
        let Some(split) = self.rows_inside(scope, outer, value) else {
            return Ok(Packed { value, dims: None });
        };
        let dims = self.attach.target.ty(value).dims.clone();
        let mut emit = self.attach.emit(scope.region, path);
        let split = emit.op("split-rows", Op::Reshape { dims: split.to_vec() }, &[value])?;
        let value = emit.op("rows-first", Op::Transpose { perm: vec![1, 0, 2] }, &[split])?;
        Ok(Packed { value, dims: Some(dims) })
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
        let rows = outside.rows_dim(self.attach.structure);
        for ((outer, packed), param) in place.outers.iter().zip(packed).zip(params) {
            let value = match (&packed.dims, rows.as_symbol()) {
                (Some(dims), Some(from)) => {
                    let here = Substitution { from: from.clone(), to: inner.rows_dim(self.attach.structure) };
                    let dims = dims.iter().map(|d| here.apply(d)).collect();
                    let mut emit = self.attach.emit(inner.region, path);
                    let back = emit.op("rows-back", Op::Transpose { perm: vec![1, 0, 2] }, &[*param])?;
                    emit.op("join-rows", Op::Reshape { dims }, &[back])?
                }
                _ => *param,
            };
            inner.map.insert(outer.value, value);
        }
        Ok(())
    }

    /// The sizes before the rows, the rows, and after them; `None` if the first dim is the rows.
    fn rows_inside(&self, scope: &Scope, outer: &Outer, value: ValueId) -> Option<[Dim; 3]> {
        let ty = self.attach.target.ty(value);
        let rows = scope.rows_dim(self.attach.structure);
        if ty.dims.first() == Some(&rows) {
            return None;
        }
        let before = Substitution::apply_all(&scope.sizes(), &outer.before);
        let after = ty.elements().exact_div(&(&before * &rows))?;
        Some([before, rows, after])
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

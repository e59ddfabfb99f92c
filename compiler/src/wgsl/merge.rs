//! Loops with fewer axes: neighbours that every view walks as one become one, and axes of size 1 go. Less is divided
//! per element, and more loops have equal text.

use eec_ir::Dim;
use eec_ir::program::{Expr, Loop, Scalar};

/// The loop with as few axes as it can have. The order of elements stays, in `dims` and in `inner`.
pub(super) fn merged(form: &Loop) -> Loop {
    let mut form = form.clone();
    drop_ones(&mut form);
    let mut axis = form.dims.len() + form.inner.len();
    while axis > 1 {
        axis -= 1;
        if can_merge(&form, axis - 1) {
            merge(&mut form, axis - 1);
        }
    }
    form
}

/// The strides of every view that has this axis.
fn strides(form: &mut Loop) -> impl Iterator<Item = &mut Vec<Dim>> {
    let inputs = form.inputs.iter_mut().map(|v| &mut v.strides);
    inputs.chain(form.stores.iter_mut().map(|s| &mut s.view.strides))
}

fn dim(form: &Loop, axis: usize) -> &Dim {
    form.dims.get(axis).unwrap_or_else(|| &form.inner[axis - form.dims.len()])
}

fn drop_ones(form: &mut Loop) {
    for axis in (0..form.dims.len() + form.inner.len()).rev() {
        if dim(form, axis).as_const() != Some(1) {
            continue;
        }
        for expr in &mut form.exprs {
            if *expr == Expr::Index(axis as u32) {
                *expr = Expr::Const(Scalar::I64(0));
            }
        }
        remove(form, axis);
    }
}

/// Takes an axis out of the index space and all that is numbered by it.
fn remove(form: &mut Loop, axis: usize) {
    for strides in strides(form).filter(|s| axis < s.len()) {
        strides.remove(axis);
    }
    match axis.checked_sub(form.dims.len()) {
        Some(inner) => drop(form.inner.remove(inner)),
        None => drop(form.dims.remove(axis)),
    }
    for expr in &mut form.exprs {
        match expr {
            Expr::Index(at) if *at as usize > axis => *at -= 1,
            _ => {}
        }
    }
}

/// Whether `axis` and the one after it can be walked as one.
fn can_merge(form: &Loop, axis: usize) -> bool {
    let outer = form.dims.len();
    if axis + 1 == outer {
        return false;
    }
    let named = |expr: &Expr| matches!(expr, Expr::Index(at) if [axis, axis + 1].contains(&(*at as usize)));
    if form.exprs.iter().any(named) {
        return false;
    }
    let size = dim(form, axis + 1);
    let inputs = form.inputs.iter().map(|v| &v.strides);
    let mut all = inputs.chain(form.stores.iter().map(|s| &s.view.strides));
    all.all(|s| s.get(axis + 1).is_none_or(|inner| s[axis] == inner * size))
}

fn merge(form: &mut Loop, axis: usize) {
    let product = dim(form, axis) * dim(form, axis + 1);
    match (axis + 1).checked_sub(form.dims.len()) {
        Some(inner) => form.inner[inner] = product,
        None => form.dims[axis + 1] = product,
    }
    remove(form, axis);
}

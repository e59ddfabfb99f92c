//! Loops: maps with a lane per element, and reductions with a lane or a whole workgroup per row.

use eec_ir::gpu::Fault;
use eec_ir::program::{BinaryFn, Expr, ExprFacts, ExprId, Indexed, Loop, Per, Reduction, ReductionFn, Store};
use eec_ir::{DType, Dim};

use super::dims::groups;
use super::exprs::name;
use super::merge::merged;
use super::place::Place;
use super::text::{Reason, Writer};
use super::{Body, reduce};

/// Lanes of a workgroup that gives each element or row one of them.
const LANES: u32 = 64;

/// Rows of at most so many elements are left to one lane.
const SHORT: i64 = 32;

/// Rows of at least so many elements get the widest workgroups.
const LONG: i64 = 1024;

/// Writes a loop.
pub(super) fn write(w: &mut Writer, form: &Loop) -> Result<Body, Reason> {
    let form = &merged(form);
    let program = w.shared.program;
    let dtype = |input: usize| Some(program.buffer(form.inputs.get(input)?.buffer).dtype);
    let facts = form.facts(&dtype)?;
    let mut places = Vec::new();
    for view in &form.inputs {
        places.push(w.place(view.buffer)?);
    }
    let mut targets = Vec::new();
    for store in &form.stores {
        targets.push(w.place(store.view.buffer)?);
    }
    let done = vec![false; form.exprs.len()];
    let writer = LoopWriter { w, form, facts, places, targets, done, outer: Vec::new(), inner: Vec::new() };
    let length = Dim::product(&form.inner);
    if form.reductions.is_empty() {
        writer.map()
    } else if length.as_const().is_some_and(|n| n <= SHORT) {
        writer.rows_by_lanes()
    } else {
        let lanes = match length.as_const() {
            Some(n) if n >= LONG => 256,
            Some(n) if n < 256 => 64,
            _ => 128,
        };
        writer.rows_by_groups(lanes)
    }
}

struct LoopWriter<'w, 'p, 'f> {
    w: &'w mut Writer<'p>,
    form: &'f Loop,
    facts: Vec<ExprFacts>,
    places: Vec<Place>,
    targets: Vec<Place>,
    /// Which expressions have their variable here.
    done: Vec<bool>,
    /// The names of the current indices.
    outer: Vec<String>,
    inner: Vec<String>,
}

/// Who walks a row.
#[derive(Clone, Copy)]
enum By {
    Lane,
    Group(u32),
}

impl LoopWriter<'_, '_, '_> {
    fn map(mut self) -> Result<Body, Reason> {
        let total = Dim::product(&self.form.dims);
        self.flat("i", &total, LANES)?;
        self.outer = self.w.split("i", &self.form.dims, "i")?;
        for at in 0..self.form.stores.len() {
            self.store(at)?;
        }
        self.w.line("}");
        Ok(Body { lanes: LANES, groups: groups(&total, LANES.into())? })
    }

    /// Begins a loop over `0..total`, a lane for each.
    fn flat(&mut self, index: &str, total: &Dim, lanes: u32) -> Result<(), Reason> {
        let total = self.w.dim(total)?;
        self.w.line(format!("let total = {total};"));
        self.w.line(format!(
            "for (var {index} = group * {lanes} + lane; {index} < total; {index} += groups * {lanes}) {{"
        ));
        Ok(())
    }

    fn rows_by_lanes(mut self) -> Result<Body, Reason> {
        let rows = Dim::product(&self.form.dims);
        self.flat("row", &rows, LANES)?;
        self.row(By::Lane)?;
        self.w.line("}");
        Ok(Body { lanes: LANES, groups: groups(&rows, LANES.into())? })
    }

    fn rows_by_groups(mut self, lanes: u32) -> Result<Body, Reason> {
        let rows = Dim::product(&self.form.dims);
        let total = self.w.dim(&rows)?;
        self.w.line(format!("let total = {total};"));
        self.w.line("for (var row = group; row < total; row += groups) {");
        self.row(By::Group(lanes))?;
        self.w.line("}");
        Ok(Body { lanes, groups: groups(&rows, 1)? })
    }

    /// One row: what does not change inside it, the reductions one after the other, the stores.
    fn row(&mut self, by: By) -> Result<(), Reason> {
        self.outer = self.w.split("row", &self.form.dims, "i")?;
        let length = self.w.dim(&Dim::product(&self.form.inner))?;
        self.w.line(format!("let length = {length};"));
        for at in 0..self.form.reductions.len() {
            self.invariants(at)?;
            self.reduction(at, by)?;
        }
        self.invariants(self.form.reductions.len())?;
        let (per_row, per_element): (Vec<usize>, Vec<usize>) =
            (0..self.form.stores.len()).partition(|at| self.form.stores[*at].per == Per::Row);
        if !per_element.is_empty() {
            self.walk(by, |writer| per_element.iter().try_for_each(|at| writer.store(*at)))?;
        }
        if !per_row.is_empty() {
            let alone = matches!(by, By::Group(_));
            self.w.line(if alone { "if lane == 0 {" } else { "" });
            per_row.iter().try_for_each(|at| self.store(*at))?;
            self.w.line(if alone { "}" } else { "" });
        }
        Ok(())
    }

    /// Computes what all of a row shares and the reductions before `at` suffice for, if later stages need it.
    fn invariants(&mut self, at: usize) -> Result<(), Reason> {
        let wanted = self.form.reductions.get(at..).unwrap_or_default().iter().map(|r| r.value);
        let wanted: Vec<ExprId> = wanted.chain(self.form.stores.iter().map(|s| s.value)).collect();
        for id in self.closure(&wanted) {
            let fact = self.facts[id.0 as usize];
            if !fact.inner && fact.reductions as usize <= at {
                self.expr(id)?;
            }
        }
        Ok(())
    }

    /// A loop over the row's elements; what it computes is known only inside.
    fn walk(&mut self, by: By, body: impl FnOnce(&mut Self) -> Result<(), Reason>) -> Result<(), Reason> {
        let before = self.done.clone();
        self.w.line(match by {
            By::Lane => "for (var j = 0; j < length; j += 1) {".to_string(),
            By::Group(lanes) => format!("for (var j = lane; j < length; j += {lanes}) {{"),
        });
        self.inner = self.w.split("j", &self.form.inner, "j")?;
        body(self)?;
        self.w.line("}");
        self.done = before;
        Ok(())
    }

    fn reduction(&mut self, at: usize, by: By) -> Result<(), Reason> {
        let Reduction { function, value } = self.form.reductions[at];
        let dtype = self.facts[value.0 as usize].dtype;
        let partial = format!("p{at}");
        let start = reduce::start(self.w, function, dtype)?;
        self.w.line(format!("var {partial} = {start};"));
        if function == ReductionFn::ArgMax {
            self.w.line(format!("var {partial}_at = {};", i32::MAX));
        }
        self.walk(by, |writer| {
            writer.expr(value)?;
            let line = reduce::step(writer.w, function, dtype, &partial, &name(value))?;
            writer.w.line(line);
            Ok(())
        })?;
        let result = match by {
            By::Lane => reduce::alone(function, &partial),
            By::Group(lanes) => reduce::together(self.w, function, dtype, &partial, lanes)?,
        };
        self.w.line(format!("let r{at} = {result};"));
        Ok(())
    }

    fn store(&mut self, at: usize) -> Result<(), Reason> {
        let Store { per, view, value } = &self.form.stores[at];
        self.expr(*value)?;
        let indices = self.indices(*per);
        let position = self.w.linear(&view.offset, view.strides.iter().zip(indices.iter().map(String::as_str)))?;
        let line = self.targets[at].store(&position, &name(*value));
        self.w.line(line);
        Ok(())
    }

    fn indices(&self, per: Per) -> Vec<String> {
        let inner = if per == Per::Row { &[][..] } else { &self.inner };
        self.outer.iter().chain(inner).cloned().collect()
    }

    /// These expressions and all that they are made of, operands first.
    fn closure(&self, wanted: &[ExprId]) -> Vec<ExprId> {
        let mut needed = vec![false; self.form.exprs.len()];
        wanted.iter().for_each(|id| needed[id.0 as usize] = true);
        for at in (0..needed.len()).rev() {
            if needed[at] {
                operands(&self.form.exprs[at]).into_iter().for_each(|id| needed[id.0 as usize] = true);
            }
        }
        (0..needed.len()).filter(|at| needed[*at]).map(|at| ExprId(at as u32)).collect()
    }

    /// Gives an expression and what it is made of their variables.
    fn expr(&mut self, id: ExprId) -> Result<(), Reason> {
        for part in self.closure(&[id]) {
            if !std::mem::replace(&mut self.done[part.0 as usize], true) {
                let value = self.value(part)?;
                self.w.line(format!("let {} = {value};", name(part)));
            }
        }
        Ok(())
    }

    fn dtype(&self, id: ExprId) -> DType {
        self.facts[id.0 as usize].dtype
    }

    fn value(&mut self, id: ExprId) -> Result<String, Reason> {
        let form = self.form;
        match &form.exprs[id.0 as usize] {
            Expr::Load(input) => self.load(*input, None),
            Expr::LoadAt { input, at } => self.gather(id, *input, at),
            Expr::Index(axis) => Ok(self.indices(Per::Element).swap_remove(*axis as usize)),
            Expr::Size(dim) => self.w.dim(dim),
            Expr::Const(scalar) => self.w.scalar(*scalar),
            Expr::Unary(function, a) => Ok(self.w.unary(*function, self.dtype(*a), &name(*a))),
            Expr::Binary(BinaryFn::Div, a, b) if self.dtype(*a) != DType::F32 => {
                let b = name(*b);
                let fail = self.w.fail(Fault::Division);
                self.w.line(format!("if {b} == 0 {{ {fail} }}"));
                Ok(format!("{} / select({b}, 1, {b} == 0)", name(*a)))
            }
            Expr::Binary(function, a, b) => Ok(self.w.binary(*function, self.dtype(*a), &name(*a), &name(*b))),
            Expr::Select(c, a, b) => Ok(format!("select({}, {}, {})", name(*b), name(*a), name(*c))),
            Expr::Cast(to, a) => self.w.cast(self.dtype(*a), *to, &name(*a)),
            Expr::Reduced(at) => Ok(format!("r{at}")),
        }
    }

    fn load(&mut self, input: u32, more: Option<String>) -> Result<String, Reason> {
        let view = &self.form.inputs[input as usize];
        // What does not move inside a row may be read outside of it, where there are no inner indices.
        let mut indices = self.indices(Per::Element);
        indices.resize(view.strides.len(), "0".into());
        let mut position = self.w.linear(&view.offset, view.strides.iter().zip(indices.iter().map(String::as_str)))?;
        if let Some(more) = more {
            position = format!("{position} + {more}");
        }
        Ok(self.places[input as usize].load(&position))
    }

    /// A load at computed coordinates, each checked and, if it is out of range, reported and replaced by 0.
    fn gather(&mut self, id: ExprId, input: u32, at: &[Indexed]) -> Result<String, Reason> {
        let mut parts = Vec::new();
        for (i, Indexed { index, extent, stride }) in at.iter().enumerate() {
            let (index, extent, stride) = (name(*index), self.w.dim(extent)?, self.w.dim(stride)?);
            let (wrapped, inside) = (format!("{}_at{i}", name(id)), format!("{}_in{i}", name(id)));
            let fail = self.w.fail(Fault::Index);
            self.w.line(format!("let {wrapped} = {index} + select(0, {extent}, {index} < 0);"));
            self.w.line(format!("let {inside} = {wrapped} >= 0 && {wrapped} < {extent};"));
            self.w.line(format!("if !{inside} {{ {fail} }}"));
            parts.push(format!("select(0, {wrapped}, {inside}) * {stride}"));
        }
        self.load(input, Some(if parts.is_empty() { "0".into() } else { parts.join(" + ") }))
    }
}

/// What an expression is made of.
pub(super) fn operands(expr: &Expr) -> Vec<ExprId> {
    match expr {
        Expr::Load(_) | Expr::Index(_) | Expr::Size(_) | Expr::Const(_) | Expr::Reduced(_) => Vec::new(),
        Expr::LoadAt { at, .. } => at.iter().map(|c| c.index).collect(),
        Expr::Unary(_, a) | Expr::Cast(_, a) => vec![*a],
        Expr::Binary(_, a, b) => vec![*a, *b],
        Expr::Select(c, a, b) => vec![*c, *a, *b],
    }
}

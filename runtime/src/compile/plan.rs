//! How a loop is walked: which axes remain after merging, which one runs in vectors, and how every
//! expression depends on them.

use eec_ir::DType;
use eec_ir::dim::{Dim, Symbol};
use eec_ir::program::{BinaryFn, Expr, Loop, Per, ReductionFn, UnaryFn};

use crate::kernels::math::Function;

/// A loop with what code generation needs of its buffers: the same for equal loops over other ones.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub(super) struct LoopCode {
    /// The loop; its buffer ids are all zero and its symbols numbered.
    pub(super) body: Loop,
    /// Element types of the inputs.
    pub(super) inputs: Vec<DType>,
    /// Element types of the stores.
    pub(super) stores: Vec<DType>,
}

/// One axis that is left.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// Its size.
    pub(super) extent: Dim,
    /// Whether it is reduced.
    pub(super) inner: bool,
    /// The axis of the loop whose index it is, unless it stands for several.
    source: Option<usize>,
}

/// How often an expression is computed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Level {
    /// Once per index of the outer axes that do not run in vectors.
    Row,
    /// Once per outer index.
    Lane,
    /// Once per inner index.
    Inner,
}

/// An expression's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Element type.
    pub(super) dtype: DType,
    /// How often it is computed.
    pub(super) level: Level,
    /// Whether it differs along the vector axis.
    pub(super) varies: bool,
}

/// The walk.
#[derive(Debug)]
pub(super) struct Plan {
    /// Outer axes, then inner ones. The vector axis is the last outer or the last inner axis.
    pub(super) axes: Vec<Axis>,
    /// The number of outer axes.
    pub(super) outer: usize,
    /// Position of the vector axis.
    pub(super) vector: usize,
    /// Whether the vector axis runs in steps of four.
    pub(super) wide: bool,
    /// Strides of the inputs over `axes`.
    pub(super) inputs: Vec<Vec<Dim>>,
    /// Strides of the stores over `axes`; zero over inner axes for stores per row.
    pub(super) stores: Vec<Vec<Dim>>,
    /// Places of the expressions.
    pub(super) places: Vec<Place>,
    /// For every axis of the loop the axis that holds its index; `None` if the index is always 0.
    pub(super) index: Vec<Option<usize>>,
    /// Reductions that run in one pass, in order.
    pub(super) stages: Vec<Vec<usize>>,
}

fn is(dim: &Dim, value: i64) -> bool {
    dim.as_const() == Some(value)
}

/// The axes with the strides of all views, while they are being merged.
struct Draft {
    axes: Vec<Axis>,
    /// Per axis, the strides of the inputs and then of the stores.
    strides: Vec<Vec<Dim>>,
}

impl Draft {
    fn new(body: &Loop) -> Draft {
        let outer = body.dims.len();
        let extents = body.dims.iter().chain(&body.inner);
        let axes = extents.enumerate().map(|(i, d)| Axis { extent: d.clone(), inner: i >= outer, source: Some(i) });
        let axes: Vec<Axis> = axes.collect();
        let stride = |strides: &[Dim], axis: usize| strides.get(axis).cloned().unwrap_or_default();
        let strides = (0..axes.len()).map(|axis| {
            let inputs = body.inputs.iter().map(|v| stride(&v.strides, axis));
            inputs.chain(body.stores.iter().map(|s| stride(&s.view.strides, axis))).collect()
        });
        Draft { strides: strides.collect(), axes }
    }

    fn remove_units(&mut self) {
        for i in (0..self.axes.len()).rev() {
            if is(&self.axes[i].extent, 1) {
                self.axes.remove(i);
                self.strides.remove(i);
            }
        }
    }

    /// Merges neighbours that every view walks as one, unless an index of theirs is `pinned`.
    fn merge(&mut self, pinned: &[bool]) {
        let free = |a: &Axis| a.source.is_none_or(|s| !pinned[s]);
        for i in (1..self.axes.len()).rev() {
            let (a, b) = (&self.axes[i - 1], &self.axes[i]);
            let same_kind = a.inner == b.inner && free(a) && free(b);
            let flat = |(outer, inner): (&Dim, &Dim)| *outer == inner * &b.extent;
            if same_kind && self.strides[i - 1].iter().zip(&self.strides[i]).all(flat) {
                let extent = &a.extent * &b.extent;
                self.axes[i - 1] = Axis { extent, inner: a.inner, source: None };
                self.strides[i - 1] = self.strides.remove(i);
                self.axes.remove(i);
            }
        }
    }

    fn outer(&self) -> usize {
        self.axes.iter().filter(|a| !a.inner).count()
    }

    /// How many views walk this axis one element at a time; stores count for more.
    fn unit_strides(&self, axis: usize, inputs: usize) -> usize {
        let weight = |view: usize| if view < inputs { 1 } else { 3 };
        self.strides[axis].iter().enumerate().filter(|(_, s)| is(s, 1)).map(|(view, _)| weight(view)).sum()
    }

    fn move_to(&mut self, from: usize, to: usize) {
        let (axis, strides) = (self.axes.remove(from), self.strides.remove(from));
        self.axes.insert(to, axis);
        self.strides.insert(to, strides);
    }
}

impl Plan {
    /// The walk of a verified loop.
    pub(super) fn new(code: &LoopCode) -> Result<Plan, String> {
        let body = &code.body;
        let mut draft = Draft::new(body);
        let mut pinned = vec![false; draft.axes.len()];
        for expr in &body.exprs {
            if let Expr::Index(axis) = expr {
                pinned[*axis as usize] = true;
            }
        }
        draft.remove_units();
        draft.merge(&pinned);
        if draft.outer() == 0 {
            draft.axes.insert(0, Axis { extent: 1.into(), inner: false, source: None });
            draft.strides.insert(0, vec![Dim::default(); body.inputs.len() + body.stores.len()]);
        }
        if !body.reductions.is_empty() && draft.outer() == draft.axes.len() {
            draft.axes.push(Axis { extent: 1.into(), inner: true, source: None });
            draft.strides.push(vec![Dim::default(); body.inputs.len() + body.stores.len()]);
        }
        let vector = choose_vector_axis(&mut draft, body);
        let outer = draft.outer();
        let index = (0..pinned.len()).map(|axis| draft.axes.iter().position(|a| a.source == Some(axis))).collect();
        let column = |view: usize| draft.strides.iter().map(|s| s[view].clone()).collect();
        let inputs = (0..body.inputs.len()).map(column).collect();
        let stores = (0..body.stores.len()).map(|s| column(body.inputs.len() + s)).collect();
        let mut plan = Plan {
            outer,
            vector,
            wide: false,
            inputs,
            stores,
            places: Vec::new(),
            index,
            stages: Vec::new(),
            axes: draft.axes,
        };
        plan.place(code)?;
        plan.wide = plan.worth_vectors(code);
        plan.stages = stages(code)?;
        Ok(plan)
    }

    /// Whether the vector axis is a reduced one.
    pub(super) fn horizontal(&self) -> bool {
        self.vector >= self.outer
    }

    /// The outer axes that the row loop walks.
    pub(super) fn row_axes(&self) -> std::ops::Range<usize> {
        0..if self.horizontal() { self.outer } else { self.outer - 1 }
    }

    /// The level at which an axis moves.
    pub(super) fn axis_level(&self, axis: usize) -> Level {
        if axis >= self.outer {
            Level::Inner
        } else if axis == self.vector {
            Level::Lane
        } else {
            Level::Row
        }
    }

    fn place(&mut self, code: &LoopCode) -> Result<(), String> {
        let facts = code.body.facts(&|i| code.inputs.get(i).copied())?;
        for (expr, fact) in code.body.exprs.iter().zip(&facts) {
            let mut place = Place { dtype: fact.dtype, level: Level::Row, varies: false };
            let axis = |place: &mut Place, axis: usize| {
                place.level = place.level.max(self.axis_level(axis));
                place.varies |= axis == self.vector;
            };
            let moving = |input: &u32| {
                (0..self.axes.len()).filter(|a| !is(&self.inputs[*input as usize][*a], 0)).collect::<Vec<_>>()
            };
            let mut operands = Vec::new();
            match expr {
                Expr::Load(input) => moving(input).into_iter().for_each(|a| axis(&mut place, a)),
                Expr::LoadAt { input, at } => {
                    moving(input).into_iter().for_each(|a| axis(&mut place, a));
                    operands.extend(at.iter().map(|c| c.index));
                }
                Expr::Index(source) => self.index[*source as usize].into_iter().for_each(|a| axis(&mut place, a)),
                Expr::Size(_) | Expr::Const(_) => {}
                Expr::Unary(_, a) | Expr::Cast(_, a) => operands.push(*a),
                Expr::Binary(_, a, b) => operands.extend([*a, *b]),
                Expr::Select(c, a, b) => operands.extend([*c, *a, *b]),
                Expr::Reduced(_) if self.horizontal() => {}
                Expr::Reduced(_) => axis(&mut place, self.vector),
            }
            for operand in operands {
                let operand: Place = self.places[operand.0 as usize];
                place.level = place.level.max(operand.level);
                place.varies |= operand.varies;
            }
            self.places.push(place);
        }
        Ok(())
    }

    /// Vectors pay where floats are computed, and cannot hold an argmax or sums of integers.
    fn worth_vectors(&self, code: &LoopCode) -> bool {
        let body = &code.body;
        let floats = body
            .reductions
            .iter()
            .all(|r| r.function != ReductionFn::ArgMax && self.places[r.value.0 as usize].dtype == DType::F32);
        let varying = self.places.iter().any(|p| p.varies && p.dtype == DType::F32);
        let short = self.axes[self.vector].extent.as_const().is_some_and(|e| e < 4);
        floats && varying && !short
    }

    /// Whether four of everything that differs along the vector axis fit the registers together: little is
    /// computed in the loop itself, as opposed to functions of a strip.
    pub(super) fn is_light(&self, code: &LoopCode) -> bool {
        let computes = |expr: &Expr| match expr {
            Expr::Unary(f, _) => precompiled(*f).is_none(),
            Expr::Binary(..) | Expr::Select(..) | Expr::Cast(..) | Expr::LoadAt { .. } | Expr::Index(_) => true,
            Expr::Load(_) | Expr::Size(_) | Expr::Const(_) | Expr::Reduced(_) => false,
        };
        let heavy =
            |expr: &Expr| matches!(expr, Expr::Unary(UnaryFn::Sin | UnaryFn::Cos, _) | Expr::Binary(BinaryFn::Pow, ..));
        let varying = || self.places.iter().zip(&code.body.exprs).filter(|(p, _)| p.varies).map(|(_, e)| e);
        !varying().any(heavy) && varying().filter(|e| computes(e)).count() < 12
    }

    /// Roughly the operations per index of everything, for deciding what is worth a thread.
    pub(super) fn cost(&self, code: &LoopCode) -> i64 {
        let weight = |expr: &Expr| match expr {
            Expr::Unary(f, _) => match f {
                UnaryFn::Exp | UnaryFn::Log | UnaryFn::Tanh | UnaryFn::Erf | UnaryFn::Sigmoid => 12,
                UnaryFn::Sin | UnaryFn::Cos => 20,
                UnaryFn::Neg | UnaryFn::Abs | UnaryFn::Sqrt | UnaryFn::Reciprocal | UnaryFn::Not | UnaryFn::IsNaN => 1,
                UnaryFn::Floor | UnaryFn::Ceil | UnaryFn::Round => 1,
            },
            Expr::Binary(BinaryFn::Pow, ..) => 60,
            Expr::Binary(..) | Expr::Select(..) | Expr::Cast(..) => 1,
            Expr::Load(_)
            | Expr::LoadAt { .. }
            | Expr::Index(_)
            | Expr::Size(_)
            | Expr::Const(_)
            | Expr::Reduced(_) => 1,
        };
        let varying = self.places.iter().zip(&code.body.exprs).filter(|(p, _)| p.varies);
        varying.map(|(_, e)| weight(e)).sum::<i64>() + 1
    }
}

/// The precompiled function that computes this one for many values at once, if there is one; see
/// `strips`.
pub(super) fn precompiled(function: UnaryFn) -> Option<Function> {
    match function {
        UnaryFn::Exp => Some(Function::Exp),
        UnaryFn::Log => Some(Function::Log),
        UnaryFn::Tanh => Some(Function::Tanh),
        UnaryFn::Erf => Some(Function::Erf),
        UnaryFn::Sigmoid => Some(Function::Sigmoid),
        UnaryFn::Sin | UnaryFn::Cos | UnaryFn::Neg | UnaryFn::Abs | UnaryFn::Sqrt => None,
        UnaryFn::Reciprocal | UnaryFn::Not | UnaryFn::IsNaN => None,
        UnaryFn::Floor | UnaryFn::Ceil | UnaryFn::Round => None,
    }
}

/// Picks the vector axis and moves it to the end of its kind; returns its position.
fn choose_vector_axis(draft: &mut Draft, body: &Loop) -> usize {
    let (outer, inputs) = (draft.outer(), body.inputs.len());
    let best = (0..outer).max_by_key(|a| (draft.unit_strides(*a, inputs), *a)).unwrap_or(0);
    if !body.reductions.is_empty() {
        let last = draft.axes.len() - 1;
        let per_element = body.stores.iter().any(|s| s.per == Per::Element);
        let reads = |axis: usize| draft.strides[axis][..inputs].iter().filter(|s| is(s, 1)).count();
        let argmax = body.reductions.iter().any(|r| r.function == ReductionFn::ArgMax);
        if argmax || per_element || reads(last) > 0 || reads(best) == 0 {
            return last;
        }
    }
    draft.move_to(best, outer - 1);
    outer - 1
}

/// Groups neighbouring reductions that do not need each other.
fn stages(code: &LoopCode) -> Result<Vec<Vec<usize>>, String> {
    let facts = code.body.facts(&|i| code.inputs.get(i).copied())?;
    let mut stages: Vec<Vec<usize>> = Vec::new();
    for (i, reduction) in code.body.reductions.iter().enumerate() {
        let needs = facts[reduction.value.0 as usize].reductions as usize;
        match stages.last_mut() {
            Some(stage) if stage.first().is_some_and(|first| needs <= *first) => stage.push(i),
            _ => stages.push(vec![i]),
        }
    }
    Ok(stages)
}

/// The symbols that a loop's dims mention, in the order of their numbers.
pub(super) fn symbols(body: &Loop) -> Vec<Symbol> {
    let mut all = std::collections::BTreeSet::new();
    for_each_dim(body, &mut |dim| dim.collect_symbols(&mut all));
    all.into_iter().collect()
}

/// Calls `f` with every dim of a loop.
pub(super) fn for_each_dim(body: &Loop, f: &mut dyn FnMut(&Dim)) {
    body.dims.iter().chain(&body.inner).for_each(&mut *f);
    for view in body.inputs.iter().chain(body.stores.iter().map(|s| &s.view)) {
        f(&view.offset);
        view.strides.iter().for_each(&mut *f);
    }
    for expr in &body.exprs {
        match expr {
            Expr::Size(dim) => f(dim),
            Expr::LoadAt { at, .. } => at.iter().for_each(|c| [&c.extent, &c.stride].into_iter().for_each(&mut *f)),
            Expr::Load(_) | Expr::Index(_) | Expr::Const(_) | Expr::Unary(..) | Expr::Binary(..) => {}
            Expr::Select(..) | Expr::Cast(..) | Expr::Reduced(_) => {}
        }
    }
}

/// The loop with every dim replaced by what `f` gives for it.
pub(super) fn map_dims(body: &mut Loop, f: &dyn Fn(&Dim) -> Dim) {
    let replace = |dim: &mut Dim| *dim = f(dim);
    body.dims.iter_mut().chain(&mut body.inner).for_each(replace);
    for view in body.inputs.iter_mut().chain(body.stores.iter_mut().map(|s| &mut s.view)) {
        view.strides.iter_mut().chain([&mut view.offset]).for_each(replace);
    }
    for expr in &mut body.exprs {
        match expr {
            Expr::Size(dim) => replace(dim),
            Expr::LoadAt { at, .. } => {
                at.iter_mut().for_each(|c| [&mut c.extent, &mut c.stride].into_iter().for_each(replace))
            }
            Expr::Load(_) | Expr::Index(_) | Expr::Const(_) | Expr::Unary(..) | Expr::Binary(..) => {}
            Expr::Select(..) | Expr::Cast(..) | Expr::Reduced(_) => {}
        }
    }
}

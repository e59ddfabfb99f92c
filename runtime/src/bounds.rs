//! The checks that make running a program safe whatever file it came from: for the bound sizes, every
//! access of every kernel stays inside its buffer, and whatever one buffer may stand for is as large.
//!
//! Sizes that depend on the rows of a block, the length of a join or on data are ranges; every check holds for the whole range.

use std::collections::HashMap;

use eec_ir::BufferId;
use eec_ir::dim::Dim;
use eec_ir::program::{
    Attention, BlockId, Conv, Dense, Epilogue, Expr, Form, Host, Join, Kernel, Loop, MatMul, Per, Pool, Program,
    RepeatStep, RouteStep, Scan, SizeStep, Step, View,
};

use crate::extent::{Extent, Extents, zero_divisor};

/// What does not fit, and the kernel where it was found.
#[derive(Debug)]
pub(crate) struct BoundsError {
    pub(crate) kernel: Option<String>,
    pub(crate) message: String,
}

type Checked<T = ()> = Result<T, String>;

/// What need not be checked twice, since a model repeats its blocks; it does not depend on sizes.
pub(crate) struct Repeats {
    /// Per buffer the first one of the same length.
    lengths: Vec<usize>,
    /// Per kernel the first one of the same form and work over buffers of the same lengths.
    kernels: Vec<usize>,
}

impl Repeats {
    /// The repetitions in a program.
    pub(crate) fn of(program: &Program) -> Repeats {
        let lengths = first_equal(program.buffers.iter().map(|b| &b.len));
        let key = |(i, kernel): (usize, &Kernel)| {
            let mut form = kernel.form.clone();
            for buffer in form.buffers_mut() {
                *buffer = BufferId::new(lengths[buffer.index()]);
            }
            // What cannot be written is equal to nothing.
            postcard::to_stdvec(&(form, &kernel.macs)).map_err(|_| i)
        };
        Repeats { kernels: first_equal(program.kernels.iter().enumerate().map(key)), lengths }
    }
}

/// Per item the position of the first equal one.
fn first_equal<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> Vec<usize> {
    let mut known = HashMap::new();
    items.enumerate().map(|(i, item)| *known.entry(item).or_insert(i)).collect()
}

/// The ranges of all symbols where `bound` are those of the inputs.
pub(crate) fn ranges(program: &Program, bound: &Extents) -> Extents {
    let mut all = bound.clone();
    bind_rows(program, BlockId(0), &mut all);
    all
}

/// Checks `program` for symbols of these ranges, and returns the elements of every buffer.
pub(crate) fn check(program: &Program, repeats: &Repeats, extents: &Extents) -> Result<Vec<i64>, BoundsError> {
    let mut capacity: Vec<i64> = Vec::with_capacity(program.buffers.len());
    for (i, (buffer, first)) in program.buffers.iter().zip(&repeats.lengths).enumerate() {
        if let Some(known) = capacity.get(*first) {
            capacity.push(*known);
            continue;
        }
        let len = size(program, &buffer.len, extents).filter(|e| e.hi <= MAX_ELEMENTS);
        let len = len.ok_or_else(|| {
            let (id, why) = (BufferId::new(i), no_size(&buffer.len, extents));
            BoundsError { kernel: writer(program, id), message: format!("buffer {id} has no usable size: {why}") }
        })?;
        capacity.push(len.hi);
    }
    let checked = vec![false; program.kernels.len()];
    Checker { program, extents, capacity: &capacity, forms: &repeats.kernels, checked }.block(BlockId(0))?;
    Ok(capacity)
}

/// How often sizes of data are set to what they are at most, to see that a size is not negative.
const MAX_LATE: usize = 64;

/// The range of a size: what its terms say it may be, if that or what its sizes of data are at most says that it is
/// not negative. `n - late0 - late1` is not, where `late1` is checked to be at most `n - late0`.
pub(crate) fn size(program: &Program, dim: &Dim, extents: &Extents) -> Option<Extent> {
    let range = Extent::of(dim, extents)?;
    if range.lo >= 0 {
        return Some(range);
    }
    let sizes: Vec<(Dim, &Dim)> = late_sizes(program).map(|s| (s.symbol.clone().into(), &s.most)).collect();
    let is_size = dim.is_at_least(0) || never_negative(dim, &sizes, extents, &mut { MAX_LATE });
    is_size.then(|| Extent { lo: 0, hi: range.hi.max(0) })
}

/// The steps that give sizes what data decides.
pub(crate) fn late_sizes(program: &Program) -> impl Iterator<Item = &SizeStep> {
    program.blocks.iter().flat_map(|block| &block.steps).filter_map(|step| match step {
        Step::Size(step) => Some(step),
        Step::Run(_) | Step::If(_) | Step::Route(_) | Step::Repeat(_) => None,
    })
}

/// Whether `dim`, whose terms may be negative, is not where `sizes` are what they are at most.
fn never_negative(dim: &Dim, sizes: &[(Dim, &Dim)], extents: &Extents, tries: &mut usize) -> bool {
    sizes.iter().any(|(symbol, most)| {
        let taken = dim.terms().iter().filter(|t| t.coef < 0).find_map(|t| {
            let term = Dim::from(vec![t.clone()]);
            Some((term.exact_div(symbol)?, term))
        });
        let Some((times, term)) = taken else { return false };
        *tries = tries.saturating_sub(1);
        let least = &(dim - &term) + &(&times * most);
        let shrinks = || Extent::of(&times, extents).is_some_and(|e| e.hi <= 0);
        let holds = || Extent::of(&least, extents).is_some_and(|e| e.lo >= 0);
        *tries > 0 && shrinks() && (holds() || never_negative(&least, sizes, extents, tries))
    })
}

/// Why a dim that should be a size has no range, or one below zero.
pub(crate) fn no_size(dim: &Dim, extents: &Extents) -> String {
    let why = match (Extent::of(dim, extents), zero_divisor(dim, extents)) {
        (Some(range), _) if range.lo == range.hi => format!(": it is {}", range.lo),
        (Some(range), _) => format!(": it may be {}", range.lo),
        (None, Some(divisor)) => format!(": it divides by `{divisor}`, which may be 0"),
        (None, None) => String::new(),
    };
    format!("`{dim}` is not a usable size here{why}")
}

/// More elements than this are refused, whatever the memory.
const MAX_ELEMENTS: i64 = 1 << 44;

/// More keys of an attention are refused: threads keep the scores of some queries.
const MAX_KEYS: i64 = 1 << 22;

/// `extents` where data makes its sizes as large as they can be.
pub(crate) fn largest(program: &Program, extents: &Extents) -> Extents {
    let mut all = extents.clone();
    for symbol in late_sizes(program).map(|step| &step.symbol) {
        all.entry(symbol.clone()).and_modify(|range| *range = Extent::point(range.hi));
    }
    all
}

/// The name of the kernel that writes a buffer.
pub(crate) fn writer(program: &Program, id: BufferId) -> Option<String> {
    program.kernels.iter().find(|kernel| kernel.form.writes().contains(&id)).map(|kernel| kernel.name.clone())
}

/// Gives what steps bind, and the rows of every block that can run, their range.
fn bind_rows(program: &Program, id: BlockId, extents: &mut Extents) {
    for step in &program.block(id).steps {
        match step {
            Step::Run(_) => {}
            Step::If(step) => [step.then, step.other].into_iter().for_each(|b| bind_rows(program, b, extents)),
            Step::Repeat(step) => bind_rows(program, step.body, extents),
            Step::Size(step) => {
                // Without a bound, the check of the step reports it.
                let most = Extent::of(&step.most, extents).map(|e| Extent { lo: 0, hi: e.hi.max(0) });
                extents.extend(most.map(|range| (step.symbol.clone(), range)));
            }
            Step::Route(step) => {
                // A block runs on at least one row; without any, its sizes are zero and it is not checked.
                let rows = Extent::of(&step.rows, extents).map_or(0, |e| e.hi.max(0));
                for id in [step.then, step.other] {
                    bind_block(program, id, rows, extents);
                }
                if let Some(join) = &step.join {
                    bind_length(join, extents);
                    bind_block(program, join.block, rows, extents);
                }
            }
        }
    }
}

/// Gives the rows of a route's block their range.
fn bind_block(program: &Program, id: BlockId, rows: i64, extents: &mut Extents) {
    if let Some(symbol) = &program.block(id).rows {
        extents.insert(symbol.clone(), Extent { lo: rows.min(1), hi: rows });
    }
    bind_rows(program, id, extents);
}

/// Gives the length of a join the range from one of its values to the other.
fn bind_length(join: &Join, extents: &mut Extents) {
    let Some(length) = &join.length else { return };
    let values = [&length.then, &length.other].map(|dim| Extent::of(dim, extents));
    // Without a value, the check of the route reports it.
    if let [Some(a), Some(b)] = values {
        extents.insert(length.symbol.clone(), Extent { lo: a.lo.min(b.lo), hi: a.hi.max(b.hi) });
    }
}

struct Checker<'a> {
    program: &'a Program,
    extents: &'a Extents,
    capacity: &'a [i64],
    /// Per kernel the first one that makes the same accesses, and whether it is checked.
    forms: &'a [usize],
    checked: Vec<bool>,
}

/// The distance that an index of an axis with this many steps can move a position.
fn reach(steps: i64, stride: Extent) -> Option<Extent> {
    let last = Extent { lo: 0, hi: (steps - 1).max(0) };
    last.times(stride)
}

impl Checker<'_> {
    fn block(&mut self, id: BlockId) -> Result<(), BoundsError> {
        let program = self.program;
        for step in &program.block(id).steps {
            let plain = |message| BoundsError { kernel: None, message };
            match step {
                Step::Run(kernel) => {
                    if std::mem::replace(&mut self.checked[self.forms[kernel.index()]], true) {
                        continue;
                    }
                    let kernel = program.kernel(*kernel);
                    let named = |message| BoundsError { kernel: Some(kernel.name.clone()), message };
                    self.size(&kernel.macs).map_err(named)?;
                    self.form(&kernel.form).map_err(named)?;
                }
                Step::If(step) => {
                    self.holds(step.condition, 1).map_err(plain)?;
                    self.aliases(&step.results, &[step.then, step.other]).map_err(plain)?;
                    self.block(step.then)?;
                    self.block(step.other)?;
                }
                Step::Route(step) => {
                    let rows = self.size(&step.rows).map_err(plain)?;
                    self.route(step, rows.hi).map_err(plain)?;
                    if rows.hi > 0 {
                        self.block(step.then)?;
                        self.block(step.other)?;
                        step.join.iter().try_for_each(|join| self.block(join.block))?;
                    }
                }
                Step::Size(step) => {
                    let named = |message| BoundsError { kernel: Some(step.name.clone()), message };
                    self.holds(step.value, 1).map_err(named)?;
                    self.size(&step.most).map_err(named)?;
                    let mut compared = step.equal.iter().flat_map(|(a, b)| [a, b]);
                    compared.try_for_each(|dim| self.any(dim).map(drop)).map_err(named)?;
                }
                Step::Repeat(step) => {
                    // Without steps the sizes inside are not used.
                    if self.repeat(step).map_err(plain)? > 0 {
                        self.block(step.body)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The range of a size, which is not negative.
    fn size(&self, dim: &Dim) -> Checked<Extent> {
        size(self.program, dim, self.extents).ok_or_else(|| no_size(dim, self.extents))
    }

    fn any(&self, dim: &Dim) -> Checked<Extent> {
        Extent::of(dim, self.extents).ok_or_else(|| format!("`{dim}` has no value here"))
    }

    /// A size of weights, which does not vary.
    fn exact(&self, dim: &Dim) -> Checked<i64> {
        let e = self.size(dim)?;
        if e.lo == e.hi {
            Ok(e.lo)
        } else {
            Err(format!("`{dim}` must be known when the run starts, and not depend on rows or data"))
        }
    }

    fn capacity(&self, id: BufferId) -> i64 {
        self.capacity[id.index()]
    }

    fn holds(&self, id: BufferId, elements: i64) -> Checked {
        let found = self.capacity(id);
        if elements <= found {
            Ok(())
        } else {
            Err(format!("buffer {id} must hold {elements} elements, found {found}"))
        }
    }

    fn holds_product(&self, id: BufferId, dims: &[&Dim]) -> Checked {
        let elements = dims.iter().try_fold(1i64, |n, d| {
            let hi = self.size(d)?.hi;
            n.checked_mul(hi).ok_or_else(|| format!("the dims of buffer {id} are too large"))
        });
        self.holds(id, elements?)
    }

    /// Results may stand for what any of these blocks yields.
    fn aliases(&self, results: &[BufferId], blocks: &[BlockId]) -> Checked {
        for id in blocks {
            for (result, given) in results.iter().zip(&self.program.block(*id).yields) {
                self.holds(*given, self.capacity(*result))?;
            }
        }
        Ok(())
    }

    fn route(&self, step: &RouteStep, rows: i64) -> Checked {
        let too_large = || "the rows of a route are too large".to_string();
        self.holds(step.mask, rows)?;
        for (i, operand) in step.operands.iter().enumerate() {
            let elements = self.size(&operand.row)?.hi.checked_mul(rows).ok_or_else(too_large)?;
            for id in [step.then, step.other] {
                let param = self.program.block(id).params.get(i).copied().flatten();
                let Some(param) = param else { continue };
                self.holds(operand.buffer, elements)?;
                self.holds(param, elements)?;
                self.holds(operand.buffer, self.capacity(param))?;
            }
        }
        let ends: &[BlockId] = match &step.join {
            Some(join) => &[join.block],
            None => &[step.then, step.other],
        };
        for (i, result) in step.results.iter().enumerate() {
            let elements = self.size(&result.row)?.hi.checked_mul(rows).ok_or_else(too_large)?;
            self.holds(result.buffer, elements)?;
            for id in ends {
                if let Some(given) = self.program.block(*id).yields.get(i) {
                    self.holds(*given, elements)?;
                }
            }
        }
        let results: Vec<BufferId> = step.results.iter().map(|r| r.buffer).collect();
        self.aliases(&results, ends)?;
        step.join.iter().try_for_each(|join| self.join(step, join))
    }

    /// What is carried fits wherever it is put, and rows of all steps have room; gives the steps at most.
    fn repeat(&self, step: &RepeatStep) -> Checked<i64> {
        let block = self.program.block(step.body);
        let steps = match &step.trips {
            Some(trips) => self.any(trips)?.hi.max(0),
            None => i64::MAX,
        };
        let (number, params) = block.params.split_first().ok_or("a loop's block takes no number")?;
        number.iter().try_for_each(|id| self.holds(*id, 1))?;
        let (next, given) = block.yields.split_at(usize::from(step.condition.is_some()));
        step.condition.iter().chain(next).try_for_each(|id| self.holds(*id, 1))?;
        for (((result, first), param), given) in step.results.iter().zip(&step.carried).zip(params).zip(given) {
            let elements = self.capacity(*result);
            self.holds(*first, elements)?;
            self.holds(*given, elements)?;
            if let Some(param) = param {
                self.holds(*param, elements)?;
                [first, result].into_iter().try_for_each(|id| self.holds(*id, self.capacity(*param)))?;
            }
        }
        for (row, given) in step.rows.iter().zip(&given[step.results.len()..]) {
            let elements = self.size(&row.row)?.hi;
            let all = elements.checked_mul(steps).ok_or("the rows of a loop are too large")?;
            self.holds(row.buffer, all)?;
            self.holds(*given, elements)?;
        }
        Ok(steps)
    }

    /// The parameters of a join stand for what either block yields.
    fn join(&self, step: &RouteStep, join: &Join) -> Checked {
        if let Some(length) = &join.length {
            self.size(&length.then)?;
            self.size(&length.other)?;
        }
        for id in [step.then, step.other] {
            for (param, given) in self.program.block(join.block).params.iter().zip(&self.program.block(id).yields) {
                param.map_or(Ok(()), |param| self.holds(*given, self.capacity(param)))?;
            }
        }
        Ok(())
    }

    fn form(&self, form: &Form) -> Checked {
        match form {
            Form::Loop(form) => self.row_loop(form),
            Form::MatMul(form) => self.matmul(form),
            Form::Attention(form) => self.attention(form),
            Form::Conv(form) => self.conv(form),
            Form::Pool(form) => self.pool(form),
            Form::Scan(form) => self.scan(form),
            Form::Host(form) => self.host(form),
        }
    }

    /// The sizes of an index space, whose product must fit as well.
    fn space<'d>(&self, dims: impl IntoIterator<Item = &'d Dim>) -> Checked<Vec<i64>> {
        let mut product = 1i64;
        let mut sizes = Vec::new();
        for dim in dims {
            let hi = self.size(dim)?.hi;
            product = product
                .checked_mul(hi.max(1))
                .filter(|p| *p <= MAX_ELEMENTS << 8)
                .ok_or("the index space is too large")?;
            sizes.push(hi);
        }
        Ok(sizes)
    }

    /// Whether the view stays inside its buffer over `sizes`, with `more` added to every position.
    fn view(&self, view: &View, sizes: &[i64], more: Extent) -> Checked {
        let outside = || format!("a view of buffer {} leaves its {} elements", view.buffer, self.capacity(view.buffer));
        let mut at = self.any(&view.offset)?.plus(more).ok_or_else(outside)?;
        // The first and the last position, whose parts may vary together; none if a stride has no direction.
        let mut ends = Some([view.offset.clone(), view.offset.clone()]);
        for (stride, size) in view.strides.iter().zip(sizes) {
            let range = self.any(stride)?;
            at = at.plus(reach(*size, range).ok_or_else(outside)?).ok_or_else(outside)?;
            let farthest = stride * &(size - 1).max(0).into();
            let directions = [range.lo < 0, range.hi > 0];
            ends = match directions {
                [false, _] => ends.map(|[first, last]| [first, &last + &farthest]),
                [true, false] => ends.map(|[first, last]| [&first + &farthest, last]),
                [true, true] => None,
            };
        }
        let of = |end: &Dim| Extent::of(Some(end).filter(|end| end.is_exact())?, self.extents)?.plus(more);
        if let Some([Some(first), Some(last)]) = ends.map(|[first, last]| [of(&first), of(&last)]) {
            at = Extent { lo: at.lo.max(first.lo), hi: at.hi.min(last.hi) };
        }
        if at.lo >= 0 && at.hi < self.capacity(view.buffer) { Ok(()) } else { Err(outside()) }
    }

    fn row_loop(&self, form: &Loop) -> Checked {
        let sizes = self.space(form.dims.iter().chain(&form.inner))?;
        let outer = form.dims.len();
        self.loop_sizes(form)?;
        if sizes[..outer].contains(&0) {
            return Ok(());
        }
        let empty = sizes[outer..].contains(&0);
        for (i, view) in form.inputs.iter().enumerate() {
            // With nothing inside a row, only what does not depend on the inner index is read.
            let moves = (outer..sizes.len()).any(|a| {
                let one = form.inner[a - outer].as_const() == Some(1);
                !one && view.strides[a].as_const() != Some(0)
            });
            if empty && moves {
                continue;
            }
            let input = i as u32;
            self.loads(form, input).try_for_each(|more| self.view(view, &sizes, more?))?;
        }
        for store in &form.stores {
            match store.per {
                Per::Row => self.view(&store.view, &sizes[..outer], Extent::point(0))?,
                Per::Element if empty => {}
                Per::Element => self.view(&store.view, &sizes, Extent::point(0))?,
            }
        }
        Ok(())
    }

    /// The values that code computes besides positions must not overflow either.
    fn loop_sizes(&self, form: &Loop) -> Checked {
        for view in form.inputs.iter().chain(form.stores.iter().map(|s| &s.view)) {
            self.any(&view.offset)?;
            view.strides.iter().try_for_each(|s| self.any(s).map(drop))?;
        }
        for expr in &form.exprs {
            match expr {
                Expr::Size(dim) => drop(self.any(dim)?),
                Expr::LoadAt { at, .. } => {
                    for coordinate in at {
                        self.size(&coordinate.extent)?;
                        self.any(&coordinate.stride)?;
                    }
                }
                Expr::Load(_) | Expr::Index(_) | Expr::Const(_) | Expr::Unary(..) | Expr::Binary(..) => {}
                Expr::Select(..) | Expr::Cast(..) | Expr::Reduced(_) => {}
            }
        }
        Ok(())
    }

    /// How far each load of an input may move beyond the view's strides.
    fn loads<'f>(&'f self, form: &'f Loop, input: u32) -> impl Iterator<Item = Checked<Extent>> + 'f {
        form.exprs.iter().filter_map(move |expr| match expr {
            Expr::Load(i) if *i == input => Some(Ok(Extent::point(0))),
            Expr::LoadAt { input: i, at } if *i == input => Some(at.iter().try_fold(Extent::point(0), |sum, c| {
                let reach = reach(self.size(&c.extent)?.hi, self.any(&c.stride)?);
                reach.and_then(|r| sum.plus(r)).ok_or_else(|| "a computed position is too large".to_string())
            })),
            _ => None,
        })
    }

    fn matmul(&self, form: &MatMul) -> Checked {
        let axes = |a: &Dim, b: &Dim| self.space(form.batch.iter().chain([a, b]));
        let (a, b, c) = (axes(&form.m, &form.k)?, axes(&form.k, &form.n)?, axes(&form.m, &form.n)?);
        let none = Extent::point(0);
        if c.contains(&0) {
            return Ok(());
        }
        self.view(&form.c, &c, none)?;
        if let Some(bias) = &form.bias {
            self.view(bias, &[c[c.len() - 1]], none)?;
        }
        self.epilogue(form.epilogue.as_ref(), &c)?;
        if a.contains(&0) {
            return Ok(());
        }
        self.view(&form.a, &a, none)?;
        self.view(&form.b, &b, none)
    }

    fn attention(&self, form: &Attention) -> Checked {
        let axes = |a: &Dim, b: &Dim| self.space(form.batch.iter().chain([a, b]));
        let (q, k, v) = (axes(&form.m, &form.d)?, axes(&form.d, &form.n)?, axes(&form.n, &form.width)?);
        let (scores, c) = (axes(&form.m, &form.n)?, axes(&form.m, &form.width)?);
        if scores[scores.len() - 1] > MAX_KEYS {
            return Err(format!("an attention has more than {MAX_KEYS} keys"));
        }
        let none = Extent::point(0);
        // Where a dim is 0, nothing of this operand is touched.
        let read = |view: &View, sizes: &[i64]| if sizes.contains(&0) { Ok(()) } else { self.view(view, sizes, none) };
        read(&form.c, &c)?;
        read(&form.q, &q)?;
        read(&form.k, &k)?;
        read(&form.v, &v)?;
        form.mask.as_ref().map_or(Ok(()), |mask| read(mask, &scores))
    }

    fn conv(&self, form: &Conv) -> Checked {
        let [out, depth, kernel @ ..] = &form.w_dims;
        kernel.iter().try_for_each(|dim| self.exact(dim).map(drop))?;
        let (channels, out, depth) = (self.exact(&form.x_dims[1])?, self.exact(out)?, self.exact(depth)?);
        let (found, expected) = (depth.checked_mul(form.group), channels);
        if found != Some(expected) || out % form.group != 0 {
            return Err(format!(
                "{out} filters of {depth} channels in {} groups do not fit {channels} channels",
                form.group
            ));
        }
        self.images(&form.x, &form.x_dims)?;
        self.holds_product(form.w, &form.w_dims.each_ref())?;
        self.holds_product(form.y, &[&form.x_dims[0], &form.w_dims[0], &form.y_size[0], &form.y_size[1]])?;
        form.bias.map_or(Ok(()), |bias| self.holds(bias, out))?;
        let plane = &form.y_size[0] * &form.y_size[1];
        let y = self.space([&form.x_dims[0], &plane, &form.w_dims[0]])?;
        if y.contains(&0) { Ok(()) } else { self.epilogue(form.epilogue.as_ref(), &y) }
    }

    /// The operands of an epilogue over a result that is not empty.
    fn epilogue(&self, epilogue: Option<&Epilogue>, sizes: &[i64]) -> Checked {
        let mut operands = epilogue.into_iter().flat_map(|e| &e.operands);
        operands.try_for_each(|operand| self.view(operand, sizes, Extent::point(0)))
    }

    fn pool(&self, form: &Pool) -> Checked {
        let [images, channels, ..] = &form.x_dims;
        self.images(&form.x, &form.x_dims)?;
        self.holds_product(form.y, &[images, &form.y_size[0], &form.y_size[1], channels])
    }

    /// Images of which every element may be read; their strides are what the kernel is told.
    fn images(&self, view: &View, dims: &[Dim; 4]) -> Checked {
        let sizes = self.space(dims)?;
        view.strides.iter().try_for_each(|stride| self.any(stride).map(drop))?;
        if sizes.contains(&0) { Ok(()) } else { self.view(view, &sizes, Extent::point(0)) }
    }

    fn host(&self, form: &Host) -> Checked {
        let holds = |t: &Dense| self.holds_product(t.buffer, &t.dims.iter().collect::<Vec<_>>());
        form.inputs.iter().chain(&form.outputs).try_for_each(holds)
    }

    fn scan(&self, form: &Scan) -> Checked {
        let dims = [&form.outer, &form.len, &form.inner];
        self.holds_product(form.x, &dims)?;
        self.holds_product(form.y, &dims)
    }
}

//! Sizes that data decides: a number that the model computes becomes a symbol, with what it can be at most.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use eec_ir::dim::{Atom, Term};
use eec_ir::ops::Facts;
use eec_ir::{DType, Dim, Op, RegionId, Symbol, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal};
use super::largest::{largest, never_negative};
use super::node::Cx;

/// What was made of numbers so far, in every region: equal numbers are one size.
#[derive(Debug, Default)]
pub(super) struct Late {
    sizes: HashMap<(RegionId, Element), Dim>,
    symbols: BTreeMap<Symbol, Dim>,
    pub(super) found: HashMap<(RegionId, ValueId), Found>,
    /// Differences that count something, and so are not negative.
    pub(super) counts: BTreeSet<Dim>,
}

impl Late {
    /// A size that `dim` does not exceed, without the symbols that are `inside` something; `None` if that does
    /// not follow from what those are at most.
    pub(super) fn most(&self, dim: &Dim, inside: &dyn Fn(&Symbol) -> bool) -> Option<Dim> {
        let mut symbols = BTreeSet::new();
        dim.collect_symbols(&mut symbols);
        let within: Vec<&Symbol> = symbols.iter().filter(|s| inside(s)).collect();
        if within.is_empty() {
            return Some(dim.clone());
        }
        // It grows with each of them: nothing is subtracted or divided that depends on one.
        let about = |d: &Dim| within.iter().any(|symbol| d.mentions(symbol));
        let grows = |term: &Term| {
            let plain = |atom: &Atom| match atom {
                Atom::Symbol(_) => true,
                Atom::Max(a, b) | Atom::Min(a, b) => [a, b].into_iter().all(|d| !about(d) || d.as_symbol().is_some()),
                Atom::FloorDiv(a, b) => !about(b) && (!about(a) || a.is_at_least(0)),
            };
            term.coef >= 0 && term.factors.iter().all(plain) || !about(&Dim::from(vec![term.clone()]))
        };
        if !dim.terms().iter().all(grows) {
            return None;
        }
        let larger = dim.substitute(&|s| within.contains(&s).then(|| self.symbols.get(s).cloned()).flatten());
        let is_small = larger.parts() <= Dim::MAX_PARTS / 8;
        (is_small && larger != *dim).then(|| self.most(&larger, inside)).flatten()
    }

    /// Whether `size` never exceeds `limit`, as far as is known.
    pub(super) fn is_at_most(&self, size: &Dim, limit: &Dim) -> bool {
        let most = self.most(size, &|symbol| self.symbols.contains_key(symbol) && !limit.mentions(symbol));
        [Some(size.clone()), most].into_iter().flatten().any(|size| (limit - &size).is_at_least(0))
    }

    /// Whether data decides `dim`.
    pub(super) fn decides(&self, dim: &Dim) -> bool {
        let mut symbols = BTreeSet::new();
        dim.collect_symbols(&mut symbols);
        symbols.iter().any(|symbol| self.symbols.contains_key(symbol))
    }
}

/// An element of a value: which one, where it is taken from unchanged.
type Element = (ValueId, usize);

/// The elements of a value that are not 0.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// As in [`Op::NonZero`].
    pub(super) positions: ValueId,
    pub(super) count: Dim,
}

impl Cx<'_> {
    /// The elements of operand `i` as sizes, if the operand is given. One that data decides is at most what
    /// `most` says for its position, or what the operators that make it tell.
    pub(super) fn late_sizes(
        &mut self,
        i: usize,
        what: &str,
        most: impl Fn(usize) -> Option<Dim>,
    ) -> NodeResult<Option<Vec<Dim>>> {
        let known = self.sizes(i, what);
        let (Some(value), Err(refusal)) = (self.optional(i), known.as_ref()) else { return known };
        let count = self.few(value).ok_or_else(|| Refusal::undecided(value, refusal.reason.clone()))?;
        (0..count).map(|at| self.late_element(value, at, what, most(at))).collect::<NodeResult<Vec<_>>>().map(Some)
    }

    fn late_element(&mut self, value: ValueId, at: usize, what: &str, most: Option<Dim>) -> NodeResult<Dim> {
        let element = self.element(value, at)?;
        if let Some([size]) = self.contents(element) {
            return Ok(size.clone());
        }
        let most = most.or_else(|| largest(self.graph(), element));
        let most = most.filter(|d| d.is_at_least(0)).ok_or_else(|| {
            let reason = format!("the {what} depends on data, and nothing tells how large it can be");
            Refusal::undecided(value, reason)
        })?;
        self.late_size(element, most)
    }

    /// The number of elements of a value that may hold sizes.
    pub(super) fn few(&self, value: ValueId) -> Option<usize> {
        let count = self.ty(value).elements().as_const()?;
        usize::try_from(count).ok().filter(|n| *n <= Facts::MAX_CONTENTS)
    }

    /// The size that the one element of an integer `value` is, at most `most`.
    pub(super) fn late_size(&mut self, value: ValueId, most: Dim) -> NodeResult<Dim> {
        let ((region, _), element) = (self.place(), self.taken_from(value, 0));
        if let Some(size) = self.size_of(element) {
            return Ok(size);
        }
        let number = self.cast(value, DType::I64)?;
        let size = self.symbol_of(number, most)?;
        self.late_mut().sizes.insert((region, element), size.clone());
        Ok(size)
    }

    /// A new symbol for an i64 `number`; the run ends here where that is negative or more than `most`.
    fn symbol_of(&mut self, number: ValueId, most: Dim) -> NodeResult<Dim> {
        let symbol = self.graph_mut().fresh_symbol("late");
        let size = Dim::from(symbol.clone());
        self.emit(Op::LateSize { size: size.clone(), most: most.clone() }, &[number])?;
        self.late_mut().symbols.insert(symbol, most);
        Ok(size)
    }

    /// A new symbol for a size; the run ends here where that is negative or more than `most`.
    pub(super) fn checked(&mut self, size: &Dim, most: Dim) -> NodeResult<Dim> {
        let number = self.number_of(size)?;
        self.symbol_of(number, most)
    }

    /// `size` as `least` and more, if data decides it: the run ends here where it is less.
    pub(super) fn checked_at_least(&mut self, size: &Dim, least: i64) -> NodeResult<Dim> {
        let more = size - &Dim::from(least);
        if !self.late().decides(size) || more.is_at_least(0) {
            return Ok(size.clone());
        }
        let late = self.late();
        let most = late.most(&more, &|symbol| late.symbols.contains_key(symbol));
        // Inputs too small for it are refused when a run starts.
        let most = most.unwrap_or_else(|| more.larger(&Dim::default()));
        Ok(&self.checked(&more, most)? + &Dim::from(least))
    }

    /// What is known of the elements of a value.
    pub(super) fn contents(&self, value: ValueId) -> Option<&[Dim]> {
        self.graph().value(value).contents.as_deref()
    }

    /// The operand `value`, as sizes where each of its elements was made one here.
    pub(super) fn with_sizes(&mut self, value: ValueId) -> NodeResult<ValueId> {
        let ty = self.ty(value).clone();
        let count = self.few(value).filter(|count| *count > 0 && ty.dtype.integer_range().is_some());
        let unknown = self.contents(value).is_none() && self.constant_of(value).is_none();
        let Some(count) = count.filter(|_| unknown && !self.late().sizes.is_empty()) else { return Ok(value) };
        let sizes = (0..count).map(|at| self.taken_from(value, at)).map(|element| self.size_of(element));
        let Some(sizes) = sizes.collect::<Option<Vec<Dim>>>() else { return Ok(value) };
        let sizes = self.emit(Op::Sizes { values: sizes }, &[])?;
        let sizes = self.reshape(sizes, ty.dims)?;
        self.cast(sizes, ty.dtype)
    }

    /// The size that an element is known to be.
    fn size_of(&self, element: Element) -> Option<Dim> {
        if let Some(contents) = self.contents(element.0) {
            return contents.get(element.1).cloned();
        }
        if let Some(tensor) = self.constant_of(element.0) {
            return tensor.to_i64s()?.get(element.1).copied().map(Dim::from);
        }
        let (region, _) = self.place();
        self.late().sizes.get(&(region, element)).cloned()
    }

    /// Element `at` of a vector, or a scalar, as a scalar; found where the vector is put together.
    pub(super) fn element(&mut self, value: ValueId, at: usize) -> NodeResult<ValueId> {
        let (value, at) = self.taken_from(value, at);
        if self.rank(value) == 0 {
            return Ok(value);
        }
        let elements = self.ty(value).elements();
        let vector = self.reshape(value, vec![elements.clone()])?;
        if elements.as_const() == Some(1) {
            return self.reshape(vector, Vec::new());
        }
        let at = self.constant(Tensor::scalar(at as i64));
        self.emit(Op::Gather { axis: 0 }, &[vector, at])
    }

    fn taken_from(&self, value: ValueId, at: usize) -> Element {
        let mut element = (value, at);
        while let Some(inner) = self.made_of(element) {
            element = inner;
        }
        element
    }

    /// What an element is in the operand of the node that moves it, if one does.
    fn made_of(&self, (value, at): Element) -> Option<Element> {
        let graph = self.graph();
        let node = graph.node(graph.def_node(value)?);
        if let Op::Reshape { .. } = node.op {
            return Some((node.inputs[0], at));
        }
        if let Op::Gather { axis: 0 } = node.op {
            let at = *graph.as_constant(node.inputs[1])?.to_i64s()?.get(at)?;
            return Some((node.inputs[0], usize::try_from(at).ok()?)).filter(|_| graph.ty(node.inputs[0]).rank() == 1);
        }
        let Op::Concat { .. } = node.op else { return None };
        let mut first = 0;
        for part in node.inputs.iter().filter(|_| graph.ty(value).rank() == 1) {
            let count = usize::try_from(graph.ty(*part).elements().as_const()?).ok()?;
            if at < first + count {
                return Some((*part, at - first));
            }
            first += count;
        }
        None
    }

    /// The elements of `x` along `axis` from the number `start` on, by `step`, `count` of them.
    pub(super) fn picked(
        &mut self,
        x: ValueId,
        axis: usize,
        start: ValueId,
        step: i64,
        count: &Dim,
    ) -> NodeResult<ValueId> {
        let mut positions = self.indices(count, 0, 1)?;
        if step != 1 {
            positions = self.times(positions, step as f64)?;
        }
        let positions = self.add(positions, start)?;
        self.emit(Op::Gather { axis: axis as i64 }, &[x, positions])
    }

    /// `0, 1, …` up to a size that is not negative, as i64.
    pub(super) fn numbers(&mut self, limit: &Dim) -> NodeResult<ValueId> {
        if !self.late().counts.contains(limit) {
            return self.emit(Op::Range { start: 0.into(), limit: limit.clone(), delta: 1 }, &[]);
        }
        // Of a difference the operator could not tell that there are as many.
        let one = self.scalar(DType::I64, 1.0)?;
        let ones = self.expanded(one, vec![limit.clone()])?;
        self.emit(Op::CumSum { axis: 0, exclusive: true, reverse: false }, &[ones])
    }

    /// How many steps of this size lead over `span`, a number of elements; none if it is negative.
    pub(super) fn steps(&mut self, span: ValueId, step: i64) -> NodeResult<ValueId> {
        let span = if never_negative(self.graph(), span) { span } else { self.at_least(span, 0.0)? };
        if step.abs() == 1 {
            return Ok(span);
        }
        let above = self.plus(span, (step.abs() - 1) as f64)?;
        let by = self.number(above, step.abs() as f64)?;
        self.div(above, by)
    }

    /// `x` with zeros behind it along `axis`, up to `size`.
    pub(super) fn filled(&mut self, x: ValueId, axis: usize, size: &Dim) -> NodeResult<ValueId> {
        let rank = self.rank(x);
        let missing = size - &self.dims(x)[axis];
        if missing.as_const() == Some(0) {
            return Ok(x);
        }
        let mut pads = vec![Dim::default(); 2 * rank];
        pads[rank + axis] = missing;
        self.unary(Op::Pad { pads }, x)
    }

    /// A size as a scalar.
    pub(super) fn number_of(&mut self, size: &Dim) -> NodeResult<ValueId> {
        if let Some(known) = size.as_const() {
            return Ok(self.constant(Tensor::scalar(known)));
        }
        let vector = self.emit(Op::Sizes { values: vec![size.clone()] }, &[])?;
        self.reshape(vector, Vec::new())
    }
}

//! `Einsum`: sums of products over labelled axes, as transposes, reshapes and matrix products.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__Einsum.html>.

use eec_ir::{Dim, Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::Cx;

/// An axis: a letter, or one of those that `...` stands for, counted from the last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Label {
    Rest(usize),
    Letter(char),
}

/// A tensor with a label per axis.
#[derive(Clone)]
struct Term {
    value: ValueId,
    labels: Vec<Label>,
}

pub(super) fn einsum(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let equation = cx.word("equation")?.ok_or_else(|| Refusal::new("attribute `equation` is missing"))?;
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = equation.split_once("->").map_or((equation.as_str(), None), |(l, r)| (l, Some(r)));
    let operands = cx.all_inputs()?;
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != operands.len() {
        return refuse(format!("`{equation}` has {} terms for {} operands", parts.len(), operands.len()));
    }
    let mut terms = Vec::with_capacity(operands.len());
    for (part, value) in parts.iter().zip(operands) {
        let labels = labels(part, Some(cx.rank(value)))?;
        terms.push(without_repeats(cx, Term { value, labels })?);
    }
    let output = match right {
        Some(right) => explicit_output(right, &terms)?,
        None => implicit_output(&parts, &terms),
    };
    let mut terms = terms.into_iter();
    let mut product = terms.next().ok_or_else(|| Refusal::new("there are no operands"))?;
    while let Some(next) = terms.next() {
        let later: Vec<Label> = terms.as_slice().iter().flat_map(|t| t.labels.iter().copied()).collect();
        let needed = |label: Label| output.contains(&label) || later.contains(&label);
        product = multiplied(cx, product, next, &needed)?;
    }
    let product = summed(cx, product, &|label| output.contains(&label))?;
    let order = output.iter().map(|l| product.labels.iter().position(|p| p == l)).collect::<Option<Vec<_>>>();
    let order = order.ok_or_else(|| Refusal::new(format!("`{equation}` asks for an axis that no operand has")))?;
    Ok(vec![cx.transposed(product.value, &order)?])
}

/// The labels of a term; with `rank` the number of axes that `...` stands for follows.
fn labels(term: &str, rank: Option<usize>) -> NodeResult<Vec<Label>> {
    let letters = |text: &str| text.chars().map(Label::Letter).collect::<Vec<_>>();
    let known = term.chars().all(|c| c.is_ascii_alphabetic() || c == '.');
    let found = match term.split_once("...") {
        Some((before, after)) => {
            let named = before.len() + after.len();
            let rest = rank.map_or(0, |r| r.saturating_sub(named));
            let rest = (0..rest).rev().map(Label::Rest);
            letters(before).into_iter().chain(rest).chain(letters(after)).collect()
        }
        None => letters(term),
    };
    let fits = rank.is_none_or(|rank| found.len() == rank) && !found.contains(&Label::Letter('.'));
    if known && fits { Ok(found) } else { refuse(format!("the term `{term}` does not fit its operand")) }
}

fn explicit_output(right: &str, terms: &[Term]) -> NodeResult<Vec<Label>> {
    let rest = terms.iter().flat_map(|t| &t.labels).filter_map(|l| match l {
        Label::Rest(i) => Some(i + 1),
        Label::Letter(_) => None,
    });
    let rest = rest.max().unwrap_or(0);
    let named = right.chars().filter(|c| *c != '.').count();
    labels(right, Some(if right.contains("...") { named + rest } else { named }))
}

/// What `...` stands for, then the letters that occur once, in their order.
fn implicit_output(parts: &[&str], terms: &[Term]) -> Vec<Label> {
    let mut all: Vec<Label> = terms.iter().flat_map(|t| t.labels.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    let count = |letter: char| parts.iter().flat_map(|p| p.chars()).filter(|c| *c == letter).count();
    let mut rest: Vec<Label> = all.iter().copied().filter(|l| matches!(l, Label::Rest(_))).collect();
    rest.reverse();
    let once = |l: &Label| matches!(l, Label::Letter(c) if count(*c) == 1);
    rest.into_iter().chain(all.into_iter().filter(once)).collect()
}

/// Takes the diagonal of two axes with the same label.
fn without_repeats(cx: &mut Cx, term: Term) -> NodeResult<Term> {
    let Term { mut value, mut labels } = term;
    while let Some((i, j)) = repeated(&labels) {
        let last: Vec<usize> = (0..labels.len()).filter(|a| *a != i && *a != j).chain([i, j]).collect();
        let x = cx.transposed(value, &last)?;
        let (label, mut dims) = (labels[i], cx.dims(x));
        let size = dims[dims.len() - 1].clone();
        dims.truncate(dims.len() - 2);
        let axis = dims.len();
        let elements = &size * &size;
        let flat = cx.reshape(x, dims.into_iter().chain([elements.clone()]).collect())?;
        let step = size.as_const().ok_or_else(|| Refusal::new("a repeated axis must be constant"))? + 1;
        value = cx.part(flat, axis, [0.into(), elements], step)?;
        labels = last[..axis].iter().map(|a| labels[*a]).chain([label]).collect();
    }
    Ok(Term { value, labels })
}

fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    let second = |i: usize| labels[i + 1..].iter().position(|l| *l == labels[i]).map(|j| (i, i + 1 + j));
    (0..labels.len()).find_map(second)
}

/// The term summed over the axes that nothing needs.
fn summed(cx: &mut Cx, term: Term, needed: &dyn Fn(Label) -> bool) -> NodeResult<Term> {
    let axes: Vec<i64> = (0..).zip(&term.labels).filter(|(_, l)| !needed(**l)).map(|(i, _)| i).collect();
    let labels = term.labels.iter().copied().filter(|l| needed(*l)).collect();
    Ok(Term { value: cx.sum(term.value, axes, false)?, labels })
}

/// The product of two terms, summed over the labels that both have and nothing else needs.
fn multiplied(cx: &mut Cx, a: Term, b: Term, needed: &dyn Fn(Label) -> bool) -> NodeResult<Term> {
    let (in_a, in_b) = (a.labels.clone(), b.labels.clone());
    let a = summed(cx, a, &|l| needed(l) || in_b.contains(&l))?;
    let b = summed(cx, b, &|l| needed(l) || in_a.contains(&l))?;
    let both = |l: &&Label| in_b.contains(*l);
    let batch: Vec<Label> = a.labels.iter().filter(both).copied().filter(|l| needed(*l)).collect();
    let inner: Vec<Label> = a.labels.iter().filter(both).copied().filter(|l| !needed(*l)).collect();
    let rows: Vec<Label> = a.labels.iter().copied().filter(|l| !in_b.contains(l)).collect();
    let columns: Vec<Label> = b.labels.iter().copied().filter(|l| !in_a.contains(l)).collect();
    let left = matrix(cx, &a, &batch, &rows, &inner)?;
    let right = matrix(cx, &b, &batch, &inner, &columns)?;
    let product = cx.emit(Op::MATMUL, &[left, right])?;
    let batch_dims = cx.dims(product)[..batch.len()].to_vec();
    let dims = batch_dims.into_iter().chain(dims_of(cx, &a, &rows)).chain(dims_of(cx, &b, &columns)).collect();
    let value = cx.reshape(product, dims)?;
    Ok(Term { value, labels: batch.into_iter().chain(rows).chain(columns).collect() })
}

fn dims_of(cx: &Cx, term: &Term, labels: &[Label]) -> Vec<Dim> {
    let dims = cx.dims(term.value);
    labels.iter().filter_map(|l| term.labels.iter().position(|t| t == l)).map(|at| dims[at].clone()).collect()
}

/// The term as `[batch…, rows, columns]`.
fn matrix(cx: &mut Cx, term: &Term, batch: &[Label], rows: &[Label], columns: &[Label]) -> NodeResult<ValueId> {
    let order: Vec<Label> = [batch, rows, columns].concat();
    let perm: Vec<usize> = order.iter().filter_map(|l| term.labels.iter().position(|t| t == l)).collect();
    let dims = dims_of(cx, term, batch);
    let (rows, columns) = (Dim::product(&dims_of(cx, term, rows)), Dim::product(&dims_of(cx, term, columns)));
    let x = cx.transposed(term.value, &perm)?;
    cx.reshape(x, dims.into_iter().chain([rows, columns]).collect())
}

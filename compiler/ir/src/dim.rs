//! Symbolic dimensions: integer polynomials over named input dims, with floor division, max and min.
//!
//! A [`Dim`] is kept in canonical form, so that structural equality is equality of the expressions
//! that exporters write (`Shape → Gather → Mul → Concat`). Symbols stand for sizes: they are never
//! negative. Arithmetic saturates; the verifier refuses dims whose coefficients left [`Dim::LIMIT`].

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Add, Mul, Sub};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

/// The name of a size that is known only at run time (`batch`, `seq`, the rows of a region).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Symbol(Arc<str>);

impl Symbol {
    /// A symbol named `name`.
    pub fn new(name: &str) -> Self {
        Symbol(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the text form needs no quotes: letters, digits and `_ .`, and no digit first.
    fn is_plain(&self) -> bool {
        let first = self.0.chars().next();
        first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && self.0.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
            && !matches!(&*self.0, "max" | "min" | "floordiv")
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_plain() { f.write_str(&self.0) } else { write!(f, "{:?}", &*self.0) }
    }
}

/// What a monomial is a product of.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Atom {
    /// A named size.
    Symbol(Symbol),
    /// Division of the first by the second, rounded towards negative infinity.
    FloorDiv(Box<Dim>, Box<Dim>),
    /// The larger of two.
    Max(Box<Dim>, Box<Dim>),
    /// The smaller of two.
    Min(Box<Dim>, Box<Dim>),
}

/// One term of a [`Dim`]: a coefficient times a product of atoms (empty for the constant term).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Term {
    /// The factors in ascending order; a square is the same factor twice.
    pub factors: Vec<Atom>,
    /// The coefficient, never zero.
    pub coef: i64,
}

/// A size or an integer derived from sizes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize)]
#[serde(into = "Vec<Term>")]
pub struct Dim {
    terms: Vec<Term>,
}

/// Graded lexicographic order of monomials, largest first: compatible with multiplication, which
/// polynomial division relies on.
fn monomial_order(a: &[Atom], b: &[Atom]) -> Ordering {
    b.len().cmp(&a.len()).then_with(|| a.cmp(b))
}

impl Dim {
    /// Coefficients at or beyond this are refused by the verifier.
    pub const LIMIT: i64 = 1 << 48;

    /// The size named `name`.
    pub fn symbol(name: &str) -> Self {
        Symbol::new(name).into()
    }

    /// Expressions of more parts are refused: hostile models nest them until nothing ends.
    pub const MAX_PARTS: usize = 1000;

    /// The terms, largest monomial first.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether no coefficient is at either end of 64 bits, where arithmetic on dims stops and that on
    /// elements wraps around.
    pub fn is_exact(&self) -> bool {
        self.terms.iter().all(|t| t.coef != i64::MAX && t.coef != i64::MIN)
    }

    /// The value, if it depends on no symbol.
    pub fn as_const(&self) -> Option<i64> {
        match self.terms.as_slice() {
            [] => Some(0),
            [t] if t.factors.is_empty() => Some(t.coef),
            _ => None,
        }
    }

    /// The symbol, if the dim is one symbol and nothing else.
    pub fn as_symbol(&self) -> Option<&Symbol> {
        match self.terms.as_slice() {
            [Term { factors, coef: 1 }] => match factors.as_slice() {
                [Atom::Symbol(s)] => Some(s),
                _ => None,
            },
            _ => None,
        }
    }

    /// The atom, if the dim is one atom and nothing else.
    fn as_atom(&self) -> Option<&Atom> {
        match self.terms.as_slice() {
            [Term { factors, coef: 1 }] => match factors.as_slice() {
                [atom] => Some(atom),
                _ => None,
            },
            _ => None,
        }
    }

    fn from_terms(mut raw: Vec<Term>) -> Self {
        raw.sort_by(|a, b| monomial_order(&a.factors, &b.factors));
        let mut terms: Vec<Term> = Vec::with_capacity(raw.len());
        for t in raw {
            match terms.last_mut() {
                Some(last) if last.factors == t.factors => last.coef = last.coef.saturating_add(t.coef),
                _ => terms.push(t),
            }
        }
        terms.retain(|t| t.coef != 0);
        Dim { terms }
    }

    fn from_atom(atom: Atom) -> Self {
        Dim { terms: vec![Term { factors: vec![atom], coef: 1 }] }
    }

    /// `self / divisor` if it is exact as polynomials.
    pub fn exact_div(&self, divisor: &Dim) -> Option<Dim> {
        let lead = divisor.terms.first()?;
        let mut rest = self.clone();
        let mut quotient = Vec::new();
        while let Some(top) = rest.terms.first() {
            if quotient.len() > 64 || top.coef % lead.coef != 0 {
                return None;
            }
            let factors = divide_factors(&top.factors, &lead.factors)?;
            let term = Term { factors, coef: top.coef / lead.coef };
            rest = &rest - &(&Dim { terms: vec![term.clone()] } * divisor);
            quotient.push(term);
        }
        Some(Dim::from_terms(quotient))
    }

    /// Division rounded towards negative infinity; `None` if the divisor is zero.
    pub fn floor_div(&self, divisor: &Dim) -> Option<Dim> {
        if let (Some(a), Some(b)) = (self.as_const(), divisor.as_const()) {
            return floor_quotient(a, b).map(Dim::from);
        }
        if divisor.as_const() == Some(0) {
            return None;
        }
        let exact = self.exact_div(divisor);
        Some(exact.unwrap_or_else(|| Dim::from_atom(Atom::FloorDiv(Box::new(self.clone()), Box::new(divisor.clone())))))
    }

    /// Division rounded towards positive infinity by a positive constant.
    pub fn ceil_div(&self, divisor: i64) -> Option<Dim> {
        (self + &Dim::from(divisor - 1)).floor_div(&Dim::from(divisor))
    }

    /// Whether the dim is at least `bound` whatever its symbols are. `false` means "not known".
    pub fn is_at_least(&self, bound: i64) -> bool {
        self.exceeds(bound, REPLACED)
    }

    /// What it is at least, if that is known.
    fn least(&self, replaced: usize) -> Option<i64> {
        self.least_by_terms(replaced).or_else(|| self.exceeds(0, replaced).then_some(0))
    }

    fn least_by_terms(&self, replaced: usize) -> Option<i64> {
        self.terms.iter().try_fold(0i64, |sum, term| sum.checked_add(term.least(replaced)?))
    }

    /// As [`Dim::is_at_least`], with at most so many extremes and quotients replaced by what bounds them: so it is seen
    /// that `h - min(h, 3)` and remainders, `h - 32·floordiv(h, 32)`, are not negative.
    fn exceeds(&self, bound: i64, replaced: usize) -> bool {
        let Some(left) = replaced.checked_sub(1) else {
            return self.least_by_terms(0).is_some_and(|least| least >= bound);
        };
        if self.least_by_terms(left).is_some_and(|least| least >= bound) {
            return true;
        }
        self.parts() <= MAX_SEARCHED
            && self.terms.iter().any(|term| {
                let [atom] = &term.factors[..] else { return false };
                let others = self - &Dim { terms: vec![term.clone()] };
                // The others `times` over, and `part` in the atom's place.
                let exceeds = |times: i64, part: &Dim| {
                    let (others, part) = (&others * &times.into(), part * &term.coef.into());
                    let is_exact = others.is_exact() && part.is_exact();
                    is_exact && (&others + &part).exceeds(bound.saturating_mul(times), left)
                };
                match atom {
                    Atom::Symbol(_) => false,
                    Atom::Max(a, b) if term.coef > 0 => exceeds(1, a) || exceeds(1, b),
                    Atom::Min(a, b) if term.coef < 0 => exceeds(1, a) || exceeds(1, b),
                    Atom::Max(a, b) | Atom::Min(a, b) => exceeds(1, a) && exceeds(1, b),
                    Atom::FloorDiv(a, b) => match b.as_const() {
                        // It is at most a / b, and at least (a - b + 1) / b.
                        Some(by) if by > 0 && term.coef < 0 => exceeds(by, a),
                        Some(by) if by > 0 => exceeds(by, &(&**a - &Dim::from(by - 1))),
                        Some(_) | None => false,
                    },
                }
            })
    }

    /// The larger of two.
    pub fn larger(&self, other: &Dim) -> Dim {
        if (self - other).is_at_least(0) {
            self.clone()
        } else if (other - self).is_at_least(0) {
            other.clone()
        } else {
            self.extreme(other, Atom::Max)
        }
    }

    /// The smaller of two.
    pub fn smaller(&self, other: &Dim) -> Dim {
        if (other - self).is_at_least(0) {
            self.clone()
        } else if (self - other).is_at_least(0) {
            other.clone()
        } else {
            self.extreme(other, Atom::Min)
        }
    }

    /// The extreme of two of which neither is known to be it; one that is made of the other stays.
    fn extreme(&self, other: &Dim, make: fn(Box<Dim>, Box<Dim>) -> Atom) -> Dim {
        let covers = |d: &Dim, part: &Dim| match d.as_atom() {
            Some(atom @ (Atom::Max(a, b) | Atom::Min(a, b))) => {
                (**a == *part || **b == *part) && *atom == make(a.clone(), b.clone())
            }
            Some(Atom::Symbol(_) | Atom::FloorDiv(..)) | None => false,
        };
        if covers(self, other) {
            return self.clone();
        }
        if covers(other, self) {
            return other.clone();
        }
        let (a, b) = if self <= other { (self, other) } else { (other, self) };
        Dim::from_atom(make(Box::new(a.clone()), Box::new(b.clone())))
    }

    /// The value under `env`; `None` if a symbol is unknown, on overflow or on division by zero.
    pub fn eval(&self, env: &dyn Fn(&Symbol) -> Option<i64>) -> Option<i64> {
        let mut sum = 0i64;
        for t in &self.terms {
            let mut product = t.coef;
            for f in &t.factors {
                product = product.checked_mul(f.eval(env)?)?;
            }
            sum = sum.checked_add(product)?;
        }
        Some(sum)
    }

    /// The dim with every symbol replaced by what `f` gives for it.
    pub fn substitute(&self, f: &dyn Fn(&Symbol) -> Option<Dim>) -> Dim {
        let mut sum = Dim::default();
        for t in &self.terms {
            let start = Dim::from(t.coef);
            sum = &sum + &t.factors.iter().fold(start, |acc, a| &acc * &a.substitute(f));
        }
        sum
    }

    /// Adds the symbols it depends on to `into`.
    pub fn collect_symbols(&self, into: &mut BTreeSet<Symbol>) {
        for f in self.terms.iter().flat_map(|t| &t.factors) {
            match f {
                Atom::Symbol(s) => {
                    into.insert(s.clone());
                }
                Atom::FloorDiv(a, b) | Atom::Max(a, b) | Atom::Min(a, b) => {
                    a.collect_symbols(into);
                    b.collect_symbols(into);
                }
            }
        }
    }

    /// How large the expression is: its terms and factors, nested ones included.
    pub fn parts(&self) -> usize {
        let atom = |a: &Atom| match a {
            Atom::Symbol(_) => 1,
            Atom::FloorDiv(a, b) | Atom::Max(a, b) | Atom::Min(a, b) => 1 + a.parts() + b.parts(),
        };
        self.terms.iter().map(|t| 1 + t.factors.iter().map(atom).sum::<usize>()).sum()
    }

    /// Whether it depends on `symbol`.
    pub fn mentions(&self, symbol: &Symbol) -> bool {
        let mut all = BTreeSet::new();
        self.collect_symbols(&mut all);
        all.contains(symbol)
    }

    /// The product of `dims`.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::from(1), |acc, d| &acc * d)
    }
}

/// `a / b`, rounded towards negative infinity; `None` if `b` is 0, or if 64 bits do not hold it.
pub fn floor_quotient(a: i64, b: i64) -> Option<i64> {
    Some(a.checked_div_euclid(b)?.saturating_sub(i64::from(b < 0 && a.rem_euclid(b) != 0)))
}

/// The factors of `a` without those of `b`, if `b` divides `a`.
fn divide_factors(a: &[Atom], b: &[Atom]) -> Option<Vec<Atom>> {
    let mut rest = a.to_vec();
    for f in b {
        let at = rest.iter().position(|x| x == f)?;
        rest.remove(at);
    }
    Some(rest)
}

/// So many extremes and quotients, one after or inside the other, does [`Dim::is_at_least`] replace.
const REPLACED: usize = 4;

/// In larger expressions it replaces none.
const MAX_SEARCHED: usize = 32;

impl Term {
    /// As [`Dim::least`].
    fn least(&self, replaced: usize) -> Option<i64> {
        match self.factors.as_slice() {
            [] => Some(self.coef),
            _ if self.coef < 0 => None,
            [one] => one.least(replaced)?.checked_mul(self.coef),
            all => all.iter().all(|atom| atom.least(replaced).is_some_and(|least| least >= 0)).then_some(0),
        }
    }
}

impl Atom {
    /// As [`Dim::least`].
    fn least(&self, replaced: usize) -> Option<i64> {
        match self {
            Atom::Symbol(_) => Some(0),
            Atom::FloorDiv(a, b) => match (a.least(replaced)?, b.as_const()) {
                (least, Some(by)) if by > 0 => Some(least.div_euclid(by)),
                (least, _) => (least >= 0 && b.least(replaced)? >= 1).then_some(0),
            },
            Atom::Max(a, b) => match (a.least(replaced), b.least(replaced)) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            },
            Atom::Min(a, b) => Some(a.least(replaced)?.min(b.least(replaced)?)),
        }
    }

    fn eval(&self, env: &dyn Fn(&Symbol) -> Option<i64>) -> Option<i64> {
        match self {
            Atom::Symbol(s) => env(s),
            Atom::FloorDiv(a, b) => floor_quotient(a.eval(env)?, b.eval(env)?),
            Atom::Max(a, b) => Some(a.eval(env)?.max(b.eval(env)?)),
            Atom::Min(a, b) => Some(a.eval(env)?.min(b.eval(env)?)),
        }
    }

    fn substitute(&self, f: &dyn Fn(&Symbol) -> Option<Dim>) -> Dim {
        match self {
            Atom::Symbol(s) => f(s).unwrap_or_else(|| s.clone().into()),
            Atom::FloorDiv(a, b) => {
                let (a, b) = (a.substitute(f), b.substitute(f));
                a.floor_div(&b).unwrap_or_else(|| Dim::from_atom(Atom::FloorDiv(Box::new(a), Box::new(b))))
            }
            Atom::Max(a, b) => a.substitute(f).larger(&b.substitute(f)),
            Atom::Min(a, b) => a.substitute(f).smaller(&b.substitute(f)),
        }
    }
}

impl From<Vec<Term>> for Dim {
    /// Any terms, brought into canonical form.
    fn from(mut terms: Vec<Term>) -> Self {
        terms.iter_mut().for_each(|t| t.factors.sort());
        Dim::from_terms(terms)
    }
}

thread_local! {
    /// How many dims are being decoded, one inside the other.
    static DECODING: Cell<usize> = const { Cell::new(0) };
}

/// Encoded dims may not nest deeper: files are untrusted, and decoding them recurses.
const MAX_NESTING: usize = 32;

impl<'de> Deserialize<'de> for Dim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let depth = DECODING.get();
        if depth >= MAX_NESTING {
            return Err(serde::de::Error::custom(format!("dims nest deeper than {MAX_NESTING}")));
        }
        DECODING.set(depth + 1);
        let terms = Vec::<Term>::deserialize(deserializer);
        DECODING.set(depth);
        terms.map(Dim::from)
    }
}

impl From<Dim> for Vec<Term> {
    fn from(dim: Dim) -> Self {
        dim.terms
    }
}

impl From<i64> for Dim {
    fn from(value: i64) -> Self {
        Dim::from_terms(vec![Term { factors: Vec::new(), coef: value }])
    }
}

impl From<Symbol> for Dim {
    fn from(symbol: Symbol) -> Self {
        Dim::from_atom(Atom::Symbol(symbol))
    }
}

impl Add for &Dim {
    type Output = Dim;
    fn add(self, other: &Dim) -> Dim {
        Dim::from_terms(self.terms.iter().chain(&other.terms).cloned().collect())
    }
}

impl Sub for &Dim {
    type Output = Dim;
    fn sub(self, other: &Dim) -> Dim {
        let negated = other.terms.iter().map(|t| Term { factors: t.factors.clone(), coef: t.coef.saturating_neg() });
        Dim::from_terms(self.terms.iter().cloned().chain(negated).collect())
    }
}

impl Mul for &Dim {
    type Output = Dim;
    fn mul(self, other: &Dim) -> Dim {
        let mut terms = Vec::with_capacity(self.terms.len() * other.terms.len());
        for a in &self.terms {
            for b in &other.terms {
                let mut factors: Vec<Atom> = a.factors.iter().chain(&b.factors).cloned().collect();
                factors.sort();
                terms.push(Term { factors, coef: a.coef.saturating_mul(b.coef) });
            }
        }
        Dim::from_terms(terms)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(s) => write!(f, "{s}"),
            Atom::FloorDiv(a, b) => write!(f, "floordiv({a}, {b})"),
            Atom::Max(a, b) => write!(f, "max({a}, {b})"),
            Atom::Min(a, b) => write!(f, "min({a}, {b})"),
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        for (i, t) in self.terms.iter().enumerate() {
            let sign = if t.coef < 0 { "-" } else { "+" };
            if i > 0 || t.coef < 0 {
                f.write_str(sign)?;
            }
            if t.coef.unsigned_abs() != 1 || t.factors.is_empty() {
                write!(f, "{}", t.coef.unsigned_abs())?;
                f.write_str(if t.factors.is_empty() { "" } else { "*" })?;
            }
            for (j, a) in t.factors.iter().enumerate() {
                write!(f, "{}{a}", if j > 0 { "*" } else { "" })?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(name: &str) -> Dim {
        Dim::symbol(name)
    }

    #[test]
    fn equal_expressions_are_equal_dims() {
        let (b, s, p) = (d("batch"), d("seq"), d("past"));
        assert_eq!(&b * &s, &s * &b);
        assert_eq!(&(&b + &s) - &b, s);
        assert_eq!(&(&p + &s) * &b, &(&b * &s) + &(&b * &p));
        assert_eq!((&b - &b).as_const(), Some(0));
    }

    #[test]
    fn division_is_exact_where_polynomials_divide() {
        let (b, s, p) = (d("batch"), d("seq"), d("past"));
        let total = &(&(&p + &s) * &b) * &160.into();
        assert_eq!(total.floor_div(&(&(&p + &s) * &32.into())), Some(&b * &5.into()));
        assert_eq!(s.floor_div(&2.into()).map(|d| d.to_string()).as_deref(), Some("floordiv(seq, 2)"));
        assert_eq!(Dim::from(-7).floor_div(&2.into()).and_then(|d| d.as_const()), Some(-4));
        assert_eq!(Dim::from(7).floor_div(&Dim::from(-2)).and_then(|d| d.as_const()), Some(-4));
        assert_eq!(b.floor_div(&0.into()), None);
    }

    #[test]
    fn max_and_min_fold_when_the_order_is_known() {
        let b = d("batch");
        assert_eq!(b.larger(&0.into()), b);
        assert_eq!((&b + &2.into()).smaller(&b), b);
        assert_eq!(b.larger(&1.into()).to_string(), "max(1, batch)");
        let capped = b.smaller(&64.into());
        assert_eq!(capped.smaller(&b), capped);
        assert_eq!(Dim::from(64).smaller(&capped), capped);
        assert_eq!(b.larger(&1.into()).larger(&1.into()).to_string(), "max(1, batch)");
    }

    #[test]
    fn remainders_are_not_negative() {
        let (h, none) = (d("h"), Dim::default());
        let rounded = |dim: &Dim, by: i64| dim.floor_div(&by.into()).map(|q| &q * &by.into()).unwrap_or_default();
        let rest = &h - &rounded(&h, 32);
        assert!(rest.is_at_least(0) && !rest.is_at_least(1));
        assert!((&Dim::from(31) - &rest).is_at_least(0) && !(&Dim::from(30) - &rest).is_at_least(0));
        let missing = &Dim::from(32) - &rest;
        assert!((&missing - &rounded(&missing, 32)).is_at_least(0));
        let above = &rounded(&(&h + &31.into()), 32) - &h;
        assert!(above.is_at_least(0) && !above.is_at_least(1));
        assert!(above.floor_div(&2.into()).is_some_and(|half| half.is_at_least(0)));
        assert!(!(&rounded(&(&h + &30.into()), 32) - &h).is_at_least(0));
        assert!((&(&none - &rounded(&(&none - &h), 32)) - &h).is_at_least(0));
    }

    #[test]
    fn results_of_windows_are_not_negative() {
        let halved = |dim: &Dim| &(dim - &1.into()).floor_div(&2.into()).unwrap_or_default() + &1.into();
        let h = d("h");
        assert!(halved(&halved(&h)).is_at_least(0) && !halved(&h).is_at_least(1));
    }

    #[test]
    fn evaluation_refuses_overflow_and_unknown_symbols() {
        let b = d("batch");
        let env = |s: &Symbol| (s.as_str() == "batch").then_some(i64::MAX);
        assert_eq!(b.eval(&env), Some(i64::MAX));
        assert_eq!((&b * &2.into()).eval(&env), None);
        assert_eq!(d("other").eval(&env), None);
    }

    #[test]
    fn least_values_of_extremes_and_divisions() {
        let (h, w) = (d("h"), d("w"));
        let n = |value: i64| Dim::from(value);
        let half = |d: &Dim| d.floor_div(&n(2)).unwrap();
        let rest = (&h - &n(1)).larger(&n(0));
        let cases = [
            (&h - &n(1).smaller(&h), Some(0)),
            (&h - &h.smaller(&w), Some(0)),
            (&h.larger(&w) - &h, Some(0)),
            (&h.larger(&n(3)) + &w, Some(3)),
            (h.smaller(&w), Some(0)),
            (&h + &n(4).smaller(&(&w + &n(2))), Some(2)),
            (&h - &rest, Some(0)),
            (&h - &(&half(&h) * &n(2)), Some(0)),
            (&(&half(&(&h + &n(1))) * &n(2)) - &h, Some(0)),
            (&h - &half(&h), Some(0)),
            (&h - &w, None),
            (&h - &n(1), None),
            (&rest - &h, None),
            (&h.smaller(&w) - &h, None),
            (&(&half(&h) * &n(2)) - &h, None),
            (&h - &(&half(&(&h + &n(1))) * &n(2)), None),
        ];
        for (dim, least) in &cases {
            let values = (0..40i64).map(|i| {
                let env = |s: &Symbol| Some(if s.as_str() == "h" { i % 6 } else { i / 6 });
                dim.eval(&env).unwrap()
            });
            let seen = values.min().unwrap();
            match least {
                Some(least) => assert!(dim.is_at_least(*least) && seen >= *least, "{dim} falls to {seen}"),
                None => assert!(!dim.is_at_least(0) && seen < 0, "{dim} is at least {seen}"),
            }
            assert!(!dim.is_at_least(seen + 1), "{dim} is {seen}");
        }
    }

    #[test]
    fn coefficients_that_leave_64_bits_prove_nothing() {
        let by = Dim::from(1 << 40);
        let far = (&d("h") - &1.into()).floor_div(&by).unwrap();
        let dim = &(&d("w") * &by) - &(&far * &by);
        assert!(!dim.is_at_least(0));
    }
}

//! The range of values that a dim may take: exact for sizes bound by the inputs, from 1 to the
//! owner's rows for the rows of a block, from the one value to the other for the length of a join.

use std::collections::HashMap;

use eec_ir::dim::{Atom, Dim, Symbol, floor_quotient};

/// All values from `lo` to `hi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    pub(crate) lo: i64,
    pub(crate) hi: i64,
}

/// Parts of a sum up to which it is looked at as a product as well.
const MAX_PARTS: usize = 64;

/// The ranges of the symbols.
pub(crate) type Extents = HashMap<Symbol, Extent>;

impl Extent {
    /// One value.
    pub(crate) fn point(value: i64) -> Extent {
        Extent { lo: value, hi: value }
    }

    /// The range of `dim`; `None` if a symbol is unknown, on overflow, or if a divisor may be zero.
    ///
    /// Every operand is in range as well, so that code that computes them in 64 bits is exact.
    pub(crate) fn of(dim: &Dim, extents: &Extents) -> Option<Extent> {
        let range = Extent::within(dim, extents, i64::MAX)?;
        if range.lo == range.hi || dim.terms().len() < 2 {
            return Some(range);
        }
        // Terms of one size that varies are one where the others are known: `n·w - 2·n` is `6·n` if `w` is 8.
        let point = |symbol: &Symbol| extents.get(symbol).filter(|e| e.lo == e.hi).map(|e| e.lo.into());
        let merged = dim.substitute(&point);
        let merged = Some(&merged).filter(|dim| dim.is_exact()).and_then(|dim| Extent::within(dim, extents, i64::MAX));
        Some(merged.map_or(range, |merged| range.and(merged)))
    }

    /// [`Extent::of`] where no operand and no partial result is larger than `most`, or smaller than its negative.
    pub(crate) fn within(dim: &Dim, extents: &Extents, most: i64) -> Option<Extent> {
        let fits = |e: &Extent| e.lo >= -most && e.hi <= most;
        let mut sum = Extent::point(0);
        for term in dim.terms() {
            let mut product = Some(Extent::point(term.coef)).filter(fits)?;
            for factor in &term.factors {
                product = product.times(Extent::of_atom(factor, extents, most)?).filter(fits)?;
            }
            sum = sum.plus(product).filter(fits)?;
        }
        Some(Extent::of_product(dim, extents, most).map_or(sum, |product| sum.and(product)))
    }

    /// The range of a sum whose terms share a symbol as that symbol times a sum: `n·n - n` of n from 2 to 9 is
    /// from 2 to 72, as `n·(n - 1)`, where the terms by themselves give -5 to 79.
    fn of_product(dim: &Dim, extents: &Extents, most: i64) -> Option<Extent> {
        let [first, rest @ ..] = dim.terms() else { return None };
        // Of sizes inside others the work would double at each level.
        let plain = dim.terms().iter().flat_map(|t| &t.factors).all(|f| matches!(f, Atom::Symbol(_)));
        if !plain || dim.parts() > MAX_PARTS {
            return None;
        }
        let shared = first.factors.iter().find(|f| !rest.is_empty() && rest.iter().all(|t| t.factors.contains(f)))?;
        let Atom::Symbol(symbol) = shared else { return None };
        let sum = dim.exact_div(&symbol.clone().into())?;
        extents.get(symbol)?.times(Extent::within(&sum, extents, most)?)
    }

    /// The values in both ranges, of which there are some.
    fn and(self, other: Extent) -> Extent {
        Extent { lo: self.lo.max(other.lo), hi: self.hi.min(other.hi) }
    }

    fn of_atom(atom: &Atom, extents: &Extents, most: i64) -> Option<Extent> {
        let of = |dim| Extent::within(dim, extents, most);
        match atom {
            Atom::Symbol(symbol) => extents.get(symbol).copied().filter(|e| e.lo >= -most && e.hi <= most),
            Atom::FloorDiv(a, b) => of(a)?.divided(of(b)?),
            Atom::Max(a, b) => {
                let (a, b) = (of(a)?, of(b)?);
                Some(Extent { lo: a.lo.max(b.lo), hi: a.hi.max(b.hi) })
            }
            Atom::Min(a, b) => {
                let (a, b) = (of(a)?, of(b)?);
                Some(Extent { lo: a.lo.min(b.lo), hi: a.hi.min(b.hi) })
            }
        }
    }

    pub(crate) fn plus(self, other: Extent) -> Option<Extent> {
        Some(Extent { lo: self.lo.checked_add(other.lo)?, hi: self.hi.checked_add(other.hi)? })
    }

    pub(crate) fn times(self, other: Extent) -> Option<Extent> {
        self.corners(other, i64::checked_mul)
    }

    fn divided(self, other: Extent) -> Option<Extent> {
        if other.lo <= 0 && other.hi >= 0 {
            return None;
        }
        self.corners(other, floor_quotient)
    }

    /// The range of a function that is monotone in both arguments.
    fn corners(self, other: Extent, f: impl Fn(i64, i64) -> Option<i64>) -> Option<Extent> {
        let mut range: Option<Extent> = None;
        for (a, b) in [(self.lo, other.lo), (self.lo, other.hi), (self.hi, other.lo), (self.hi, other.hi)] {
            let value = f(a, b)?;
            range = Some(range.map_or(Extent::point(value), |r| Extent { lo: r.lo.min(value), hi: r.hi.max(value) }));
        }
        range
    }
}

/// A divisor inside of `dim` that may be zero.
pub(crate) fn zero_divisor<'d>(dim: &'d Dim, extents: &Extents) -> Option<&'d Dim> {
    let inside = |dim: &'d Dim| zero_divisor(dim, extents);
    dim.terms().iter().flat_map(|term| &term.factors).find_map(|atom| match atom {
        Atom::Symbol(_) => None,
        Atom::Max(a, b) | Atom::Min(a, b) => inside(a).or_else(|| inside(b)),
        Atom::FloorDiv(a, b) => inside(a).or_else(|| inside(b)).or_else(|| {
            let may_be_zero = Extent::of(b, extents).is_some_and(|e| e.lo <= 0 && e.hi >= 0);
            may_be_zero.then_some(&**b)
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_of_one_varying_size_are_merged_where_the_others_are_known() {
        let (n, w) = (Dim::symbol("n"), Dim::symbol("w"));
        let extents =
            Extents::from([(Symbol::new("n"), Extent { lo: 1, hi: 9 }), (Symbol::new("w"), Extent::point(8))]);
        let area = &(&n * &w) - &(&(&n * &2.into()) + &w);
        assert_eq!(Extent::of(&area, &extents), Some(Extent { lo: -2, hi: 46 }));
        let far =
            Extents::from([(Symbol::new("n"), Extent { lo: 1, hi: 9 }), (Symbol::new("w"), Extent::point(i64::MAX))]);
        assert_eq!(Extent::of(&area, &far), None);
    }

    /// The last row of a square whose side varies ends where the square does, and no sooner than it must.
    #[test]
    fn terms_that_share_a_symbol_are_a_product() {
        let n = Dim::symbol("n");
        let extents =
            Extents::from([(Symbol::new("n"), Extent { lo: 2, hi: 9 }), (Symbol::new("m"), Extent::point(5))]);
        let of = |dim: &Dim| Extent::of(dim, &extents);
        let square = &n * &n;
        assert_eq!(of(&(&square - &n)), Some(Extent { lo: 2, hi: 72 }));
        assert_eq!(of(&(&(&square * &3.into()) - &(&n * &Dim::symbol("m")))), Some(Extent { lo: 2, hi: 198 }));
        // No value is left out where the terms share nothing, or where the sum changes its sign.
        assert_eq!(of(&(&square - &4.into())), Some(Extent { lo: 0, hi: 77 }));
        assert_eq!(of(&(&square - &(&n * &4.into()))), Some(Extent { lo: -18, hi: 45 }));
    }
}

//! Sizes as WGSL: polynomials over symbols become `i32` expressions, constants stay constants.

use eec_ir::Dim;
use eec_ir::dim::{Atom, Symbol};

use super::helpers::Helper;
use super::text::{Reason, Writer};

impl Writer<'_> {
    /// The dim as an `i32` expression without spaces outside parentheses.
    pub(super) fn dim(&mut self, dim: &Dim) -> Result<String, Reason> {
        self.computes(dim);
        self.sum(dim)
    }

    /// The dim where indices are divided by it: of none that are there, a text must not divide by a constant 0.
    pub(super) fn divisor(&mut self, dim: &Dim) -> Result<String, Reason> {
        if dim.as_const() == Some(0) { Ok("1".into()) } else { self.dim(dim) }
    }

    fn sum(&mut self, dim: &Dim) -> Result<String, Reason> {
        let terms: Vec<String> = dim.terms().iter().map(|t| self.term(t.coef, &t.factors)).collect::<Result<_, _>>()?;
        Ok(match terms.as_slice() {
            [] => "0".into(),
            [one] => one.clone(),
            many => format!("({})", many.join(" + ")),
        })
    }

    fn term(&mut self, coef: i64, factors: &[Atom]) -> Result<String, Reason> {
        let coef = number(coef)?;
        let mut parts = if coef == "1" && !factors.is_empty() { Vec::new() } else { vec![coef] };
        for factor in factors {
            parts.push(self.atom(factor)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { format!("({})", parts.join(" * ")) })
    }

    fn atom(&mut self, atom: &Atom) -> Result<String, Reason> {
        Ok(match atom {
            Atom::Symbol(symbol) => self.symbol(symbol)?,
            Atom::FloorDiv(a, b) if a.is_at_least(0) && b.is_at_least(1) => {
                format!("({} / {})", self.sum(a)?, self.sum(b)?)
            }
            Atom::FloorDiv(a, b) => {
                self.helper(Helper::FloorDiv);
                format!("floor_div({}, {})", self.sum(a)?, self.sum(b)?)
            }
            Atom::Max(a, b) => format!("max({}, {})", self.sum(a)?, self.sum(b)?),
            Atom::Min(a, b) => format!("min({}, {})", self.sum(a)?, self.sum(b)?),
        })
    }

    /// `offset + Σ index · stride`, without what is zero.
    pub(super) fn linear<'a>(
        &mut self,
        offset: &Dim,
        axes: impl IntoIterator<Item = (&'a Dim, &'a str)>,
    ) -> Result<String, Reason> {
        let mut parts = Vec::new();
        if offset.as_const() != Some(0) {
            parts.push(self.dim(offset)?);
        }
        for (stride, index) in axes {
            match stride.as_const() {
                Some(0) => {}
                Some(1) => parts.push(index.to_string()),
                _ => parts.push(format!("{index} * {}", self.dim(stride)?)),
            }
        }
        Ok(if parts.is_empty() { "0".into() } else { parts.join(" + ") })
    }

    /// Splits the flat index `flat` of a row-major space into one index per axis, named `prefix0`….
    pub(super) fn split(&mut self, flat: &str, dims: &[Dim], prefix: &str) -> Result<Vec<String>, Reason> {
        let names: Vec<String> = (0..dims.len()).map(|i| format!("{prefix}{i}")).collect();
        let mut rest = flat.to_string();
        for (axis, dim) in dims.iter().enumerate().rev() {
            let name = &names[axis];
            if axis == 0 {
                self.line(format!("let {name} = {rest};"));
                break;
            }
            let size = self.divisor(dim)?;
            self.line(format!("let {name}_above = {rest} / {size};"));
            self.line(format!("let {name} = {rest} - {name}_above * {size};"));
            rest = format!("{name}_above");
        }
        Ok(names)
    }
}

/// A number as an `i32` literal.
pub(super) fn number(value: i64) -> Result<String, Reason> {
    match i32::try_from(value) {
        Ok(i32::MIN) => Ok("(-2147483647 - 1)".into()),
        Ok(n) if n < 0 => Ok(format!("({n})")),
        Ok(n) => Ok(n.to_string()),
        Err(_) => Err(format!("{value} does not fit a 32-bit integer")),
    }
}

/// `dims / by`, rounded up, at least 1.
pub(super) fn groups(work: &Dim, by: i64) -> Result<Dim, Reason> {
    let groups = work.ceil_div(by).ok_or_else(|| format!("`{work}` cannot be divided by {by}"))?;
    Ok(groups.larger(&Dim::from(1)))
}

/// Names symbols by the order in which they are asked for, so that equal kernels over other symbols have equal text.
#[derive(Default)]
pub(super) struct SymbolNames {
    names: Vec<Symbol>,
}

impl SymbolNames {
    /// All names, with what they stand for.
    pub(super) fn named(&self) -> Vec<(String, Symbol)> {
        self.names.iter().enumerate().map(|(at, symbol)| (format!("s{at}"), symbol.clone())).collect()
    }

    /// The symbol's name, and whether it is new.
    pub(super) fn name(&mut self, symbol: &Symbol) -> (String, bool) {
        match self.names.iter().position(|s| s == symbol) {
            Some(at) => (format!("s{at}"), false),
            None => {
                self.names.push(symbol.clone());
                (format!("s{}", self.names.len() - 1), true)
            }
        }
    }
}

//! Sizes as tensors: constants where they are constant, otherwise computed in the file from the
//! dims of values, once per graph.

use eec_ir::dim::{Atom, Term};
use eec_ir::{Dim, Symbol, Tensor};

use super::super::error::ExportError;
use super::nodes::int;
use super::{Exporter, scope};

impl Exporter<'_> {
    /// The name of an i64 vector that holds `dims`.
    pub(super) fn sizes(&mut self, dims: &[Dim]) -> Result<String, ExportError> {
        if let Some(constants) = dims.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>() {
            return Ok(self.ints(constants));
        }
        let mut parts: Vec<String> = Vec::new();
        let mut constants: Vec<i64> = Vec::new();
        for dim in dims {
            match dim.as_const() {
                Some(c) => constants.push(c),
                None => {
                    if !constants.is_empty() {
                        parts.push(self.ints(std::mem::take(&mut constants)));
                    }
                    parts.push(self.size(dim)?);
                }
            }
        }
        if !constants.is_empty() {
            parts.push(self.ints(constants));
        }
        if let [one] = parts.as_slice() {
            return Ok(one.clone());
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(self.helper("Concat", &parts, vec![int("axis", 0)]))
    }

    /// The name of an i64 vector of one element that holds `dim`.
    fn size(&mut self, dim: &Dim) -> Result<String, ExportError> {
        if let Some(c) = dim.as_const() {
            return Ok(self.ints(vec![c]));
        }
        let level = scope::level(&self.scopes, dim).map_err(|symbol| self.unknown(&symbol))?;
        if let Some(name) = self.scopes[level].sizes.get(dim) {
            return Ok(name.clone());
        }
        let name = self.at_level(level, |this| match dim.as_symbol() {
            Some(symbol) => this.read_symbol(symbol),
            None => this.compute(dim),
        })?;
        self.scopes[level].sizes.insert(dim.clone(), name.clone());
        Ok(name)
    }

    /// The name of an i64 scalar that holds `dim`.
    pub(super) fn scalar_size(&mut self, dim: &Dim) -> Result<String, ExportError> {
        if let Some(c) = dim.as_const() {
            return Ok(self.tensor_name(&Tensor::scalar(c)));
        }
        let level = scope::level(&self.scopes, dim).map_err(|symbol| self.unknown(&symbol))?;
        if let Some(name) = self.scopes[level].scalars.get(dim) {
            return Ok(name.clone());
        }
        let vector = self.size(dim)?;
        let shape = self.ints(Vec::new());
        let name = self.at_level(level, |this| Ok(this.helper("Reshape", &[&vector, &shape], Vec::new())))?;
        self.scopes[level].scalars.insert(dim.clone(), name.clone());
        Ok(name)
    }

    /// Runs `f` with the graph at `level` as the innermost one. It is still open, so what `f`
    /// appends there comes before the control node whose branch is being written.
    fn at_level<T>(
        &mut self,
        level: usize,
        f: impl FnOnce(&mut Self) -> Result<T, ExportError>,
    ) -> Result<T, ExportError> {
        let inner = self.scopes.split_off(level + 1);
        let result = f(self);
        self.scopes.extend(inner);
        result
    }

    fn unknown(&self, symbol: &Symbol) -> ExportError {
        ExportError::UnknownSymbol { node: self.current.clone(), symbol: symbol.to_string() }
    }

    /// The name of a stored i64 vector.
    pub(super) fn ints(&mut self, values: Vec<i64>) -> String {
        self.tensor_name(&Tensor::vector(values))
    }

    fn compute(&mut self, dim: &Dim) -> Result<String, ExportError> {
        let mut sum: Option<String> = None;
        // Positive terms first, so that the others can be subtracted.
        let (positive, negative): (Vec<_>, Vec<_>) = dim.terms().iter().partition(|t| t.coef > 0);
        for term in positive.into_iter().chain(negative) {
            let factor = if sum.is_none() { term.coef } else { term.coef.saturating_abs() };
            let product = self.product(term, factor)?;
            sum = Some(match sum {
                None => product,
                Some(sum) => self.helper(if term.coef < 0 { "Sub" } else { "Add" }, &[&sum, &product], Vec::new()),
            });
        }
        Ok(sum.unwrap_or_else(|| self.ints(vec![0])))
    }

    fn product(&mut self, term: &Term, coef: i64) -> Result<String, ExportError> {
        let mut product = (coef != 1 || term.factors.is_empty()).then(|| self.ints(vec![coef]));
        for factor in &term.factors {
            let name = self.atom(factor)?;
            product = Some(match product {
                None => name,
                Some(product) => self.helper("Mul", &[&product, &name], Vec::new()),
            });
        }
        Ok(product.unwrap_or_default())
    }

    fn atom(&mut self, atom: &Atom) -> Result<String, ExportError> {
        match atom {
            Atom::Symbol(symbol) => self.size(&symbol.clone().into()),
            Atom::Max(a, b) => self.binary("Max", a, b),
            Atom::Min(a, b) => self.binary("Min", a, b),
            Atom::FloorDiv(a, b) if a.is_at_least(0) && b.is_at_least(0) => self.binary("Div", a, b),
            Atom::FloorDiv(a, b) => {
                // ONNX's Div truncates; its Mod has the divisor's sign, so this division is exact.
                let (a, b) = (self.size(a)?, self.size(b)?);
                let remainder = self.helper("Mod", &[&a, &b], Vec::new());
                let exact = self.helper("Sub", &[&a, &remainder], Vec::new());
                Ok(self.helper("Div", &[&exact, &b], Vec::new()))
            }
        }
    }

    fn binary(&mut self, op: &str, a: &Dim, b: &Dim) -> Result<String, ExportError> {
        let (a, b) = (self.size(a)?, self.size(b)?);
        Ok(self.helper(op, &[&a, &b], Vec::new()))
    }

    /// Reads a symbol off a value of the innermost open graph.
    fn read_symbol(&mut self, symbol: &Symbol) -> Result<String, ExportError> {
        let source = self.scopes.last().and_then(|s| s.source(symbol)).cloned();
        let (value, axis) = source.ok_or_else(|| self.unknown(symbol))?;
        Ok(self.helper("Shape", &[&value], vec![int("start", axis as i64), int("end", axis as i64 + 1)]))
    }
}

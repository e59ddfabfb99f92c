//! The parts of a statement that need no graph: types, dims, attribute values, constants' elements.

use super::cursor::{Cursor, Fail};
use super::lex::Kind;
use crate::attr::AttrValue;
use crate::dim::Dim;
use crate::op::{Op, OpError};
use crate::tensor::{Tensor, TensorError};
use crate::types::{DType, Type};

/// `max(max(…))` may be nested this deep.
const MAX_DEPTH: usize = 16;
/// Terms that one multiplication may give.
const MAX_TERMS: usize = 256;
/// An attribute as written: its name, and what its text can mean, the operator's table decides.
pub(super) struct Attr {
    name: String,
    meanings: Vec<AttrValue>,
}

impl Cursor<'_> {
    /// An element type's name.
    pub(super) fn dtype(&mut self) -> Result<DType, Fail> {
        let found = match self.kind() {
            Kind::Word(w) => DType::from_name(w),
            _ => None,
        };
        match found {
            Some(dtype) => {
                self.advance();
                Ok(dtype)
            }
            None => self.expected("an element type (f32, i64, i32, bool, …)"),
        }
    }

    /// `f32[batch, 4]`.
    pub(super) fn ty(&mut self) -> Result<Type, Fail> {
        let dtype = self.dtype()?;
        let offset = self.offset();
        let dims = self.list("[", "]", &mut |c| c.dim(0))?;
        let ty = Type::new(dtype, dims);
        if !ty.is_manageable() {
            return self.fail(offset, "the type has too many dims, or their expressions are too large");
        }
        Ok(ty)
    }

    /// A size: sums and products of numbers, symbols, `floordiv(a, b)`, `max(a, b)`, `min(a, b)`.
    pub(super) fn dim(&mut self, depth: usize) -> Result<Dim, Fail> {
        let offset = self.offset();
        let mut sum = Dim::default();
        let mut negative = self.eat("-");
        loop {
            sum = &sum + &self.product(negative, depth)?;
            if sum.parts() > Dim::MAX_PARTS {
                return self.fail(offset, format!("the expression has more than {} parts", Dim::MAX_PARTS));
            }
            negative = self.is("-");
            if !(self.eat("+") || self.eat("-")) {
                return Ok(sum);
            }
        }
    }

    fn product(&mut self, negative: bool, depth: usize) -> Result<Dim, Fail> {
        let offset = self.offset();
        let mut product = match self.kind() {
            Kind::Number(_) => self.integer(negative)?.into(),
            _ if negative => &self.factor(depth)? * &Dim::from(-1),
            _ => self.factor(depth)?,
        };
        while self.eat("*") {
            let factor = self.factor(depth)?;
            let terms = product.terms().len().saturating_mul(factor.terms().len());
            if terms > MAX_TERMS || product.parts() > Dim::MAX_PARTS {
                return self.fail(offset, "the expression is too large");
            }
            product = &product * &factor;
        }
        Ok(product)
    }

    fn factor(&mut self, depth: usize) -> Result<Dim, Fail> {
        let offset = self.offset();
        let dim = match self.kind().clone() {
            Kind::Number(_) => return Ok(self.integer(false)?.into()),
            Kind::Quoted(name) => Dim::symbol(&name),
            Kind::Word(name) if !matches!(name.as_str(), "max" | "min" | "floordiv") => Dim::symbol(&name),
            Kind::Word(function) => return self.function(&function, depth),
            _ => return self.expected("a size: a number, a symbol, floordiv(…), max(…) or min(…)"),
        };
        if dim.as_symbol().is_some_and(|s| s.as_str().is_empty()) {
            return self.fail(offset, "a symbol's name must not be empty");
        }
        self.advance();
        Ok(dim)
    }

    fn function(&mut self, name: &str, depth: usize) -> Result<Dim, Fail> {
        let offset = self.offset();
        if depth >= MAX_DEPTH {
            return self.fail(offset, format!("expressions may be nested {MAX_DEPTH} deep"));
        }
        self.advance();
        self.expect("(")?;
        let a = self.dim(depth + 1)?;
        self.expect(",")?;
        let b = self.dim(depth + 1)?;
        self.expect(")")?;
        match name {
            "max" => Ok(a.larger(&b)),
            "min" => Ok(a.smaller(&b)),
            _ => match a.floor_div(&b) {
                Some(dim) => Ok(dim),
                None => self.fail(offset, "division by zero"),
            },
        }
    }

    fn integer(&mut self, negative: bool) -> Result<i64, Fail> {
        let Kind::Number(digits) = self.kind() else {
            return self.expected("an integer");
        };
        let text = format!("{}{digits}", if negative { "-" } else { "" });
        match text.parse() {
            Ok(value) => {
                self.advance();
                Ok(value)
            }
            Err(_) => self.expected("a 64-bit integer"),
        }
    }

    /// A float with its sign, `inf` and `nan` included; `None` and no move if none stands here.
    /// Integers count where `integers` says so. `nan#7fc00001` gives a NaN's bits.
    pub(super) fn float(&mut self, integers: bool) -> Option<f32> {
        let start = self.position();
        let negative = self.eat("-");
        let magnitude = match self.kind() {
            Kind::Number(n) if integers || n.contains(['.', 'e', 'E']) => {
                n.parse().ok().filter(|v: &f32| v.is_finite())
            }
            Kind::Word(w) if w == "inf" => Some(f32::INFINITY),
            Kind::Word(w) if w == "nan" || w == "NaN" => Some(f32::NAN),
            _ => None,
        };
        let Some(magnitude) = magnitude else {
            self.rewind(start);
            return None;
        };
        self.advance();
        if let (true, Kind::Hash(bits)) = (magnitude.is_nan(), self.kind()) {
            let value = u32::from_str_radix(bits, 16).ok().map(f32::from_bits).filter(|v| v.is_nan());
            match value {
                Some(_) => self.advance(),
                None => self.rewind(start),
            }
            return value;
        }
        Some(if negative { -magnitude } else { magnitude })
    }

    /// `{axis=-1, keepdims=0}`.
    pub(super) fn attributes(&mut self) -> Result<Vec<Attr>, Fail> {
        self.list("{", "}", &mut |c| {
            let name = c.word("an attribute's name")?;
            c.expect("=")?;
            Ok(Attr { name, meanings: c.meanings()? })
        })
    }

    /// What an attribute's value can mean; which it is depends on the attribute's type.
    fn meanings(&mut self) -> Result<Vec<AttrValue>, Fail> {
        if self.is("[") {
            let dims = self.list("[", "]", &mut |c| c.dim(0))?;
            let ints: Option<Vec<i64>> = dims.iter().map(Dim::as_const).collect();
            return Ok(vec![ints.map_or(AttrValue::Dims(dims), AttrValue::Ints)]);
        }
        let start = self.position();
        let number = matches!(self.kind_ahead(usize::from(self.is("-"))), Kind::Number(_));
        let float = self.float(false).map(AttrValue::Float);
        if let (Some(float), true) = (&float, number) {
            return Ok(vec![float.clone()]);
        }
        self.rewind(start);
        let mut meanings: Vec<_> = float.into_iter().collect();
        let word = match self.kind() {
            Kind::Word(w) => Some(w.clone()),
            _ => None,
        };
        // `max` and `min` are functions of sizes only before a parenthesis.
        let function = matches!(self.kind_ahead(1), Kind::Punct("("));
        if let Some(word) = word.as_ref().filter(|w| matches!(w.as_str(), "max" | "min") && !function) {
            self.advance();
            return Ok(vec![AttrValue::Word(word.clone())]);
        }
        meanings.extend(word.as_deref().and_then(DType::from_name).map(AttrValue::DType));
        let dim = self.dim(0)?;
        let plain = dim.as_symbol().is_some_and(|s| Some(s.as_str()) == word.as_deref());
        meanings.push(dim.as_const().map_or(AttrValue::Dim(dim), AttrValue::Int));
        if let Some(word) = word.filter(|_| plain) {
            let truth = ["false", "true"].iter().position(|t| *t == word);
            meanings.extend(truth.map(|t| AttrValue::Int(t as i64)));
            meanings.push(AttrValue::Word(word));
        }
        Ok(meanings)
    }

    /// The elements of a constant: `{1.0, -2.5}`.
    pub(super) fn elements(&mut self, dtype: DType, dims: &[usize]) -> Result<Tensor, Fail> {
        let offset = self.offset();
        let tensor: Result<Tensor, TensorError> = match dtype {
            DType::F32 => self.list("{", "}", &mut Cursor::float_element).map(|v| Tensor::new(dims, v))?,
            DType::I64 => self.list("{", "}", &mut Cursor::signed).map(|v| Tensor::new(dims, v))?,
            DType::I32 => self.list("{", "}", &mut Cursor::small).map(|v| Tensor::new(dims, v))?,
            DType::Bool => self.list("{", "}", &mut Cursor::truth).map(|v| Tensor::new(dims, v))?,
            other => return self.fail(offset, format!("constants of {other} stand as hashes")),
        };
        tensor.or_else(|e| self.fail(offset, e.to_string()))
    }

    fn float_element(&mut self) -> Result<f32, Fail> {
        match self.float(true) {
            Some(v) => Ok(v),
            None => self.expected("an f32"),
        }
    }

    /// An integer with its sign.
    pub(super) fn signed(&mut self) -> Result<i64, Fail> {
        let negative = self.eat("-");
        self.integer(negative)
    }

    fn small(&mut self) -> Result<i32, Fail> {
        let offset = self.offset();
        let value = self.signed()?;
        i32::try_from(value).or_else(|_| self.fail(offset, format!("expected a 32-bit integer, found {value}")))
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self) -> Result<u8, Fail> {
        let value = if self.is_word("true") { 1 } else { 0 };
        if value == 1 || self.is_word("false") {
            self.advance();
            return Ok(value);
        }
        self.expected("`true` or `false`")
    }
}

/// The operator `name` with `attrs`, each taken in the first of its meanings that its type allows.
pub(super) fn operator(name: &str, mut attrs: Vec<Attr>) -> Result<Op, OpError> {
    let mut chosen: Vec<(String, AttrValue)> = Vec::new();
    for a in &mut attrs {
        a.meanings.reverse();
        chosen.extend(a.meanings.pop().map(|v| (a.name.clone(), v)));
    }
    loop {
        let outcome = Op::from_attributes(name, &chosen);
        let Err(OpError::WrongAttribute { attr, .. }) = &outcome else {
            return outcome;
        };
        let next = attrs.iter_mut().find(|a| a.name == *attr).and_then(|a| a.meanings.pop());
        let (Some(next), Some(slot)) = (next, chosen.iter_mut().find(|(n, _)| n == attr)) else {
            return outcome;
        };
        slot.1 = next;
    }
}

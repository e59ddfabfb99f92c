//! Attribute values of operators, in the one form that text, import and export share.

use std::fmt;

use crate::dim::Dim;
use crate::precision::Precision;
use crate::types::DType;

/// An attribute's value.
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub enum AttrValue {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// Integers.
    Ints(Vec<i64>),
    /// A word: an enumerated choice such as a padding mode.
    Word(String),
    /// An element type.
    DType(DType),
    /// A symbolic size.
    Dim(Dim),
    /// Symbolic sizes.
    Dims(Vec<Dim>),
}

impl fmt::Display for AttrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
            f.write_str("[")?;
            for (i, x) in items.iter().enumerate() {
                write!(f, "{}{x}", if i > 0 { ", " } else { "" })?;
            }
            f.write_str("]")
        }
        match self {
            AttrValue::Int(v) => write!(f, "{v}"),
            AttrValue::Float(v) => write!(f, "{v:?}"),
            AttrValue::Ints(v) => list(f, v),
            AttrValue::Word(v) => f.write_str(v),
            AttrValue::DType(v) => write!(f, "{v}"),
            AttrValue::Dim(v) => write!(f, "{v}"),
            AttrValue::Dims(v) => list(f, v),
        }
    }
}

/// A Rust type that can be an operator's attribute.
pub trait Attribute: Sized {
    /// The value in common form.
    fn to_value(&self) -> AttrValue;
    /// From the common form; an integer is also a dim, an empty list is a list of anything.
    fn from_value(value: &AttrValue) -> Option<Self>;
    /// Replaces every dim inside by `f(dim)`.
    fn map_dims(&mut self, _f: &mut dyn FnMut(&Dim) -> Dim) {}
}

impl Attribute for i64 {
    fn to_value(&self) -> AttrValue {
        AttrValue::Int(*self)
    }
    fn from_value(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Int(v) => Some(*v),
            AttrValue::Dim(d) => d.as_const(),
            _ => None,
        }
    }
}

impl Attribute for bool {
    fn to_value(&self) -> AttrValue {
        AttrValue::Int(i64::from(*self))
    }
    fn from_value(value: &AttrValue) -> Option<Self> {
        match i64::from_value(value)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Attribute for f32 {
    fn to_value(&self) -> AttrValue {
        AttrValue::Float(*self)
    }
    fn from_value(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Float(v) => Some(*v),
            AttrValue::Int(v) => Some(*v as f32),
            _ => None,
        }
    }
}

impl Attribute for DType {
    fn to_value(&self) -> AttrValue {
        AttrValue::DType(*self)
    }
    fn from_value(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::DType(v) => Some(*v),
            AttrValue::Word(w) => DType::from_name(w),
            _ => None,
        }
    }
}

impl Attribute for Precision {
    fn to_value(&self) -> AttrValue {
        AttrValue::Word(self.name().to_string())
    }
    fn from_value(value: &AttrValue) -> Option<Self> {
        let AttrValue::Word(word) = value else { return None };
        Precision::from_name(word)
    }
}

/// How a scattered update meets the element that stands at its position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Combine {
    /// It replaces it.
    None,
    /// Sum.
    Add,
    /// Product.
    Mul,
    /// The larger.
    Max,
    /// The smaller.
    Min,
}

impl Combine {
    const WORDS: [(Combine, &str); 5] = [
        (Combine::None, "none"),
        (Combine::Add, "add"),
        (Combine::Mul, "mul"),
        (Combine::Max, "max"),
        (Combine::Min, "min"),
    ];

    /// The word for it in the text form and in ONNX.
    pub fn word(self) -> &'static str {
        Combine::WORDS.iter().find(|(c, _)| *c == self).map_or("", |(_, word)| word)
    }

    /// What the word stands for.
    pub fn from_word(word: &str) -> Option<Combine> {
        Combine::WORDS.iter().find(|(_, w)| *w == word).map(|(c, _)| *c)
    }
}

impl Attribute for Combine {
    fn to_value(&self) -> AttrValue {
        AttrValue::Word(self.word().to_string())
    }
    fn from_value(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Word(word) => Combine::from_word(word),
            _ => None,
        }
    }
}

impl Attribute for Vec<i64> {
    fn to_value(&self) -> AttrValue {
        AttrValue::Ints(self.clone())
    }
    fn from_value(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Ints(v) => Some(v.clone()),
            AttrValue::Dims(v) => v.iter().map(Dim::as_const).collect(),
            _ => None,
        }
    }
}

impl Attribute for Dim {
    fn to_value(&self) -> AttrValue {
        AttrValue::Dim(self.clone())
    }
    fn from_value(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Dim(v) => Some(v.clone()),
            AttrValue::Int(v) => Some((*v).into()),
            _ => None,
        }
    }
    fn map_dims(&mut self, f: &mut dyn FnMut(&Dim) -> Dim) {
        *self = f(self);
    }
}

impl Attribute for Vec<Dim> {
    fn to_value(&self) -> AttrValue {
        AttrValue::Dims(self.clone())
    }
    fn from_value(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Dims(v) => Some(v.clone()),
            AttrValue::Ints(v) => Some(v.iter().map(|x| (*x).into()).collect()),
            _ => None,
        }
    }
    fn map_dims(&mut self, f: &mut dyn FnMut(&Dim) -> Dim) {
        self.iter_mut().for_each(|d| *d = f(d));
    }
}

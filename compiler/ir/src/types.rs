//! Element types and tensor types.

use std::fmt;

use crate::dim::Dim;

/// The type of a tensor's elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub enum DType {
    /// 32-bit IEEE float.
    F32,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// Boolean, one byte, 0 or 1.
    Bool,
}

impl DType {
    /// Every element type.
    pub const ALL: [DType; 4] = [DType::F32, DType::I64, DType::I32, DType::Bool];

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::I64 => 8,
            DType::Bool => 1,
        }
    }

    /// The name in the text form and in messages.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::Bool => "bool",
        }
    }

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Whether values are integers (bool excluded).
    pub fn is_int(self) -> bool {
        matches!(self, DType::I64 | DType::I32)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor's element type and dims, outermost first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Dims; empty for a scalar.
    pub dims: Vec<Dim>,
}

impl Type {
    /// A tensor type.
    pub fn new(dtype: DType, dims: impl IntoIterator<Item = Dim>) -> Self {
        Type { dtype, dims: dims.into_iter().collect() }
    }

    /// The number of dims.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The number of elements.
    pub fn elements(&self) -> Dim {
        Dim::product(&self.dims)
    }

    /// Whether the dims' expressions, and their product, are small enough to work with. Only types
    /// made to exhaust memory are not.
    pub fn is_manageable(&self) -> bool {
        const MAX_RANK: usize = 64;
        const MAX_TERMS: usize = 4096;
        let terms = self.dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.terms().len().max(1)));
        self.rank() <= MAX_RANK
            && terms.is_some_and(|t| t <= MAX_TERMS)
            && self.dims.iter().all(|d| d.parts() <= Dim::MAX_PARTS)
    }

    /// The dims as constants, if all are.
    pub fn const_dims(&self) -> Option<Vec<i64>> {
        self.dims.iter().map(Dim::as_const).collect()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.dims.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}

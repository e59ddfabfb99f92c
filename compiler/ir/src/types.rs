//! Element types and tensor types.

use std::fmt;

use crate::dim::Dim;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $size:literal $class:ident;)*) => {
        /// The type of a tensor's elements.
        ///
        /// Types of less than 8 bits take a whole byte per element; it holds their bits, integers sign-extended.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
        pub enum DType {
            $($(#[$doc])* $variant,)*
        }

        impl DType {
            /// Every element type.
            pub const ALL: &[DType] = &[$(DType::$variant),*];

            /// Bytes per element.
            pub fn size(self) -> usize {
                match self { $(DType::$variant => $size,)* }
            }

            /// The name in the text form and in messages.
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }

            /// What its values are.
            pub fn class(self) -> Class {
                match self { $(DType::$variant => Class::$class,)* }
            }
        }
    };
}

/// What the values of an element type are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Floating-point numbers.
    Float,
    /// Integers that may be negative.
    Signed,
    /// Integers that are not negative.
    Unsigned,
    /// Truth values.
    Bool,
}

dtypes! {
    /// 32-bit IEEE float.
    F32 "f32" 4 Float;
    /// 64-bit signed integer.
    I64 "i64" 8 Signed;
    /// 32-bit signed integer.
    I32 "i32" 4 Signed;
    /// Boolean, one byte, 0 or 1.
    Bool "bool" 1 Bool;
    /// 64-bit IEEE float.
    F64 "f64" 8 Float;
    /// 16-bit IEEE float.
    F16 "f16" 2 Float;
    /// The upper half of an F32.
    BF16 "bf16" 2 Float;
    /// 8-bit signed integer.
    I8 "i8" 1 Signed;
    /// 16-bit signed integer.
    I16 "i16" 2 Signed;
    /// 8-bit unsigned integer.
    U8 "u8" 1 Unsigned;
    /// 16-bit unsigned integer.
    U16 "u16" 2 Unsigned;
    /// 32-bit unsigned integer.
    U32 "u32" 4 Unsigned;
    /// 64-bit unsigned integer.
    U64 "u64" 8 Unsigned;
    /// 8-bit float, 4 bits of exponent, NaN but no infinity.
    F8E4M3FN "f8e4m3fn" 1 Float;
    /// 8-bit float, 4 bits of exponent, one NaN, no infinity and no negative zero.
    F8E4M3FNUZ "f8e4m3fnuz" 1 Float;
    /// 8-bit IEEE float, 5 bits of exponent.
    F8E5M2 "f8e5m2" 1 Float;
    /// 8-bit float, 5 bits of exponent, one NaN, no infinity and no negative zero.
    F8E5M2FNUZ "f8e5m2fnuz" 1 Float;
    /// Power of two, 8 bits of exponent alone, one NaN.
    F8E8M0 "f8e8m0" 1 Float;
    /// 4-bit float, 2 bits of exponent, neither NaN nor infinity.
    F4E2M1 "f4e2m1" 1 Float;
    /// 4-bit signed integer.
    I4 "i4" 1 Signed;
    /// 4-bit unsigned integer.
    U4 "u4" 1 Unsigned;
    /// 2-bit signed integer.
    I2 "i2" 1 Signed;
    /// 2-bit unsigned integer.
    U2 "u2" 1 Unsigned;
}

impl DType {
    /// The type with this name.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.iter().copied().find(|d| d.name() == name)
    }

    /// Whether values are integers (bool excluded).
    pub fn is_int(self) -> bool {
        matches!(self.class(), Class::Signed | Class::Unsigned)
    }

    /// Whether values are floating-point numbers.
    pub fn is_float(self) -> bool {
        self.class() == Class::Float
    }

    /// Bits that carry a value.
    pub fn bits(self) -> u32 {
        match self {
            DType::F4E2M1 | DType::I4 | DType::U4 => 4,
            DType::I2 | DType::U2 => 2,
            _ => 8 * self.size() as u32,
        }
    }

    /// The least and the largest value of an integer or boolean type.
    pub fn integer_range(self) -> Option<(i128, i128)> {
        match self.class() {
            Class::Float => None,
            Class::Bool => Some((0, 1)),
            Class::Signed => Some((-(1 << (self.bits() - 1)), (1 << (self.bits() - 1)) - 1)),
            Class::Unsigned => Some((0, (1 << self.bits()) - 1)),
        }
    }

    /// Whether loops are compiled for arithmetic on such values; others are only moved by compiled code.
    pub fn is_compiled(self) -> bool {
        matches!(self, DType::F32 | DType::I64 | DType::I32 | DType::Bool)
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

//! Tensors with known dims: constants, evaluator values, inputs and outputs of a run.
//!
//! Bytes are shared and may live anywhere: owned by the tensor or inside a mapped file.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::number::is_code;
use crate::types::{DType, Type};

/// Bytes that a tensor may borrow from: a vector, a mapped file, an artifact.
pub type Storage = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A dense row-major tensor, little-endian.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    dims: Vec<usize>,
    storage: Storage,
    offset: usize,
}

/// A Rust type that is a tensor element.
pub trait Element: bytemuck::Pod + Send + Sync + PartialEq + fmt::Debug {
    /// Its element type.
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for i64 {
    const DTYPE: DType = DType::I64;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}
impl Element for u8 {
    const DTYPE: DType = DType::Bool;
}

/// Why a tensor could not be made from its parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The dims multiply to more than memory can address.
    #[error("dims {0:?} are too large")]
    TooLarge(Vec<usize>),
    /// The data does not have as many bytes as the dims ask for.
    #[error("{dtype}{dims:?} needs {expected} bytes, found {found}")]
    WrongLength {
        /// Element type.
        dtype: DType,
        /// Dims.
        dims: Vec<usize>,
        /// Bytes that dtype and dims ask for.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A boolean byte is neither 0 nor 1.
    #[error("a bool must be 0 or 1, found {0}")]
    NotBool(u8),
    /// A byte stands for no value of a type of less than 8 bits.
    #[error("{1} is no value of {0}")]
    NotCode(DType, u8),
}

struct Owned<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

fn byte_length(dtype: DType, dims: &[usize]) -> Result<usize, TensorError> {
    let bytes = dims.iter().try_fold(dtype.size(), |acc, d| acc.checked_mul(*d));
    bytes.filter(|b| isize::try_from(*b).is_ok()).ok_or_else(|| TensorError::TooLarge(dims.to_vec()))
}

impl Tensor {
    /// A tensor that owns `data`.
    pub fn new<T: Element>(dims: &[usize], data: Vec<T>) -> Result<Tensor, TensorError> {
        let found = data.len() * T::DTYPE.size();
        Tensor::checked(T::DTYPE, dims, found)?;
        check_codes(T::DTYPE, bytemuck::cast_slice(&data))?;
        Ok(Tensor { dtype: T::DTYPE, dims: dims.to_vec(), storage: Arc::new(Owned(data)), offset: 0 })
    }

    /// A tensor over the bytes of `storage` that start at `offset`; nothing is copied.
    pub fn from_storage(dtype: DType, dims: &[usize], storage: Storage, offset: usize) -> Result<Tensor, TensorError> {
        let expected = byte_length(dtype, dims)?;
        let available = (*storage).as_ref().len().saturating_sub(offset);
        if available < expected {
            return Err(TensorError::WrongLength { dtype, dims: dims.to_vec(), expected, found: available });
        }
        let tensor = Tensor { dtype, dims: dims.to_vec(), storage, offset };
        check_codes(dtype, tensor.bytes())?;
        Ok(tensor)
    }

    /// A tensor that owns little-endian `bytes`.
    pub fn from_bytes(dtype: DType, dims: &[usize], bytes: Vec<u8>) -> Result<Tensor, TensorError> {
        Tensor::checked(dtype, dims, bytes.len())?;
        Tensor::from_storage(dtype, dims, Arc::new(bytes), 0)
    }

    fn checked(dtype: DType, dims: &[usize], found: usize) -> Result<(), TensorError> {
        let expected = byte_length(dtype, dims)?;
        if expected == found {
            return Ok(());
        }
        Err(TensorError::WrongLength { dtype, dims: dims.to_vec(), expected, found })
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor { dtype: T::DTYPE, dims: Vec::new(), storage: Arc::new(Owned(vec![value])), offset: 0 }
    }

    /// A rank-1 tensor.
    pub fn vector<T: Element>(data: Vec<T>) -> Tensor {
        Tensor { dtype: T::DTYPE, dims: vec![data.len()], storage: Arc::new(Owned(data)), offset: 0 }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dims, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type, with constant dims.
    pub fn ty(&self) -> Type {
        Type::new(self.dtype, self.dims.iter().map(|d| (*d as i64).into()))
    }

    /// The elements as little-endian bytes.
    pub fn bytes(&self) -> &[u8] {
        let all: &[u8] = (*self.storage).as_ref();
        &all[self.offset..self.offset + self.len() * self.dtype.size()]
    }

    /// The elements, if their type is `T`; copied only where the bytes are not aligned for `T`.
    pub fn elements<T: Element>(&self) -> Option<Cow<'_, [T]>> {
        if T::DTYPE != self.dtype {
            return None;
        }
        Some(match bytemuck::try_cast_slice(self.bytes()) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::allocation::pod_collect_to_vec(self.bytes())),
        })
    }

    /// Rows `from..to` of axis 0, sharing the bytes; both are clamped to the rows there are.
    pub fn rows(&self, from: usize, to: usize) -> Tensor {
        let Some((rows, rest)) = self.dims.split_first() else {
            return self.clone();
        };
        let (to, row) = (to.min(*rows), rest.iter().product::<usize>() * self.dtype.size());
        let from = from.min(to);
        let dims = std::iter::once(to - from).chain(rest.iter().copied()).collect();
        Tensor { dims, offset: self.offset + from * row, ..self.clone() }
    }

    /// A copy of these rows of axis 0, in this order; those that there are not are left out.
    pub fn select_rows(&self, rows: &[usize]) -> Tensor {
        let Some((count, rest)) = self.dims.split_first() else {
            return self.clone();
        };
        let row = rest.iter().product::<usize>() * self.dtype.size();
        let kept: Vec<usize> = rows.iter().copied().filter(|r| r < count).collect();
        let bytes: Vec<u8> = kept.iter().flat_map(|r| &self.bytes()[r * row..(r + 1) * row]).copied().collect();
        let dims: Vec<usize> = std::iter::once(kept.len()).chain(rest.iter().copied()).collect();
        // The bytes are those of whole rows of a valid tensor.
        Tensor::from_bytes(self.dtype, &dims, bytes).unwrap_or_else(|_| self.rows(0, 0))
    }

    /// The same elements under other dims of the same size.
    pub fn reshaped(&self, dims: &[usize]) -> Result<Tensor, TensorError> {
        Tensor::checked(self.dtype, dims, self.bytes().len())?;
        Ok(Tensor { dims: dims.to_vec(), ..self.clone() })
    }
}

fn check_codes(dtype: DType, bytes: &[u8]) -> Result<(), TensorError> {
    if dtype.bits() == 8 && dtype != DType::Bool || dtype.size() > 1 {
        return Ok(());
    }
    match bytes.iter().find(|b| !is_code(dtype, **b)) {
        None => Ok(()),
        Some(b) if dtype == DType::Bool => Err(TensorError::NotBool(*b)),
        Some(b) => Err(TensorError::NotCode(dtype, *b)),
    }
}

impl PartialEq for Tensor {
    /// Equal type and equal bytes: bit-exact, so NaN equals itself and -0 differs from 0.
    fn eq(&self, other: &Tensor) -> bool {
        self.dtype == other.dtype && self.dims == other.dims && self.bytes() == other.bytes()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.dims)
    }
}

//! Tensors whose element type and rank are known when a program is built: what generated code takes and
//! gives.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use eec_ir::Tensor;
use eec_ir::tensor::{Element, TensorError};

use crate::error::{Error, ErrorKind};

/// A dense row-major tensor of `RANK` dims with elements of type `T`; truth values are bytes, 0 or 1.
///
/// ```
/// use eec_runtime::Array;
///
/// let a = Array::new([2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!(a.dims(), [2, 3]);
/// assert_eq!(a.elements()[3], 4.0);
/// assert!(Array::new([2, 2], vec![1i64; 3]).is_err());
/// # Ok::<(), eec_runtime::TensorError>(())
/// ```
#[derive(Clone)]
pub struct Array<T, const RANK: usize> {
    tensor: Tensor,
    element: PhantomData<T>,
}

impl<T: Element, const RANK: usize> Array<T, RANK> {
    /// An array of these dims.
    ///
    /// Fails if there are not as many elements as the dims ask for.
    pub fn new(dims: [usize; RANK], elements: Vec<T>) -> Result<Self, TensorError> {
        Ok(Array { tensor: Tensor::new(&dims, elements)?, element: PhantomData })
    }

    /// The dims, outermost first.
    pub fn dims(&self) -> [usize; RANK] {
        std::array::from_fn(|axis| self.tensor.dims()[axis])
    }

    /// The elements, the last dim innermost; copied only where they are not aligned in memory.
    pub fn elements(&self) -> Cow<'_, [T]> {
        self.tensor.elements().unwrap_or_default()
    }

    /// The same without the types.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }
}

impl<T: Element, const RANK: usize> TryFrom<Tensor> for Array<T, RANK> {
    type Error = Error;

    fn try_from(tensor: Tensor) -> Result<Self, Error> {
        if tensor.dtype() == T::DTYPE && tensor.dims().len() == RANK {
            return Ok(Array { tensor, element: PhantomData });
        }
        let why = format!("expected {} of rank {RANK}, found {}", T::DTYPE, tensor.ty());
        Err(Error::new(ErrorKind::Output, "tensor", why))
    }
}

impl<T: Element, const RANK: usize> fmt::Debug for Array<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.tensor, f)
    }
}

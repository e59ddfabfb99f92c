//! eec-runtime

mod kernels;
mod pool;

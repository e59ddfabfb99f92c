//! eec

pub mod fit;

//! eec

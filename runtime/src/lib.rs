//! eec-runtime

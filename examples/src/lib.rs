//! eec-examples

//! eec-tests

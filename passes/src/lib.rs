//! eec-passes

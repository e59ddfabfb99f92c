//! The pass against per-token references: extremes, every rule, and exits on top.

//! The compiled form.

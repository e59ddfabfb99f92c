//! How long work reports where it is, without the library knowing about terminals.

/// Receives the progress of named stages.
pub trait Progress {
    /// A stage of `total` steps begins.
    fn begin(&self, stage: &str, total: usize);
    /// `steps` more steps of the current stage are done.
    fn advance(&self, steps: usize);
    /// The current stage is over.
    fn end(&self);
}

/// Reports nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _stage: &str, _total: usize) {}
    fn advance(&self, _steps: usize) {}
    fn end(&self) {}
}

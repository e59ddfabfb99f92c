//! Runs a program over a dataset and keeps its outputs.

use eec_ir::Tensor;
use eec_runtime::{Control, Runner};

use crate::Error;
use crate::dataset::Dataset;
use crate::progress::Progress;

/// Rows per run: large enough for full speed, small enough for the caches of small machines.
pub const BATCH: usize = 32;

/// One output over all rows.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Elements per row.
    pub width: usize,
    /// Float elements, `[rows, width]`; empty for an integer output.
    pub floats: Vec<f32>,
    /// Integer elements, `[rows, width]`; empty for a float output.
    pub ints: Vec<i64>,
}

impl Column {
    fn append(&mut self, name: &str, tensor: &Tensor) {
        self.name = name.to_string();
        self.width = tensor.dims().iter().skip(1).product();
        if let Some(values) = tensor.elements::<f32>() {
            self.floats.extend_from_slice(&values);
        } else if let Some(values) = tensor.to_i64s() {
            self.ints.extend(values);
        }
    }

    /// The float elements of `rows` as a tensor `[rows, width]`.
    pub fn select(&self, rows: &[usize]) -> Result<Tensor, Error> {
        let elements: Vec<f32> = rows.iter().flat_map(|r| self.row(*r)).copied().collect();
        Tensor::new(&[rows.len(), self.width], elements).map_err(Error::request)
    }

    /// The float elements of a row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.floats[row * self.width..(row + 1) * self.width]
    }
}

/// What a pass over the data gives.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// One per output.
    pub columns: Vec<Column>,
    /// Multiply-accumulates executed.
    pub macs: u64,
    /// Rows that left, per exit; the last counts those that ran to the end.
    pub exit_rows: Vec<u64>,
}

impl Captured {
    /// The output called `name`.
    pub fn column(&self, name: &str) -> Result<&Column, Error> {
        let found = self.columns.iter().find(|c| c.name == name);
        found.ok_or_else(|| Error::request(format!("the program has no output `{name}`")))
    }
}

/// Runs all rows of `data`, `batch` at a time.
pub fn capture(
    session: &mut dyn Runner,
    data: &Dataset,
    batch: usize,
    control: Control,
    stage: &str,
    progress: &dyn Progress,
) -> Result<Captured, Error> {
    let mut out = Captured::default();
    progress.begin(stage, data.rows);
    for from in (0..data.rows).step_by(batch.max(1)) {
        let to = (from + batch.max(1)).min(data.rows);
        let run = session.run(&data.batch(from, to), control)?;
        out.columns.resize_with(run.outputs.len(), Column::default);
        for (column, (name, tensor)) in out.columns.iter_mut().zip(&run.outputs) {
            column.append(name, tensor);
        }
        out.macs += run.counters.macs;
        let left: u64 = run.counters.exit_rows.iter().sum();
        let rows = run.counters.exit_rows.iter().copied().chain([(to - from) as u64 - left]);
        out.exit_rows.resize(run.counters.exit_rows.len() + 1, 0);
        out.exit_rows.iter_mut().zip(rows).for_each(|(sum, n)| *sum += n);
        progress.advance(to - from);
    }
    progress.end();
    Ok(out)
}

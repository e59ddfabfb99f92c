//! Data with labels by input name, checked against a model before anything runs.

use std::path::Path;

use eec_ir::minifloat::Overflow;
use eec_ir::{DType, Graph, Tensor};

use crate::Error;
use crate::npz::{self, Arrays};

/// What `labels` is called in a data file.
pub const LABELS: &str = "labels";

/// Rows of inputs, with labels if the file has them.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// For people: the file's name.
    pub name: String,
    /// One tensor per model input, in the model's order; axis 0 is the row.
    pub inputs: Vec<(String, Tensor)>,
    /// The true class per row, or per token of every row; negative where a token does not count.
    pub labels: Option<Vec<i64>>,
    /// The number of rows.
    pub rows: usize,
}

/// Why a data file does not fit a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct DatasetError {
    file: String,
    reason: String,
}

impl Dataset {
    /// Reads an `.npz` file for a model; see [`Dataset::new`].
    pub fn open(path: &Path, graph: &Graph) -> Result<Dataset, Error> {
        Ok(Dataset::new(path, &npz::read_npz(path)?, graph)?)
    }

    /// Checks named arrays against a model's inputs.
    ///
    /// # Errors
    ///
    /// Missing or unknown names (all at once), wrong element types or ranks, dims that contradict
    /// the model's, arrays of different lengths, floats that are not finite, labels that are not
    /// one class per row (per token, for a model that scores tokens).
    pub fn new(path: &Path, arrays: &Arrays, graph: &Graph) -> Result<Dataset, DatasetError> {
        let fail = |reason: String| DatasetError { file: path.display().to_string(), reason };
        let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        let wanted: Vec<&str> = graph.inputs().iter().filter_map(|v| graph.value(*v).name.as_deref()).collect();
        check_names(&wanted, arrays).map_err(fail)?;
        let find = |name: &str| arrays.get(name).cloned();
        let mut inputs = Vec::with_capacity(wanted.len());
        for (name, value) in wanted.iter().zip(graph.inputs()) {
            let tensor = find(name).ok_or_else(|| fail(format!("no array `{name}`")))?;
            let tensor = fitted(tensor, graph.ty(*value).dtype);
            check_type(name, &tensor, graph.ty(*value)).map_err(fail)?;
            check_finite(name, &tensor).map_err(fail)?;
            inputs.push(((*name).to_string(), tensor));
        }
        let rows = common_rows(&inputs).map_err(fail)?;
        let labels = find(LABELS).map(|t| check_labels(&t, rows, &Scores::of(graph))).transpose().map_err(fail)?;
        Ok(Dataset { name, inputs, labels, rows })
    }

    /// The inputs of rows `from..to`.
    pub fn batch(&self, from: usize, to: usize) -> Vec<(&str, Tensor)> {
        self.inputs.iter().map(|(name, t)| (name.as_str(), t.rows(from, to))).collect()
    }

    /// The labels of row `row`.
    pub fn labels_of(&self, row: usize) -> Option<&[i64]> {
        let labels = self.labels.as_deref()?;
        let width = labels.len() / self.rows.max(1);
        labels.get(row * width..(row + 1) * width)
    }

    /// Only these rows, in this order.
    pub fn select(&self, rows: &[usize]) -> Dataset {
        let inputs = self.inputs.iter().map(|(name, t)| (name.clone(), t.select_rows(rows))).collect();
        let labels = self.labels.is_some().then(|| rows.iter().filter_map(|r| self.labels_of(*r)).flatten().copied());
        Dataset { name: self.name.clone(), inputs, labels: labels.map(Iterator::collect), rows: rows.len() }
    }

    /// The tokens `(start, len)` that the mask input `name` (`[rows, tokens]`) marks with other values
    /// than 0: one run, the same in all rows.
    pub fn span_of(&self, name: &str) -> Result<(usize, usize), DatasetError> {
        let fail = |reason: String| DatasetError { file: self.name.clone(), reason: format!("`{name}` {reason}") };
        let mask = self.inputs.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        let mask = mask.ok_or_else(|| fail("is no input of the model".into()))?;
        let marks = mask.to_i64s().filter(|_| mask.dims().len() == 2);
        let marks = marks.ok_or_else(|| fail(format!("is {}, expected a mask [rows, tokens]", mask.ty())))?;
        let row = |r: usize| &marks[r * mask.dims()[1]..(r + 1) * mask.dims()[1]];
        if let Some(other) = (1..self.rows).find(|r| row(*r) != row(0)) {
            return Err(fail(format!("marks other tokens in row {other} than in row 0")));
        }
        let marked: Vec<usize> = row(0).iter().enumerate().filter(|(_, m)| **m != 0).map(|(i, _)| i).collect();
        match (marked.first(), marked.last()) {
            (Some(first), Some(last)) if last - first + 1 == marked.len() => Ok((*first, marked.len())),
            (Some(_), Some(_)) => Err(fail("marks tokens that are not next to each other".into())),
            _ => Err(fail("marks no token".into())),
        }
    }

    /// The first `rows` rows.
    pub fn truncated(mut self, rows: usize) -> Dataset {
        let width = self.labels.as_ref().map_or(0, Vec::len) / self.rows.max(1);
        self.rows = self.rows.min(rows);
        self.inputs.iter_mut().for_each(|(_, t)| *t = t.rows(0, rows));
        if let Some(labels) = &mut self.labels {
            labels.truncate(self.rows * width);
        }
        self
    }
}

fn check_names(wanted: &[&str], arrays: &Arrays) -> Result<(), String> {
    let missing: Vec<&str> = wanted.iter().filter(|w| !arrays.contains_key(**w)).copied().collect();
    let unknown: Vec<&str> =
        arrays.keys().map(String::as_str).filter(|n| *n != LABELS && !wanted.contains(n)).collect();
    if missing.is_empty() && unknown.is_empty() {
        return Ok(());
    }
    let mut reason = String::new();
    if !missing.is_empty() {
        reason = format!("no array for input {}", missing.join(", "));
    }
    if !unknown.is_empty() {
        let comma = if reason.is_empty() { "" } else { "; " };
        reason = format!("{reason}{comma}array {} is no input of the model", unknown.join(", "));
    }
    let fixed = if unknown.is_empty() { "" } else { "; an input that --fix makes a constant is given no array" };
    Err(format!("{reason} (inputs: {}){fixed}", wanted.join(", ")))
}

/// The tensor with its integers as the model's integer type, if every value fits, and its f64, which is what Python
/// numbers are, rounded to the model's float type; f32 as f64 where the model takes that; else as it is.
pub(crate) fn fitted(tensor: Tensor, to: DType) -> Tensor {
    let rounded = tensor.dtype() == DType::F64 && to.is_float();
    if tensor.dtype() != to && (rounded || (tensor.dtype(), to) == (DType::F32, DType::F64)) {
        return Tensor::from_f64s(to, tensor.dims(), &tensor.to_f64s(), Overflow::Special).unwrap_or(tensor);
    }
    let integers = if tensor.dtype().is_int() && to.is_int() { tensor.to_i128s() } else { None };
    let (least, largest) = to.integer_range().unwrap_or_default();
    let fits = integers.filter(|v| v.iter().all(|x| (least..=largest).contains(x)));
    fits.and_then(|v| Tensor::from_integers(to, tensor.dims(), &v).ok()).unwrap_or(tensor)
}

fn check_type(name: &str, tensor: &Tensor, ty: &eec_ir::Type) -> Result<(), String> {
    let found = tensor.ty();
    let dims_fit = found.rank() == ty.rank()
        && found.dims.iter().zip(&ty.dims).skip(1).all(|(have, want)| want.as_const().is_none() || have == want);
    if found.dtype != ty.dtype || !dims_fit {
        return Err(format!("`{name}` is {found}, the model takes {ty}"));
    }
    Ok(())
}

fn check_finite(name: &str, tensor: &Tensor) -> Result<(), String> {
    let Some(values) = tensor.elements::<f32>() else { return Ok(()) };
    let row = tensor.dims().iter().skip(1).product::<usize>().max(1);
    match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(format!("`{name}` holds {} in row {}", values[at], at / row)),
        None => Ok(()),
    }
}

fn common_rows(inputs: &[(String, Tensor)]) -> Result<usize, String> {
    let rows = |t: &Tensor| t.dims().first().copied();
    let Some(((first, tensor), others)) = inputs.split_first() else { return Err("the model has no inputs".into()) };
    let Some(count) = rows(tensor) else { return Err(format!("`{first}` is a scalar, which has no rows")) };
    match others.iter().find(|(_, t)| rows(t) != Some(count)) {
        Some((name, t)) => Err(format!("`{first}` has {count} rows, `{name}` has dims {:?}", t.dims())),
        None if count == 0 => Err(format!("`{first}` has no rows")),
        None => Ok(count),
    }
}

/// What a model's first output scores.
enum Scores {
    /// Classes per row: `[batch, classes]`.
    Rows(i64),
    /// Classes per token: `[batch, tokens, classes]`.
    Tokens(i64),
    /// Something else, or a number of classes that is not known.
    Other,
}

impl Scores {
    fn of(graph: &Graph) -> Scores {
        let dims = graph.outputs().first().map(|v| graph.ty(*v).dims.as_slice());
        match dims {
            Some([_, classes]) => classes.as_const().map_or(Scores::Other, Scores::Rows),
            Some([_, _, classes]) => classes.as_const().map_or(Scores::Other, Scores::Tokens),
            _ => Scores::Other,
        }
    }
}

fn check_labels(labels: &Tensor, rows: usize, scores: &Scores) -> Result<Vec<i64>, String> {
    let found = labels.ty();
    let values = labels.to_i64s().filter(|_| labels.dtype() != DType::Bool);
    let per_token = labels.dims().len() == 2 && labels.dims()[0] == rows && labels.dims()[1] > 0;
    let (classes, least, fits, expected) = match scores {
        Scores::Tokens(n) => {
            (Some(*n), i64::MIN, per_token, format!("one integer class per token, i64[{rows}, tokens]"))
        }
        Scores::Rows(n) => (Some(*n), 0, labels.dims() == [rows], format!("one integer class per row, i64[{rows}]")),
        Scores::Other => (None, 0, labels.dims() == [rows], format!("one integer class per row, i64[{rows}]")),
    };
    let values = values.filter(|_| fits).ok_or_else(|| format!("`{LABELS}` must hold {expected}, found {found}"))?;
    match values.iter().position(|l| *l < least || classes.is_some_and(|n| *l >= n)) {
        Some(at) => {
            let known = classes.map_or("0 or more".to_string(), |n| format!("0 to {}", n - 1));
            let row = at * rows / values.len().max(1);
            Err(format!("`{LABELS}` holds {} in row {row}, the model's classes are {known}", values[at]))
        }
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eec_ir::{Dim, Type};

    fn model() -> Graph {
        let mut g = Graph::new("m");
        let batch = Dim::symbol("batch");
        let x = g.add_input("x", Type::new(DType::F32, [batch.clone(), 2.into()]));
        g.add_input("ids", Type::new(DType::I64, [batch, Dim::symbol("seq")]));
        g.set_outputs(vec![("y".into(), x)]);
        g
    }

    fn arrays(rows: usize) -> Arrays {
        let f = Tensor::new(&[rows, 2], (0..rows * 2).map(|i| i as f32).collect());
        let i = Tensor::new(&[rows, 3], (0..rows * 3).map(|i| i as i64).collect());
        [("ids", i), ("x", f)].into_iter().filter_map(|(n, t)| Some((n.to_string(), t.ok()?))).collect()
    }

    fn refusal(change: impl FnOnce(&mut Arrays)) -> String {
        let mut a = arrays(4);
        change(&mut a);
        Dataset::new(Path::new("d.npz"), &a, &model()).map_or_else(|e| e.to_string(), |_| String::new())
    }

    #[test]
    fn rows_are_batched_in_the_models_order() -> Result<(), DatasetError> {
        let data = Dataset::new(Path::new("d.npz"), &arrays(4), &model())?;
        let batch = data.batch(3, 9);
        assert_eq!(batch[0].0, "x");
        assert_eq!(batch[0].1.elements::<f32>().as_deref(), Some(&[6.0, 7.0][..]));
        assert_eq!(batch[1].1.dims(), [1, 3]);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let set = |a: &mut Arrays, name: &str, t: Tensor| drop(a.insert(name.into(), t));
        let nan = Tensor::new(&[4, 2], vec![0., 1., 2., 3., f32::NAN, 5., 6., 7.]).ok();
        assert!(refusal(|a| set(a, "x", nan.unwrap_or(Tensor::scalar(0f32)))).contains("`x` holds NaN in row 2"));
        let renamed = refusal(|a| {
            let x = a.remove("x").unwrap_or(Tensor::scalar(0f32));
            set(a, "z", x);
        });
        assert!(renamed.contains("no array for input x; array z is no input"));
        assert!(refusal(|a| set(a, "x", a["x"].rows(0, 3))).contains("`x` has 3 rows, `ids` has dims [4, 3]"));
        assert!(refusal(|a| set(a, LABELS, Tensor::vector(vec![1i64; 3]))).contains("i64[4]"));
        assert!(refusal(|a| set(a, LABELS, Tensor::vector(vec![1f32; 4]))).contains("found f32[4]"));
        let outside = refusal(|a| set(a, LABELS, Tensor::vector(vec![1i64, 0, 2, 1])));
        assert!(outside.contains("holds 2 in row 2, the model's classes are 0 to 1"), "{outside}");
        assert!(refusal(|a| set(a, LABELS, Tensor::vector(vec![1i64, -1, 0, 1]))).contains("holds -1 in row 1"));
        assert!(refusal(|a| set(a, "ids", a["x"].clone())).contains("the model takes i64[batch, seq]"));
    }

    #[test]
    fn integers_take_the_models_type_if_they_fit() {
        let (wide, narrow) = (Tensor::vector(vec![-1i64, 7]), Tensor::vector(vec![-1i32, 7]));
        assert_eq!(fitted(wide.clone(), DType::I32), narrow);
        assert_eq!(fitted(narrow.clone(), DType::I64), wide);
        let large = Tensor::vector(vec![1i64 << 31]);
        assert_eq!(fitted(large.clone(), DType::I32), large);
        assert_eq!(fitted(narrow.clone(), DType::F32), narrow);
        let double = Tensor::from_f64s(DType::F64, &[2], &[1.5, -0.1], Overflow::Special).unwrap();
        assert_eq!(fitted(double.clone(), DType::F64), double);
        assert_eq!(fitted(double, DType::F32), Tensor::vector(vec![1.5f32, -0.1]));
        assert_eq!(fitted(Tensor::scalar(0.5f32), DType::F64).dtype(), DType::F64);
        assert_eq!(fitted(Tensor::scalar(0.5f32), DType::F16).dtype(), DType::F32);
    }
}

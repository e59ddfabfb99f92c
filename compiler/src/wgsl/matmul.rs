//! Matrix products: in tiles, or where there are very few rows with the weights read once. Products that read the same
//! rows run as one dispatch.

use eec_ir::program::{MatMul, View};
use eec_ir::{BufferId, Dim, Precision};

use super::Body;
use super::helpers::Helper;
use super::place::Place;
use super::text::{Reason, Writer};
use super::tile::{self, Operands, Shape, Sizes};
use super::{epilogue, thin};

/// Products that one dispatch computes at most: their weights must be bound together.
pub(super) const TOGETHER: usize = 3;

/// Whether `b` can be computed with products that can be computed together: of equal form, on the same rows, with
/// other weights, and reading none of their results.
pub(super) fn go_together(products: &[&MatMul], b: &MatMul) -> bool {
    let Some(a) = products.first() else { return false };
    let mut same = b.clone();
    same.b.buffer = a.b.buffer;
    same.c.buffer = a.c.buffer;
    if let (Some(to), Some(from)) = (&mut same.bias, &a.bias) {
        to.buffer = from.buffer;
    }
    let results = || products.iter().map(|p| p.c.buffer);
    let independent = results().all(|c| c != b.c.buffer && !reads(b).contains(&c));
    same == **a && a.epilogue.is_none() && independent
}

/// The buffers that a product without an epilogue reads.
pub(super) fn reads(form: &MatMul) -> Vec<BufferId> {
    [&form.a, &form.b].into_iter().chain(&form.bias).map(|view| view.buffer).collect()
}

/// Writes products of equal form; of several, all read the same left operand.
pub(super) fn write(w: &mut Writer, forms: &[&MatMul]) -> Result<Body, Reason> {
    let Some(form) = forms.first() else { return Err("internal error: no product".into()) };
    let matrices = &Dim::product(&form.batch) * &Dim::from(forms.len() as i64);
    let sizes = Sizes { matrices, rows: form.m.clone(), columns: form.n.clone(), depth: form.k.clone() };
    let shape = Shape::of(&sizes);
    let mut operands = Products::new(w, forms)?;
    match form.m.as_const() {
        Some(n) if n <= thin::ROWS => {
            thin::write(w, &sizes, &mut operands)?;
            Ok(Body { lanes: thin::LANES, groups: thin::groups(&sizes)? })
        }
        _ => tile::write(w, &sizes, shape, &mut operands),
    }
}

/// The operands of one or several products.
struct Products<'f> {
    forms: &'f [&'f MatMul],
    a: Place,
    b: Vec<Place>,
    bias: Vec<Option<Place>>,
    c: Vec<Place>,
    batch: Vec<String>,
}

impl<'f> Products<'f> {
    fn new(w: &mut Writer, forms: &'f [&'f MatMul]) -> Result<Self, Reason> {
        let form = forms[0];
        let a = w.place(form.a.buffer)?;
        let (mut b, mut bias, mut c) = (Vec::new(), Vec::new(), Vec::new());
        for form in forms {
            b.push(w.place(form.b.buffer)?);
            bias.push(form.bias.as_ref().map(|v| w.place(v.buffer)).transpose()?);
            c.push(w.place(form.c.buffer)?);
        }
        Ok(Products { forms, a, b, bias, c, batch: Vec::new() })
    }

    fn form(&self) -> &'f MatMul {
        self.forms[0]
    }

    /// The position of an element of a view over `batch ++ [row, column]`, as far as `name` holds the rest.
    fn at(&self, w: &mut Writer, view: &View, name: &str, row: &str, column: &str) -> Result<String, Reason> {
        let axes = view.strides[self.form().batch.len()..].iter().zip([row, column]);
        let inside = w.linear(&Dim::default(), axes)?;
        Ok(format!("{name} + {inside}"))
    }

    /// An operand as the product takes it.
    fn rounded(&self, w: &mut Writer, value: String) -> String {
        match self.form().weights {
            Precision::Bf16 => {
                w.helper(Helper::Bf16);
                format!("bf16({value})")
            }
            // The runtime rounds the other forms' weights when it uploads them.
            Precision::F32 | Precision::F16 | Precision::Int8 => value,
        }
    }

    /// For every product that is computed, lines of its own.
    fn each(
        &self,
        w: &mut Writer,
        mut lines: impl FnMut(&mut Writer, usize) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        if self.forms.len() == 1 {
            return lines(w, 0);
        }
        w.line("switch product {");
        for at in 0..self.forms.len() {
            w.line(match at + 1 == self.forms.len() {
                true => "default: {".to_string(),
                false => format!("case {at}: {{"),
            });
            lines(w, at)?;
            w.line("}");
        }
        w.line("}");
        Ok(())
    }
}

impl Operands for Products<'_> {
    fn depth_first(&self) -> [bool; 2] {
        let batch = self.form().batch.len();
        let is_one = |view: &View, axis: usize| view.strides[batch + axis].as_const() == Some(1);
        [!is_one(&self.form().a, 0), is_one(&self.form().b, 0) && !is_one(&self.form().b, 1)]
    }

    fn matrix(&mut self, w: &mut Writer) -> Result<(), Reason> {
        let form = self.form();
        let mut index = "matrix".to_string();
        if self.forms.len() > 1 {
            let each = w.divisor(&Dim::product(&form.batch))?;
            w.line(format!("let product = matrix / {each};"));
            w.line(format!("let matrix_of = matrix - product * {each};"));
            index = "matrix_of".into();
        }
        self.batch = w.split(&index, &form.batch, "m")?;
        for (name, view) in [("a_first", &form.a), ("b_first", &form.b), ("c_first", &form.c)] {
            let axes = view.strides.iter().zip(self.batch.iter().map(String::as_str));
            let first = w.linear(&view.offset, axes)?;
            w.line(format!("let {name} = {first};"));
        }
        Ok(())
    }

    fn column(&mut self, _: &mut Writer, _: &str) -> Result<(), Reason> {
        Ok(())
    }

    fn left(&mut self, w: &mut Writer, row: &str, depth: &str) -> Result<(), Reason> {
        let at = self.at(w, &self.form().a, "a_first", row, depth)?;
        let value = self.rounded(w, self.a.load(&at));
        w.line(format!("value = {value};"));
        Ok(())
    }

    fn right(&mut self, w: &mut Writer, depth: &str, column: &str) -> Result<(), Reason> {
        let at = self.at(w, &self.form().b, "b_first", depth, column)?;
        self.each(w, |w, product| {
            let value = self.rounded(w, self.b[product].load(&at));
            w.line(format!("value = {value};"));
            Ok(())
        })
    }

    fn store(&mut self, w: &mut Writer, row: &str, column: &str, sum: &str) -> Result<(), Reason> {
        let form = self.form();
        let at = self.at(w, &form.c, "c_first", row, column)?;
        let scaled = match form.scale {
            1.0 => sum.to_string(),
            scale => format!("{sum} * {}", w.float(scale)),
        };
        let indices: Vec<String> = self.batch.iter().cloned().chain([row.to_string(), column.to_string()]).collect();
        self.each(w, |w, product| {
            let mut value = scaled.clone();
            if let (Some(view), Some(place)) = (&form.bias, &self.bias[product]) {
                let position = w.linear(&view.offset, [(&view.strides[0], column)])?;
                value = format!("{value} + {}", place.load(&position));
            }
            w.line(format!("let finished = {value};"));
            let value = epilogue::finish(w, form.epilogue.as_ref(), "finished", &indices)?;
            w.line(self.c[product].store(&at, &value));
            Ok(())
        })
    }
}

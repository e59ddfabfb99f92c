//! Convolutions: as a product in tiles whose right operand is the image's windows, or, where a group has few
//! channels, with a lane per element.

use eec_ir::Dim;
use eec_ir::program::Conv;

use super::dims::{groups, number};
use super::place::Place;
use super::text::{Reason, Writer};
use super::tile::{self, Operands, Shape, Sizes};
use super::{Body, epilogue};

/// Channels of a group's result up to which a tile would be mostly empty.
const FEW: i64 = 7;

/// Lanes of a workgroup, where each has an element.
const LANES: u32 = 128;

/// Writes a convolution.
pub(super) fn write(w: &mut Writer, form: &Conv) -> Result<Body, Reason> {
    let operands = &mut Windows::new(w, form)?;
    let out = form.w_dims[0].exact_div(&Dim::from(form.group)).ok_or("its groups do not divide its channels")?;
    let depth = Dim::product(&form.w_dims[1..]);
    let plane = &form.y_size[0] * &form.y_size[1];
    let columns = &form.x_dims[0] * &plane;
    operands.out = out.clone();
    if out.as_const().is_some_and(|n| n <= FEW) {
        return direct(w, operands, &depth, &columns);
    }
    let sizes = Sizes { matrices: Dim::from(form.group), rows: out, columns, depth };
    tile::write(w, &sizes, Shape::of(&sizes), operands)
}

/// A lane per element of the result.
fn direct(w: &mut Writer, operands: &mut Windows, depth: &Dim, columns: &Dim) -> Result<Body, Reason> {
    let channels = operands.form.w_dims[0].clone();
    let total = &channels * columns;
    let (all, across, out, depth) = (w.dim(&total)?, w.divisor(&channels)?, w.divisor(&operands.out)?, w.dim(depth)?);
    w.line(format!("let total = {all};\nlet depth = {depth};"));
    w.line(format!("for (var i = group * {LANES} + lane; i < total; i += groups * {LANES}) {{"));
    w.line(format!("let column = i / {across};\nlet channel = i - column * {across};"));
    w.line(format!("let matrix = channel / {out};\nlet row = channel - matrix * {out};"));
    operands.matrix(w)?;
    operands.column(w, "column")?;
    w.line("var sum = 0.0;\nfor (var step = 0; step < depth; step += 1) {");
    w.line("var value = 0.0;");
    operands.right(w, "step", "column")?;
    w.line("let x = value;");
    operands.left(w, "row", "step")?;
    w.line("sum = fma(value, x, sum);\n}");
    w.line("let finished_sum = sum;");
    operands.store(w, "row", "column", "finished_sum")?;
    w.line("}");
    Ok(Body { lanes: LANES, groups: groups(&total, LANES.into())? })
}

/// Weights, and windows of images: rows are a group's channels, columns the elements of all images' planes.
struct Windows<'f> {
    form: &'f Conv,
    weights: Place,
    bias: Option<Place>,
    y: Place,
    /// Channels of a group's result.
    out: Dim,
}

impl<'f> Windows<'f> {
    fn new(w: &mut Writer, form: &'f Conv) -> Result<Self, Reason> {
        let bias = form.bias.map(|b| w.place(b)).transpose()?;
        let (weights, y) = (w.place(form.w)?, w.place(form.y)?);
        Ok(Windows { form, weights, bias, y, out: Dim::default() })
    }
}

impl Operands for Windows<'_> {
    fn depth_first(&self) -> [bool; 2] {
        [true, true]
    }

    fn matrix(&mut self, w: &mut Writer) -> Result<(), Reason> {
        let out = w.dim(&self.out)?;
        w.line(format!("let first_channel = matrix * {out};"));
        Ok(())
    }

    fn column(&mut self, w: &mut Writer, column: &str) -> Result<(), Reason> {
        let form = self.form;
        let (width, plane) = (w.divisor(&form.y_size[1])?, w.divisor(&(&form.y_size[0] * &form.y_size[1]))?);
        let [up, left] = form.pads;
        let [down, right] = form.strides;
        w.line(format!("let image = {column} / {plane};"));
        w.line(format!("let pixel = {column} - image * {plane};"));
        w.line(format!("let top = pixel / {width} * {} - {};", number(down)?, number(up)?));
        w.line(format!("let side = pixel % {width} * {} - {};", number(right)?, number(left)?));
        Ok(())
    }

    fn left(&mut self, w: &mut Writer, row: &str, depth: &str) -> Result<(), Reason> {
        let [_, channels, kernel_height, kernel_width] = &self.form.w_dims;
        let (channels, taps) = (w.divisor(channels)?, w.dim(&(kernel_height * kernel_width))?);
        w.line(format!("let of_tap = {depth} / {channels};"));
        let weight =
            format!("((first_channel + {row}) * {channels} + ({depth} - of_tap * {channels})) * {taps} + of_tap");
        let value = self.weights.load(&weight);
        w.line(format!("value = {value};"));
        Ok(())
    }

    fn right(&mut self, w: &mut Writer, depth: &str, _: &str) -> Result<(), Reason> {
        let form = self.form;
        let (channels, across) = (w.divisor(&form.w_dims[1])?, w.divisor(&form.w_dims[3])?);
        let (height, width) = (w.dim(&form.x_dims[2])?, w.dim(&form.x_dims[3])?);
        let [down, right] = form.dilations;
        w.line(format!("let tap = {depth} / {channels};"));
        w.line(format!("let channel_in = matrix * {channels} + {depth} - tap * {channels};"));
        w.line(format!("let y = top + tap / {across} * {};", number(down)?));
        w.line(format!("let x_at = side + tap % {across} * {};", number(right)?));
        w.line(format!("if y >= 0 && y < {height} && x_at >= 0 && x_at < {width} {{"));
        let (x, at) = w.view(&form.x, &["image", "channel_in", "y", "x_at"].map(str::to_string))?;
        w.line(format!("value = {};\n}}", x.load(&at)));
        Ok(())
    }

    fn store(&mut self, w: &mut Writer, row: &str, column: &str, sum: &str) -> Result<(), Reason> {
        let form = self.form;
        let (plane, channels) = (w.divisor(&(&form.y_size[0] * &form.y_size[1]))?, w.dim(&form.w_dims[0])?);
        w.line(format!("let out_channel = first_channel + {row};"));
        w.line(format!("let out_image = {column} / {plane};"));
        w.line(format!("let out_pixel = {column} - out_image * {plane};"));
        let biased = match &self.bias {
            Some(bias) => format!("{sum} + {}", bias.load("out_channel")),
            None => sum.to_string(),
        };
        w.line(format!("let finished = {biased};"));
        let indices = ["out_image", "out_pixel", "out_channel"].map(str::to_string);
        let value = epilogue::finish(w, form.epilogue.as_ref(), "finished", &indices)?;
        w.line(self.y.store(&format!("{column} * {channels} + out_channel"), &value));
        Ok(())
    }
}

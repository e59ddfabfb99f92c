//! `Resize` and `Upsample`: along every axis each result is a weighted sum of a few elements. Of constant sizes their
//! positions and weights are constants (`resize_listed`), of symbolic ones a run computes them (`resize_computed`).
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__Resize.html>.

use eec_ir::{DType, Dim, Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::float_sizes::{Step, ratio};
use super::node::{Cx, Results, axis_indices};
use super::{float_sizes, resize_computed, resize_listed};

/// How results are made of elements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// Which of the elements on both sides is the nearest one.
#[derive(Clone, Copy)]
pub(super) enum Nearest {
    /// That to the left from the middle between them.
    PreferLeft,
    PreferRight,
    Left,
    Right,
}

/// Where in the operand a result stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    Asymmetric,
    AlignCorners,
    CropAndResize,
}

/// The attributes.
pub(super) struct Options {
    pub(super) mode: Mode,
    pub(super) nearest: Nearest,
    pub(super) coordinates: Coordinates,
    pub(super) cubic_a: f64,
    pub(super) exclude_outside: bool,
    pub(super) extrapolation: f64,
    pub(super) antialias: bool,
}

impl Options {
    fn read(cx: &mut Cx) -> NodeResult<Options> {
        let mode = match cx.word("mode")?.as_deref() {
            None | Some("nearest") => Mode::Nearest,
            Some("linear") => Mode::Linear,
            Some("cubic") => Mode::Cubic,
            Some(other) => return refuse(format!("mode `{other}` is not known")),
        };
        let nearest = match cx.word("nearest_mode")?.as_deref() {
            None | Some("round_prefer_floor") => Nearest::PreferLeft,
            Some("round_prefer_ceil") => Nearest::PreferRight,
            Some("floor") => Nearest::Left,
            Some("ceil") => Nearest::Right,
            Some(other) => return refuse(format!("`nearest_mode` `{other}` is not known")),
        };
        let coordinates = match cx.word("coordinate_transformation_mode")?.as_deref() {
            None | Some("half_pixel") => Coordinates::HalfPixel,
            Some("half_pixel_symmetric") => Coordinates::HalfPixelSymmetric,
            Some("pytorch_half_pixel") => Coordinates::PytorchHalfPixel,
            Some("asymmetric") => Coordinates::Asymmetric,
            Some("align_corners") => Coordinates::AlignCorners,
            Some("tf_crop_and_resize") => Coordinates::CropAndResize,
            Some(other) => return refuse(format!("`coordinate_transformation_mode` `{other}` is not known")),
        };
        Ok(Options {
            mode,
            nearest,
            coordinates,
            cubic_a: cx.float_or("cubic_coeff_a", -0.75)?,
            exclude_outside: cx.flag("exclude_outside", false)?,
            extrapolation: cx.float_or("extrapolation_value", 0.0)?,
            antialias: cx.flag("antialias", false)?,
        })
    }
}

/// One axis: its size and the result's.
pub(super) struct Axis {
    pub(super) axis: usize,
    pub(super) from: Dim,
    pub(super) to: Dim,
    /// The factor between them, if it is given; else their quotient.
    pub(super) scale: Option<f64>,
    /// Start and end of the part that is shown, as shares of the axis.
    pub(super) roi: [f64; 2],
}

/// What lies so close to the middle between two elements is as near to one as to the other, as in ONNX Runtime.
pub(super) const MIDDLE: f64 = 1e-6;

/// One of the elements that make each result: where it stands along the axis.
pub(super) struct Tap {
    /// One per result.
    pub(super) positions: ValueId,
    /// One per result, along the axis; 1 if they are left out.
    pub(super) weights: Option<ValueId>,
}

pub(super) fn resize(cx: &mut Cx) -> Results {
    if cx.opset < 11 {
        return upsample(cx);
    }
    let x = cx.input(0)?;
    let options = Options::read(cx)?;
    let axes = axes(cx, x, &options)?;
    Ok(vec![all_resized(cx, x, &axes, &options)?])
}

/// `Upsample`, and `Resize` of opset 10: positions are quotients, rounded down.
pub(super) fn upsample(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let mut options = Options::read(cx)?;
    (options.coordinates, options.nearest) = (Coordinates::Asymmetric, Nearest::Left);
    let scales = match cx.floats("scales")? {
        Some(scales) => scales.into_iter().map(f64::from).collect(),
        None => cx.const_numbers(1, "scale")?.unwrap_or_default(),
    };
    let all: Vec<usize> = (0..cx.rank(x)).collect();
    let axes = scaled(cx, x, &all, &scales, None)?;
    Ok(vec![all_resized(cx, x, &axes, &options)?])
}

/// The axes that change.
fn axes(cx: &mut Cx, x: ValueId, options: &Options) -> NodeResult<Vec<Axis>> {
    let rank = cx.rank(x);
    let axes = match cx.ints("axes")? {
        Some(axes) => axis_indices(&axes, rank)?,
        None => (0..rank).collect(),
    };
    let policy = cx.word("keep_aspect_ratio_policy")?.unwrap_or_else(|| "stretch".into());
    let cropped = options.coordinates == Coordinates::CropAndResize;
    let roi = if cropped { cx.const_numbers(1, "region of interest")? } else { None };
    let scales = cx.const_numbers(2, "scale")?.filter(|s| !s.is_empty());
    match (scales, cx.late_sizes(3, "target size", |_| None)?.filter(|s| !s.is_empty())) {
        (Some(scales), None) => scaled(cx, x, &axes, &scales, roi.as_deref()),
        (None, Some(sizes)) => sized(cx, x, &axes, &sizes, &policy, roi.as_deref()),
        _ => refuse("needs either scales or sizes"),
    }
}

fn region(roi: Option<&[f64]>, i: usize, count: usize) -> [f64; 2] {
    let at = |j: usize, default| roi.and_then(|r| r.get(j)).copied().unwrap_or(default);
    [at(i, 0.0), at(i + count, 1.0)]
}

fn scaled(cx: &mut Cx, x: ValueId, axes: &[usize], scales: &[f64], roi: Option<&[f64]>) -> NodeResult<Vec<Axis>> {
    if scales.len() != axes.len() {
        return refuse(format!("{} scales do not fit {} axes", scales.len(), axes.len()));
    }
    let dims = cx.dims(x);
    let axis = |(i, (axis, scale)): (usize, (&usize, &f64))| {
        let roi = region(roi, i, axes.len());
        if *scale == 1.0 && roi == [0.0, 1.0] {
            return Ok(None);
        }
        let from = dims[*axis].clone();
        let to = scaled_size(cx, &from, *scale)?;
        Ok(Some(Axis { axis: *axis, from, to, scale: Some(*scale), roi }))
    };
    axes.iter().zip(scales).enumerate().map(axis).filter_map(NodeResult::transpose).collect()
}

/// `floor(size · scale)`, as float32 has it: by a fraction where that is exact, else computed by the run.
fn scaled_size(cx: &mut Cx, size: &Dim, scale: f64) -> NodeResult<Dim> {
    let scale = scale as f32;
    if let Some(scaled) = float_sizes::after(size, &[Step::Times(scale)]) {
        return Ok(scaled);
    }
    if !(0.0..=LARGEST_SCALE).contains(&scale) {
        return refuse(format!("a scale of {scale} makes no size of {size}"));
    }
    let number = cx.number_of(size)?;
    let number = cx.cast(number, DType::F32)?;
    let scaled = cx.times(number, scale.into())?;
    let whole = cx.cast(scaled, DType::I64)?;
    // Rounding adds at most one.
    let most = match ratio(scale) {
        Some((by, over)) => (size * &by.into()).floor_div(&over.into()).map(|most| &most + &1.into()),
        None => Some(size * &Dim::from(scale.ceil() as i64)),
    };
    cx.late_size(whole, most.unwrap_or_default())
}

/// Larger scales of symbolic sizes are refused.
const LARGEST_SCALE: f32 = 65536.0;

fn sized(
    cx: &Cx,
    x: ValueId,
    axes: &[usize],
    sizes: &[Dim],
    policy: &str,
    roi: Option<&[f64]>,
) -> NodeResult<Vec<Axis>> {
    if sizes.len() != axes.len() {
        return refuse(format!("{} sizes do not fit {} axes", sizes.len(), axes.len()));
    }
    let dims = cx.dims(x);
    let from: Vec<Dim> = axes.iter().map(|a| dims[*a].clone()).collect();
    let common = match policy {
        "stretch" => None,
        "not_larger" => Some(scales(&from, sizes, policy)?.into_iter().fold(f64::INFINITY, f64::min)),
        "not_smaller" => Some(scales(&from, sizes, policy)?.into_iter().fold(0.0, f64::max)),
        other => return refuse(format!("`keep_aspect_ratio_policy` `{other}` is not known")),
    };
    let kept = |from: &Dim, scale: f64| from.as_const().map(|from| Dim::from((scale * from as f64 + 0.5) as i64));
    let axis = |i: usize| {
        let to = common.and_then(|scale| kept(&from[i], scale)).unwrap_or_else(|| sizes[i].clone());
        Axis { axis: axes[i], from: from[i].clone(), to, scale: common, roi: region(roi, i, axes.len()) }
    };
    Ok((0..axes.len()).map(axis).filter(|a| a.from != a.to || a.roi != [0.0, 1.0]).collect())
}

/// The factors between sizes, of which a policy chooses one.
fn scales(from: &[Dim], to: &[Dim], policy: &str) -> NodeResult<Vec<f64>> {
    let scale = |(from, to): (&Dim, &Dim)| Some(to.as_const()? as f64 / from.as_const()? as f64);
    let scales: Option<Vec<f64>> = from.iter().zip(to).map(scale).collect();
    scales.ok_or_else(|| {
        let reason = format!("`keep_aspect_ratio_policy` `{policy}` needs constant sizes, found {from:?} and {to:?}");
        Refusal::new(format!("{reason}; `--fix-dim` makes them constants"))
    })
}

/// The operand with these axes resized. Integers are interpolated as floats, and cut off at the end, as in ONNX Runtime.
fn all_resized(cx: &mut Cx, x: ValueId, axes: &[Axis], options: &Options) -> NodeResult<ValueId> {
    let own = cx.ty(x).dtype;
    let as_floats = own.is_int() && options.mode != Mode::Nearest && !axes.is_empty();
    let given = if as_floats { cx.cast(x, DType::F32)? } else { x };
    let resized = axes.iter().try_fold(given, |x, axis| resized(cx, x, axis, options))?;
    cx.cast(resized, own)
}

/// The operand with one axis resized.
fn resized(cx: &mut Cx, x: ValueId, axis: &Axis, options: &Options) -> NodeResult<ValueId> {
    match (axis.from.as_const(), axis.to.as_const()) {
        (Some(from), Some(to)) => resize_listed::resized(cx, x, axis, [from, to], options),
        _ => resize_computed::resized(cx, x, axis, options),
    }
}

/// The weighted sum of the taps along an axis.
pub(super) fn combined(cx: &mut Cx, x: ValueId, axis: usize, taps: Vec<Tap>) -> NodeResult<ValueId> {
    let mut sum = None;
    for tap in taps {
        let mut term = cx.emit(Op::Gather { axis: axis as i64 }, &[x, tap.positions])?;
        if let Some(weights) = tap.weights {
            term = cx.mul(term, weights)?;
        }
        sum = Some(match sum {
            Some(sum) => cx.add(sum, term)?,
            None => term,
        });
    }
    sum.ok_or_else(|| Refusal::new("the result is empty"))
}

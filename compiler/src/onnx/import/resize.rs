//! `Resize` and `Upsample`: along every axis each result is a weighted sum of a few elements, whose
//! positions and weights are constants.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__Resize.html>; cubic weights: Keys 1981.

use eec_ir::minifloat::Overflow;
use eec_ir::{Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, Results, axis_indices};

/// Larger axes are refused, as their tables of positions would be.
const LARGEST: i64 = 1 << 20;

/// The attributes, with their names and meanings.
struct Options {
    mode: String,
    nearest: String,
    coordinates: String,
    cubic_a: f64,
    exclude_outside: bool,
    extrapolation: f64,
    antialias: bool,
}

impl Options {
    fn read(cx: &mut Cx) -> NodeResult<Options> {
        let word = |cx: &mut Cx, name: &str, default: &str| -> NodeResult<String> {
            Ok(cx.word(name)?.unwrap_or_else(|| default.into()))
        };
        Ok(Options {
            mode: word(cx, "mode", "nearest")?,
            nearest: word(cx, "nearest_mode", "round_prefer_floor")?,
            coordinates: word(cx, "coordinate_transformation_mode", "half_pixel")?,
            cubic_a: cx.float_or("cubic_coeff_a", -0.75)?,
            exclude_outside: cx.flag("exclude_outside", false)?,
            extrapolation: cx.float_or("extrapolation_value", 0.0)?,
            antialias: cx.flag("antialias", false)?,
        })
    }
}

/// One axis: its size, the result's, and the factor between them.
struct Axis {
    axis: usize,
    from: i64,
    to: i64,
    scale: f64,
    /// Start and end of the part that is shown, as shares of the axis.
    roi: [f64; 2],
}

/// The elements that make one result: positions, some perhaps outside, and weights.
struct Taps {
    first: i64,
    weights: Vec<f64>,
    /// The result is the extrapolation value instead.
    outside: bool,
}

pub(super) fn resize(cx: &mut Cx) -> Results {
    if cx.opset < 11 {
        return upsample(cx);
    }
    let mut x = cx.input(0)?;
    let options = Options::read(cx)?;
    for axis in axes(cx, x, &options)? {
        x = resized(cx, x, &axis, &options)?;
    }
    Ok(vec![x])
}

/// `Upsample`, and `Resize` of opset 10: positions are quotients, rounded down.
pub(super) fn upsample(cx: &mut Cx) -> Results {
    let mut x = cx.input(0)?;
    let mut options = Options::read(cx)?;
    (options.coordinates, options.nearest) = ("asymmetric".into(), "floor".into());
    let scales = match cx.floats("scales")? {
        Some(scales) => scales.into_iter().map(f64::from).collect(),
        None => cx.const_numbers(1, "scales")?.unwrap_or_default(),
    };
    let all: Vec<usize> = (0..cx.rank(x)).collect();
    for axis in scaled(cx, x, &all, &scales, None)? {
        x = resized(cx, x, &axis, &options)?;
    }
    Ok(vec![x])
}

/// The axes that change.
fn axes(cx: &mut Cx, x: ValueId, options: &Options) -> NodeResult<Vec<Axis>> {
    let rank = cx.rank(x);
    let axes = match cx.ints("axes")? {
        Some(axes) => axis_indices(&axes, rank)?,
        None => (0..rank).collect(),
    };
    let policy = cx.word("keep_aspect_ratio_policy")?.unwrap_or_else(|| "stretch".into());
    let cropped = options.coordinates == "tf_crop_and_resize";
    let roi = if cropped { cx.const_numbers(1, "region of interest")? } else { None };
    let scales = cx.const_numbers(2, "scales")?.filter(|s| !s.is_empty());
    match (scales, cx.const_ints(3, "target sizes")?.filter(|s| !s.is_empty())) {
        (Some(scales), None) => scaled(cx, x, &axes, &scales, roi.as_deref()),
        (None, Some(sizes)) => sized(cx, x, &axes, &sizes, &policy, roi.as_deref()),
        _ => refuse("needs either scales or sizes"),
    }
}

fn region(roi: Option<&[f64]>, i: usize, count: usize) -> [f64; 2] {
    let at = |j: usize, default| roi.and_then(|r| r.get(j)).copied().unwrap_or(default);
    [at(i, 0.0), at(i + count, 1.0)]
}

fn scaled(cx: &Cx, x: ValueId, axes: &[usize], scales: &[f64], roi: Option<&[f64]>) -> NodeResult<Vec<Axis>> {
    if scales.len() != axes.len() {
        return refuse(format!("{} scales do not fit {} axes", scales.len(), axes.len()));
    }
    let axis = |(i, (axis, scale)): (usize, (&usize, &f64))| {
        let roi = region(roi, i, axes.len());
        if *scale == 1.0 && roi == [0.0, 1.0] {
            return Ok(None);
        }
        let from = cx.fixed_dim(x, *axis)?;
        let to = (from as f64 * scale).floor() as i64;
        Ok(Some(Axis { axis: *axis, from, to, scale: *scale, roi }))
    };
    axes.iter().zip(scales).enumerate().map(axis).filter_map(NodeResult::transpose).collect()
}

fn sized(
    cx: &Cx,
    x: ValueId,
    axes: &[usize],
    sizes: &[i64],
    policy: &str,
    roi: Option<&[f64]>,
) -> NodeResult<Vec<Axis>> {
    if sizes.len() != axes.len() {
        return refuse(format!("{} sizes do not fit {} axes", sizes.len(), axes.len()));
    }
    let from = axes.iter().map(|a| cx.fixed_dim(x, *a)).collect::<NodeResult<Vec<i64>>>()?;
    let scales: Vec<f64> = sizes.iter().zip(&from).map(|(to, from)| *to as f64 / *from as f64).collect();
    let common = match policy {
        "stretch" => None,
        "not_larger" => Some(scales.iter().copied().fold(f64::INFINITY, f64::min)),
        "not_smaller" => Some(scales.iter().copied().fold(0.0, f64::max)),
        other => return refuse(format!("`keep_aspect_ratio_policy` `{other}` is not known")),
    };
    let axis = |i: usize| {
        let scale = common.unwrap_or(scales[i]);
        let to = if common.is_some() { (scale * from[i] as f64 + 0.5) as i64 } else { sizes[i] };
        Axis { axis: axes[i], from: from[i], to, scale, roi: region(roi, i, axes.len()) }
    };
    Ok((0..axes.len()).map(axis).filter(|a| a.from != a.to || a.roi != [0.0, 1.0]).collect())
}

/// The operand with one axis resized.
fn resized(cx: &mut Cx, x: ValueId, axis: &Axis, options: &Options) -> NodeResult<ValueId> {
    if axis.from < 1 || !(0..=LARGEST).contains(&axis.to) {
        return refuse(format!("a dim of {} cannot become one of {}", axis.from, axis.to));
    }
    let taps = (0..axis.to).map(|i| taps(axis, i, options)).collect::<NodeResult<Vec<Taps>>>()?;
    let (wide, own) = cx.widened(x)?;
    let count = taps.iter().map(|t| t.weights.len()).max().unwrap_or(0);
    let rank = cx.rank(x);
    let mut sum = None;
    for tap in 0..count {
        let position = |t: &Taps| (t.first + tap as i64).clamp(0, axis.from - 1);
        let weights: Vec<f64> = taps.iter().map(|t| t.weights.get(tap).copied().unwrap_or(0.0)).collect();
        if weights.iter().all(|w| *w == 0.0) {
            continue;
        }
        let positions = cx.integers(taps.iter().map(position).collect());
        let mut term = cx.emit(Op::Gather { axis: axis.axis as i64 }, &[wide, positions])?;
        if weights.iter().any(|w| *w != 1.0) {
            let weights = column(cx, term, &weights, axis.axis, rank)?;
            term = cx.mul(term, weights)?;
        }
        sum = Some(match sum {
            Some(sum) => cx.add(sum, term)?,
            None => term,
        });
    }
    let mut y = sum.ok_or_else(|| Refusal::new("the result is empty"))?;
    if taps.iter().any(|t| t.outside) {
        let outside = Tensor::new(&[taps.len()], taps.iter().map(|t| u8::from(t.outside)).collect())?;
        let outside = cx.constant(outside);
        let outside = cx.along(outside, axis.axis, rank)?;
        let value = cx.number(y, options.extrapolation)?;
        y = cx.choose(outside, value, y)?;
    }
    if own.is_int() {
        y = cx.unary(Op::Round {}, y)?;
    }
    cx.cast(y, own)
}

/// Constants of the type of `like` along one axis.
fn column(cx: &mut Cx, like: ValueId, values: &[f64], axis: usize, rank: usize) -> NodeResult<ValueId> {
    let mut dims = vec![1; rank];
    dims[axis] = values.len();
    let dtype = cx.ty(like).dtype;
    let tensor = Tensor::from_f64s(dtype, &dims, values, Overflow::Special)?;
    Ok(cx.constant(tensor))
}

/// The position in the operand of result `i`, and whether it lies outside of it.
fn source(axis: &Axis, i: i64, coordinates: &str) -> NodeResult<(f64, bool)> {
    let (from, to, i) = (axis.from as f64, axis.scale * axis.from as f64, i as f64);
    let half_pixel = (i + 0.5) / axis.scale - 0.5;
    let at = match coordinates {
        "half_pixel" => half_pixel,
        "half_pixel_symmetric" => half_pixel + from / 2.0 * (1.0 - axis.to as f64 / to),
        "pytorch_half_pixel" if to == 1.0 => -0.5,
        "pytorch_half_pixel" => half_pixel,
        "asymmetric" => i / axis.scale,
        "align_corners" if to == 1.0 => 0.0,
        "align_corners" => i * (from - 1.0) / (to - 1.0),
        "tf_crop_and_resize" => {
            let [start, end] = axis.roi;
            let length = (end - start) * (from - 1.0);
            let at = start * (from - 1.0) + if to == 1.0 { length / 2.0 } else { i * length / (to - 1.0) };
            return Ok((at, at < 0.0 || at > from - 1.0));
        }
        other => return refuse(format!("`coordinate_transformation_mode` `{other}` is not known")),
    };
    Ok((at, false))
}

fn taps(axis: &Axis, i: i64, options: &Options) -> NodeResult<Taps> {
    let (at, outside) = source(axis, i, &options.coordinates)?;
    // The element to the left is preferred: a whole position is the end of an interval.
    let whole = at == at.floor();
    let ratio = if whole { 1.0 } else { at - at.floor() };
    let left = at.floor() as i64 - i64::from(whole);
    let narrowed = if options.antialias { axis.scale.min(1.0) } else { 1.0 };
    let (reach, mut weights) = match options.mode.as_str() {
        "nearest" => (0, nearest(ratio, whole, &options.nearest)?),
        "linear" => kernel(ratio, narrowed, 1.0, |x| (1.0 - x.abs()).max(0.0)),
        "cubic" => kernel(ratio, narrowed, 2.0, |x| cubic(x, options.cubic_a)),
        other => return refuse(format!("mode `{other}` is not known")),
    };
    let first = left - reach;
    if options.exclude_outside {
        for (position, weight) in (first..).zip(&mut weights) {
            if !(0..axis.from).contains(&position) {
                *weight = 0.0;
            }
        }
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= if sum == 0.0 { 1.0 } else { sum });
    }
    Ok(Taps { first, weights, outside })
}

/// The weights of the elements to the left and to the right.
fn nearest(ratio: f64, whole: bool, mode: &str) -> NodeResult<Vec<f64>> {
    let right = whole
        || match mode {
            "round_prefer_floor" => ratio > 0.5,
            "round_prefer_ceil" => ratio >= 0.5,
            "floor" => false,
            "ceil" => true,
            other => return refuse(format!("`nearest_mode` `{other}` is not known")),
        };
    Ok(if right { vec![0.0, 1.0] } else { vec![1.0, 0.0] })
}

/// Elements before the left one, and the weights of all from there on, by a function that is 0 beyond
/// `radius` and is stretched where the result is smaller.
fn kernel(ratio: f64, scale: f64, radius: f64, f: impl Fn(f64) -> f64) -> (i64, Vec<f64>) {
    let first = (-radius / scale).floor() as i64 + 1;
    let weights: Vec<f64> = (first..2 - first).map(|i| f(scale * (i as f64 - ratio))).collect();
    let sum: f64 = if scale < 1.0 { weights.iter().sum() } else { 1.0 };
    (-first, weights.into_iter().map(|w| w / sum).collect())
}

fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    match x {
        _ if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}

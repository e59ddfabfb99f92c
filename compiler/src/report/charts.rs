//! The report's plots as SVG. Each colour stands for one role; the page's style sheet gives the
//! roles other values in the dark.

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::*;

use super::format::{has_exits, leaving, shown};
use crate::calibrate::{FixedDepth, Outcome, frontier};

/// Size of a plot in its own units; the page scales it.
const SIZE: (u32, u32) = (520, 338);
/// Axes and labels.
pub(super) const INK: RGBColor = RGBColor(0x57, 0x60, 0x6A);
/// Grid lines.
pub(super) const GRID: RGBColor = RGBColor(0xE1, 0xE4, 0xE8);
/// The dynamic model.
pub(super) const DYNAMIC: RGBColor = RGBColor(0x09, 0x69, 0xDA);
/// Static depths.
pub(super) const FIXED: RGBColor = RGBColor(0xBC, 0x4C, 0x00);
/// Random, same histogram; in the third plot, confidence.
pub(super) const LOT: RGBColor = RGBColor(0x82, 0x50, 0xDF);
/// Exits that are labelled at most; above, every second or third one is.
const LABELS: usize = 13;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws into an SVG element, without its fixed size, described by `label` for readers who do not
/// see it. A plot that fails leaves its reason.
fn svg(label: &str, draw: impl Fn(&Area<'_>) -> Drawn) -> String {
    let mut text = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw(&area).and_then(|()| Ok(area.present()?))
    };
    match drawn {
        Ok(()) => {
            let fixed = format!("<svg width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1);
            text.replacen(&fixed, &format!("<svg role=\"img\" aria-label=\"{label}\""), 1)
        }
        Err(reason) => format!("<p>This plot could not be drawn: {}</p>", super::html::escape(&reason.to_string())),
    }
}

fn text(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// A chart with room for labels.
fn framed<'a, 's>(area: &'a Area<'s>) -> ChartBuilder<'a, 'static, SVGBackend<'s>> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(8).x_label_area_size(52).y_label_area_size(52);
    chart
}

/// The look that all axes share.
fn styled<'m, 'a, 'b, X: Ranged, Y: Ranged, DB: DrawingBackend>(
    mesh: &'m mut MeshStyle<'a, 'b, X, Y, DB>,
) -> &'m mut MeshStyle<'a, 'b, X, Y, DB> {
    mesh.light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(text(15))
        .axis_desc_style(text(16))
}

/// Accuracy over executed work: the curve, its chosen point and the rivals.
pub(super) fn curve(outcome: &Outcome, measure: &str, base: &str) -> String {
    svg(&format!("{measure} over executed work"), |area| draw_curve(area, outcome, measure, base))
}

/// Points of `(work, accuracy)` in percent.
type Points = Vec<(f64, f64)>;

fn draw_curve(area: &Area<'_>, outcome: &Outcome, measure: &str, base: &str) -> Drawn {
    let percent = |work: f64, accuracy: f64| (100.0 * work, 100.0 * accuracy);
    let tried = outcome.curve.iter().map(|p| (percent(p.verify.macs_ratio, p.verify.accuracy), p.passed));
    let tried: Vec<((f64, f64), bool)> = tried.collect();
    let fixed: &[FixedDepth] = outcome.rivals.as_ref().map_or(&[], |r| &r.depths);
    let depths: Points = fixed.iter().map(|d| percent(d.macs_ratio, d.accuracy)).collect();
    let mixed = frontier(&fixed.iter().map(FixedDepth::choice).collect::<Vec<_>>()).into_iter().map(|i| depths[i]);
    let lot: Points = outcome.rivals.iter().map(|r| percent(r.random.macs_ratio, r.random.accuracy)).collect();
    let all = tried.iter().map(|(p, _)| p).chain(&depths).chain(&lot);
    let (low, high) = all.fold((100.0f64, 0.0f64), |(low, high), p| (low.min(p.1), high.max(p.1)));
    let room = (0.06 * (high - low)).max(0.5);
    let mut chart = framed(area)
        .margin_right(18)
        .build_cartesian_2d(0.0..102.0, (low - room)..(high + room).min(100.5).max(low + room))?;
    styled(&mut chart.configure_mesh())
        .x_labels(6)
        .x_desc(format!("executed work, % of the {base}"))
        .y_desc(format!("{measure}, %"))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    chart.draw_series(LineSeries::new(mixed, FIXED.stroke_width(1)))?;
    chart.draw_series(depths.iter().map(|p| TriangleMarker::new(*p, 5, FIXED.filled())))?;
    chart.draw_series(LineSeries::new(tried.iter().map(|(p, _)| *p), DYNAMIC.stroke_width(2)))?;
    chart.draw_series(tried.iter().map(|(p, passed)| {
        let style = if *passed { DYNAMIC.filled() } else { DYNAMIC.stroke_width(1) };
        Circle::new(*p, 3, style)
    }))?;
    chart.draw_series(lot.iter().map(|p| Cross::new(*p, 5, LOT.stroke_width(2))))?;
    if has_exits(outcome) {
        let m = shown(outcome);
        let point = percent(m.macs_ratio, m.accuracy);
        chart.draw_series([Circle::new(point, 8, DYNAMIC.stroke_width(2))])?;
    }
    Ok(())
}

/// How many samples leave where.
pub(super) fn histogram(outcome: &Outcome) -> String {
    svg("share of samples that leave at each exit", |area| draw_histogram(area, outcome))
}

fn draw_histogram(area: &Area<'_>, outcome: &Outcome) -> Drawn {
    let shares = leaving(outcome);
    let labels = labels(outcome);
    let most = shares.iter().copied().fold(0.01, f64::max);
    let mut chart =
        framed(area).build_cartesian_2d((0..shares.len() - 1).into_segmented(), 0.0..100.0 * most * 1.08)?;
    let every = labels.len().div_ceil(LABELS);
    let name = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(i) | SegmentValue::Exact(i) if i % every == 0 || i + 1 == labels.len() => {
            labels.get(*i).cloned().unwrap_or_default()
        }
        _ => String::new(),
    };
    styled(&mut chart.configure_mesh())
        .disable_x_mesh()
        .x_labels(labels.len())
        .x_desc("samples leave after")
        .y_desc("share, %")
        .x_label_formatter(&name)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    chart.draw_series(shares.iter().enumerate().map(|(i, share)| {
        let corners = [(SegmentValue::Exact(i), 0.0), (SegmentValue::Exact(i + 1), 100.0 * share)];
        let mut bar = Rectangle::new(corners, DYNAMIC.filled());
        bar.set_margin(0, 0, 3, 3);
        bar
    }))?;
    Ok(())
}

/// How right and how sure each head is.
pub(super) fn heads(outcome: &Outcome, measure: &str) -> String {
    svg(&format!("{measure} and mean confidence of each head"), |area| draw_heads(area, outcome))
}

/// Whether the mean confidences can stand on the same axis as accuracies.
pub(super) fn confidence_is_a_share(outcome: &Outcome) -> bool {
    outcome.exits.iter().all(|e| e.mean_confidence.is_some_and(|c| (0.0..=1.0).contains(&c)))
}

fn draw_heads(area: &Area<'_>, outcome: &Outcome) -> Drawn {
    let labels = labels(outcome);
    let exits = outcome.exits.iter().enumerate();
    let at = |value: &dyn Fn(usize) -> Option<f64>| -> Points {
        exits.clone().filter_map(|(i, _)| Some((i as f64, 100.0 * value(i)?))).collect()
    };
    let right = at(&|i| Some(outcome.exits[i].accuracy));
    let leave = at(&|i| outcome.exits[i].accuracy_of_leaving);
    let shares = confidence_is_a_share(outcome);
    let sure = at(&|i| outcome.exits[i].mean_confidence.filter(|_| shares));
    let last = outcome.exits.len() as f64 - 0.6;
    let mut chart = framed(area).build_cartesian_2d(-0.4..last, 0.0..104.0)?;
    let name = |x: &f64| {
        let i = x.round();
        let close = (x - i).abs() < 1e-6 && i >= 0.0;
        if close { labels[..outcome.exits.len()].get(i as usize).cloned().unwrap_or_default() } else { String::new() }
    };
    styled(&mut chart.configure_mesh())
        .disable_x_mesh()
        .x_labels(outcome.exits.len().min(LABELS))
        .x_desc("head after")
        .y_desc("%")
        .x_label_formatter(&name)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    chart.draw_series(LineSeries::new(right.iter().copied(), FIXED.stroke_width(2)))?;
    chart.draw_series(right.iter().map(|p| TriangleMarker::new(*p, 5, FIXED.filled())))?;
    chart.draw_series(LineSeries::new(sure.iter().copied(), LOT.stroke_width(1)))?;
    chart.draw_series(sure.iter().map(|p| Cross::new(*p, 4, LOT.stroke_width(2))))?;
    chart.draw_series(leave.iter().map(|p| Circle::new(*p, 4, DYNAMIC.filled())))?;
    Ok(())
}

/// Short names of the exits for an axis, then of the end: the number in "block 7" if each name has
/// one, else the exit's index.
fn labels(outcome: &Outcome) -> Vec<String> {
    let number = |name: &str| -> Option<String> {
        let digits: String = name.chars().rev().take_while(char::is_ascii_digit).collect();
        (!digits.is_empty()).then(|| digits.chars().rev().collect())
    };
    let numbers: Option<Vec<String>> = outcome.exits.iter().map(|e| number(&e.name)).collect();
    let all = numbers.unwrap_or_else(|| (0..outcome.exits.len()).map(|i| i.to_string()).collect());
    all.into_iter().chain(["end".to_owned()]).collect()
}

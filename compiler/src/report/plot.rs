//! The report's plots as inline SVG whose colours follow the page.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Calibration;

/// Stand-ins for the page's colours: plotters writes them as hex, which [`themed`] replaces.
const TEXT: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const DYNAMIC: RGBColor = RGBColor(3, 3, 3);
const FIXED: RGBColor = RGBColor(4, 4, 4);
const RANDOM: RGBColor = RGBColor(5, 5, 5);
const THEME: [(&str, &str); 5] = [
    ("#010101", "var(--text)"),
    ("#020202", "var(--grid)"),
    ("#030303", "var(--dynamic)"),
    ("#040404", "var(--fixed)"),
    ("#050505", "var(--random)"),
];

/// A drawing that failed; nothing that a model or file decides can cause it.
type Failed = Box<dyn std::error::Error>;

fn svg(size: (u32, u32), draw: impl FnOnce(&DrawingArea<SVGBackend, Shift>) -> Result<(), Failed>) -> String {
    let mut out = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut out, size).into_drawing_area();
        draw(&area).and_then(|()| area.present().map_err(Into::into))
    };
    match drawn {
        Ok(()) => themed(&out, size),
        Err(e) => format!("<p>The plot could not be drawn: {e}</p>"),
    }
}

/// Colours by CSS variable, and a size that follows the page's width.
fn themed(svg: &str, (width, height): (u32, u32)) -> String {
    let fixed = format!("<svg width=\"{width}\" height=\"{height}\"");
    let mut out = svg.replacen(&fixed, "<svg role=\"img\"", 1);
    for (stand_in, variable) in THEME {
        out = out.replace(&format!("\"{stand_in}\""), &format!("\"{variable}\""));
    }
    out
}

fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT)
}

/// Accuracy over work: the curve of policies, the fixed depths, the chosen point, random decisions.
pub(super) fn curve(c: &Calibration) -> String {
    let o = &c.outcome;
    let points: Vec<(f64, f64)> = o.curve.iter().map(|p| (p.verify.macs_ratio, 100.0 * p.verify.accuracy)).collect();
    let depths: Vec<(f64, f64)> =
        o.rivals.iter().flat_map(|r| &r.depths).map(|d| (d.macs_ratio, 100.0 * d.accuracy)).collect();
    let shown = o.refused.as_ref().map_or(&o.dynamic, |p| &p.verify);
    let chosen = (shown.macs_ratio, 100.0 * shown.accuracy);
    let all = || points.iter().chain(&depths).chain([&chosen]).map(|p| p.1);
    let (low, high) = (all().fold(100.0, f64::min), all().fold(0.0, f64::max));
    svg((720, 400), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..1.05, (low - 2.0)..(high + 2.0))?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(TEXT)
            .label_style(font(14))
            .x_desc("executed MACs, share of the plain model")
            .y_desc(format!("{}, %", c.measure()))
            .draw()?;
        chart.draw_series(LineSeries::new(points.iter().copied(), DYNAMIC.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, DYNAMIC.filled())))?;
        chart.draw_series(depths.iter().map(|p| Cross::new(*p, 5, FIXED.stroke_width(2))))?;
        if let Some(r) = &o.rivals {
            let at = (r.random.macs_ratio, 100.0 * r.random.accuracy);
            chart.draw_series([TriangleMarker::new(at, 7, RANDOM.filled())])?;
        }
        chart.draw_series([Circle::new(chosen, 8, DYNAMIC.stroke_width(3))])?;
        Ok(())
    })
}

/// Bars of shares between 0 and 1, one per name.
pub(super) fn bars(names: &[String], shares: &[f64], unit: &str) -> String {
    let count = names.len().max(1);
    let top = 100.0 * shares.iter().copied().fold(0.01, f64::max) * 1.1;
    svg((720, 300), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d((0..count).into_segmented(), 0.0..top)?;
        let label = |at: &SegmentValue<usize>| match at {
            SegmentValue::CenterOf(i) => names.get(*i).map(|n| n.replace("block ", "")).unwrap_or_default(),
            SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(TEXT)
            .label_style(font(14))
            .x_labels(count.min(28))
            .x_label_formatter(&label)
            .x_desc("after block")
            .y_desc(unit)
            .draw()?;
        chart.draw_series(shares.iter().enumerate().map(|(i, share)| {
            let (from, to) = (SegmentValue::Exact(i), SegmentValue::Exact(i + 1));
            let mut bar = Rectangle::new([(from, 0.0), (to, 100.0 * share)], DYNAMIC.filled());
            bar.set_margin(0, 0, 3, 3);
            bar
        }))?;
        Ok(())
    })
}

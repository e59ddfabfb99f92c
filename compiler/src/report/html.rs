//! The report as one HTML file: no script, nothing fetched, light and dark.

use super::{Calibration, Report, plot};

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1c2126; --soft: #5c6670; --grid: #dfe4e8; --page: #fff; --card: #f5f7f9;
  --dynamic: #1668c4; --fixed: #b4540a; --random: #7a3fa8; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ec; --soft: #9aa4ae; --grid: #363d44; --page: #14181b;
  --card: #1d2226; --dynamic: #64a8f5; --fixed: #f0a25c; --random: #c795ee; } }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.soft { color: var(--soft); } .verdict { font-size: 1.15rem; font-weight: 600; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; min-width: 100%; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.kept td { background: var(--card); font-weight: 600; }
svg { width: 100%; height: auto; display: block; }
.key span { margin-right: 1.2rem; white-space: nowrap; } .key b { font-weight: 700; }
";

/// Renders the page.
pub(super) fn render(report: &Report) -> String {
    let body = match &report.calibration {
        Some(c) => calibrated(c),
        None => {
            let reasons: String = report.no_exit.iter().map(|r| format!("<li>{}</li>", escape(r))).collect();
            format!("<p class=\"verdict\">No exit can stand anywhere in this model.</p><ul>{reasons}</ul>")
        }
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>eec: {model}</title><style>{STYLE}</style></head><body><main>\
         <h1>{model}</h1><p class=\"soft\">{data}, {samples} samples; head {head}, rule {rule}, seed {seed}</p>{body}\
         </main></body></html>\n",
        model = escape(&report.model),
        data = escape(&report.data),
        samples = report.samples,
        head = escape(&report.head),
        rule = escape(&report.rule),
        seed = report.seed,
    )
}

fn calibrated(c: &Calibration) -> String {
    let o = &c.outcome;
    let key = "<p class=\"key soft\"><span><b style=\"color:var(--dynamic)\">—</b> policies tried, ringed: taken</span>\
               <span><b style=\"color:var(--fixed)\">×</b> everyone leaves at one depth</span>\
               <span><b style=\"color:var(--random)\">▲</b> random, same histogram</span></p>";
    let shown = o.refused.as_ref().map_or(&o.dynamic, |p| &p.verify);
    let names: Vec<String> = o.exits.iter().map(|e| e.name.clone()).chain(["end".to_string()]).collect();
    let leaving: Vec<f64> =
        shown.exit_histogram.iter().map(|n| *n as f64 / c.verify_samples.max(1) as f64).collect();
    let accuracy: Vec<f64> = o.exits.iter().map(|e| e.accuracy).collect();
    [
        format!("<p class=\"verdict\">{}</p>", escape(&c.verdict())),
        comparison(c),
        format!("<p>{}</p>", escape(&c.bound())),
        format!("<h2>{} against work</h2>{key}{}", capitalised(c.measure()), plot::curve(c)),
        format!("<h2>Where samples leave</h2>{}", plot::bars(&names, &leaving, "samples, %")),
        format!(
            "<h2>If everyone left there</h2>{}",
            plot::bars(&names[..accuracy.len()], &accuracy, &format!("{}, %", c.measure()))
        ),
        exits(c),
        heads(c),
        format!(
            "<p class=\"soft\">Heads fitted and thresholds tuned on {} samples (each threshold on samples its head did \
             not see); every number above is from the other {}.</p>",
            c.tune_samples, c.verify_samples
        ),
    ]
    .concat()
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn table(header: &[&str], rows: impl Iterator<Item = (bool, Vec<String>)>) -> String {
    let head: String = header.iter().map(|h| format!("<th>{}</th>", escape(h))).collect();
    let body: String = rows
        .map(|(kept, cells)| {
            let cells: String = cells.iter().map(|c| format!("<td>{}</td>", escape(c))).collect();
            format!("<tr{}>{cells}</tr>", if kept { " class=\"kept\"" } else { "" })
        })
        .collect();
    format!("<div class=\"scroll\"><table><tr>{head}</tr>{body}</table></div>")
}

fn comparison(c: &Calibration) -> String {
    let rows = c.comparison().into_iter();
    let rows = rows.map(|(name, accuracy, macs)| (name == "dynamic", vec![name, percent(accuracy), format!("{macs:.3}")]));
    table(&["", c.measure(), "MACs, share of plain"], rows)
}

fn exits(c: &Calibration) -> String {
    let optional = |x: Option<String>| x.unwrap_or_else(|| "–".into());
    let rows = c.outcome.exits.iter().zip(&c.costs.head).map(|(e, head)| {
        let cells = vec![
            e.name.clone(),
            if e.kept { "kept".into() } else { "–".into() },
            optional(e.threshold.map(|t| format!("{t:.4}"))),
            percent(e.accuracy),
            percent(e.leaving as f64 / c.verify_samples.max(1) as f64),
            optional(e.accuracy_of_leaving.map(percent)),
            head.to_string(),
        ];
        (e.kept, cells)
    });
    let header = ["exit after", "", "threshold", "right, everyone", "leave", "right when leaving", "head MACs"];
    format!("<h2>Candidate exits</h2>{}", table(&header, rows))
}

fn heads(c: &Calibration) -> String {
    if c.heads.is_empty() {
        return String::new();
    }
    let rows = c.heads.iter().map(|h| {
        let cells = vec![
            h.candidate.clone(),
            h.features.to_string(),
            h.parameters.to_string(),
            format!("{:.1e}", h.l2),
            format!("{:.3} → {:.3}", h.first_loss, h.final_loss),
            h.iterations.to_string(),
            percent(h.train_agreement),
        ];
        (false, cells)
    });
    let header = ["head after", "features", "parameters", "L2", "loss, nats", "iterations", "agrees with the model"];
    format!("<h2>Fits</h2>{}", table(&header, rows))
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_markup() {
        let report = Report {
            schema: super::super::SCHEMA,
            model: "<script>alert(\"1\")</script>.onnx".into(),
            data: "a&b.npz".into(),
            samples: 1,
            head: "linear".into(),
            rule: "maxprob".into(),
            seed: 0,
            calibration: None,
            no_exit: vec!["block 1: <b>".into()],
        };
        let html = render(&report);
        assert!(!html.contains("<script") && !html.contains("<b>"));
        assert!(html.contains("&lt;script&gt;") && html.contains("a&amp;b.npz"));
    }
}

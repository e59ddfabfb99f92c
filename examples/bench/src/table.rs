//! The result as lines of a table and as JSON.

use serde_json::{Value, json};

use crate::timing::{Figures, Timed, TimedEngine};

/// The table's head.
pub const HEADER: &str = "\
| case | threads | engine | ms | its time / eec's | least / eec's least | load to first result, ms | peak memory, MiB |
|---|---|---|---|---|---|---|---|";

/// One line per engine; with exits a last one that compares with the ideal.
pub fn rows(timed: &Timed) -> String {
    let eec = timed.engines.first().and_then(|e| e.result.as_ref().ok());
    let mut lines: Vec<String> = timed.engines.iter().map(|e| row(timed, e, eec)).collect();
    if let (Some(share), Some(ratio)) = (timed.macs_ratio, ideal_ratio(timed)) {
        lines.push(format!(
            "| {} | {} | share of MACs {share:.3} | | {ratio:.3} of ideal | | | |",
            timed.case, timed.threads
        ));
    }
    lines.join("\n")
}

fn row(timed: &Timed, engine: &TimedEngine, eec: Option<&Figures>) -> String {
    let start = format!("| {} | {} | {} |", timed.case, timed.threads, engine.name);
    match &engine.result {
        Err(why) => format!("{start} – {} | | | | |", why.replace('|', "/")),
        Ok(f) => {
            let ratio = |of: fn(&Figures) -> f64| eec.map_or(f64::NAN, |eec| of(f) / of(eec));
            let (median, least) = (ratio(Figures::median), ratio(|f| f.times[0]));
            format!("{start} {:.3} | {median:.2} | {least:.2} | {:.0} | {:.0} |", f.median(), f.load_ms, f.peak_mb)
        }
    }
}

/// For a model with exits: the plain model's time times the executed share of its MACs, divided by the time it took.
fn ideal_ratio(timed: &Timed) -> Option<f64> {
    let [dynamic, plain, ..] = &timed.engines[..] else { return None };
    let (dynamic, plain) = (dynamic.result.as_ref().ok()?, plain.result.as_ref().ok()?);
    Some(plain.median() * timed.macs_ratio? / dynamic.median())
}

/// All figures.
pub fn json(timed: &Timed) -> Value {
    let engines: Vec<Value> = timed.engines.iter().map(engine).collect();
    json!({
        "case": timed.case, "threads": timed.threads, "engines": engines,
        "macs_ratio": timed.macs_ratio, "of_ideal": ideal_ratio(timed),
    })
}

fn engine(engine: &TimedEngine) -> Value {
    match &engine.result {
        Err(why) => json!({ "engine": engine.name, "error": why }),
        Ok(f) => json!({
            "engine": engine.name, "median_ms": f.median(), "min_ms": f.times[0], "times_ms": f.times,
            "load_ms": f.load_ms, "peak_mb": f.peak_mb,
        }),
    }
}

//! A run's timeline in Chrome's trace format, which Perfetto opens.

use eec_runtime::{Run, Span, SpanKind};
use serde_json::{Value, json};

/// Tracks of a trace.
const HOST: u32 = 1;
const GPU: u32 = 2;

/// The events of a run: what the host did, what the GPU did, and a mark where an exit decided.
pub(super) fn trace(run: &Run, model: &str) -> Value {
    let process = |name: &str| json!({ "ph": "M", "name": "process_name", "pid": 1, "args": { "name": name } });
    let track = |tid: u32, name: &str| json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": { "name": name } });
    let mut events = vec![process(model), track(HOST, "host"), track(GPU, "gpu")];
    for span in &run.timeline {
        events.push(event(span));
        // An exit behind a join decides for either side; its rows are those of both.
        if let SpanKind::Exit(exit) = span.kind {
            let rows = run.counters.exit_rows.get(exit).copied().unwrap_or(0);
            events.push(json!({
                "ph": "i", "s": "p", "name": format!("{}: {rows} rows", span.name), "cat": "exit",
                "pid": 1, "tid": GPU, "ts": us(span.end_ns), "args": { "rows": rows, "reached": span.ran },
            }));
        }
    }
    json!({ "displayTimeUnit": "ns", "traceEvents": events })
}

fn event(span: &Span) -> Value {
    let (track, category) = match span.kind {
        SpanKind::Host => (HOST, "host"),
        SpanKind::Kernel => (GPU, "kernel"),
        SpanKind::Flow => (GPU, "flow"),
        SpanKind::Exit(_) => (GPU, "exit"),
    };
    let name = if span.ran { span.name.clone() } else { format!("{} (skipped)", span.name) };
    json!({
        "ph": "X", "name": name, "cat": category, "pid": 1, "tid": track,
        "ts": us(span.start_ns), "dur": us(span.end_ns - span.start_ns), "args": { "ran": span.ran },
    })
}

/// Microseconds, as the format counts.
fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use eec_runtime::Counters;

    #[test]
    fn exits_are_marked_with_their_rows() {
        let span = |name: &str, kind, start_ns, end_ns, ran| Span { name: name.into(), kind, start_ns, end_ns, ran };
        let run = Run {
            outputs: Vec::new(),
            counters: Counters { exit_rows: vec![8, 3], ..Counters::default() },
            timeline: vec![
                span("record", SpanKind::Host, 0, 1500, true),
                span("exit after block 2", SpanKind::Exit(1), 2000, 2500, true),
                span("MatMul", SpanKind::Kernel, 2500, 2600, false),
            ],
        };
        let trace = trace(&run, "m");
        let events = trace["traceEvents"].as_array().expect("events");
        let marks: Vec<&Value> = events.iter().filter(|e| e["ph"] == "i").collect();
        assert_eq!(marks.len(), 1);
        assert_eq!((&marks[0]["ts"], &marks[0]["args"]["rows"]), (&json!(2.5), &json!(3)));
        let skipped = events.iter().find(|e| e["name"] == "MatMul (skipped)").expect("the skipped kernel");
        assert_eq!((&skipped["ts"], &skipped["dur"], &skipped["tid"]), (&json!(2.5), &json!(0.1), &json!(GPU)));
    }
}

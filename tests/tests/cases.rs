//! Every case under `cases/`: parse, verify, run the passes with the verifier between them, compare
//! values before and after, run the result on every backend, then compare the text with the snapshot.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use eec::cases::{Case, CaseError, Compare, emit, exit_count, run_passes, seeded_inputs};
use eec_ir::text::{parse, pool_resolver};
use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, Tensor};
use eec_passes::exit_heads::EXIT_INDEX;
use eec_passes::pass::Context;
use eec_tests::backend::{Backend, COMPILED};
use eec_tests::files::{cases, for_each, read};
use eec_tests::values::{check, check_all, output, row};

/// Backends may sum in another order than the evaluator.
const BACKENDS: f32 = 1e-4;

#[test]
fn cases_hold() {
    for_each(&cases(""), |path| {
        let source = read(path);
        // Read by itself: the header as a whole may be what is refused.
        let expected = source.lines().find_map(|l| l.strip_prefix(";! expect-error = "));
        let expected = expected.map(|e| e.trim_matches('"').to_string());
        let text = match (run(&source), expected) {
            (Ok(outcome), None) => {
                ground(&outcome)?;
                outcome.text
            }
            (Err(e), Some(part)) if e.to_string().contains(&part) => e.to_string(),
            (Err(e), Some(part)) => return Err(format!("expected an error with `{part}`, found: {e}")),
            (Ok(_), Some(part)) => return Err(format!("expected an error with `{part}`, found none")),
            (Err(e), None) => return Err(e.to_string()),
        };
        snapshot(path, &text)
    });
}

struct Outcome {
    case: Case,
    before: Graph,
    after: Graph,
    text: String,
}

fn run(source: &str) -> Result<Outcome, CaseError> {
    let case = Case::new(source)?;
    let before = case.graph()?;
    let mut after = before.clone();
    run_passes(&mut after, &case.header.passes, &mut Context::default())?;
    let text = emit(&after, case.header.emit)?;
    Ok(Outcome { case, before, after, text })
}

/// Judges the values, and that the text form loses nothing.
fn ground(outcome: &Outcome) -> Result<(), String> {
    let Outcome { case, before, after, .. } = outcome;
    let printed = after.to_string();
    let again = parse(&printed, &mut pool_resolver(after.constants())).map_err(|e| e.to_string())?;
    if again.to_string() != printed {
        return Err(format!("read back, the graph prints as\n{again}"));
    }
    let lowerable = verify(after, Stage::Lowerable).is_ok();
    let backends = if lowerable { COMPILED } else { &[] };
    let mut prepared = backends.iter().map(|b| b.prepare(after)).collect::<Result<Vec<_>, _>>()?;
    for sizes in case.sizes(before).map_err(|e| e.to_string())? {
        let inputs = seeded_inputs(before, &sizes).map_err(|e| e.to_string())?;
        let plain = Backend::Evaluator.prepare(before)?.run(&inputs)?;
        let made = Backend::Evaluator.prepare(after)?.run(&inputs)?;
        compare(case.header.compare, (before, &plain), (after, &made)).map_err(|e| format!("{sizes:?}: {e}"))?;
        for (backend, prepared) in backends.iter().zip(&mut prepared) {
            let at = |e: String| format!("{backend:?} at {sizes:?}: {e}");
            let have = prepared.run(&inputs).map_err(at)?;
            check_all(after, &have, &made, BACKENDS).map_err(at)?;
        }
    }
    Ok(())
}

/// Compares the outputs that both graphs have. Where samples may leave early, those that ran to the
/// end are compared.
fn compare(how: Compare, before: (&Graph, &[Tensor]), after: (&Graph, &[Tensor])) -> Result<(), String> {
    let tolerance = match how {
        Compare::Exact => 0.0,
        Compare::Within(tolerance) => tolerance,
        Compare::Differs => return Ok(()),
    };
    let ends = exit_count(after.0) as i64;
    let left = output(after.0, after.1, EXIT_INDEX).and_then(Tensor::to_i64s);
    for (name, want) in before.0.output_names().iter().zip(before.1) {
        let have = output(after.0, after.1, name).ok_or_else(|| format!("the output {name} is gone"))?;
        match &left {
            None => check(name, have, want, tolerance)?,
            Some(left) => {
                for r in (0..left.len()).filter(|r| left[*r] == ends) {
                    check(&format!("{name}, row {r}"), &row(have, r), &row(want, r), tolerance)?;
                }
            }
        }
    }
    Ok(())
}

fn snapshot(path: &Path, text: &str) -> Result<(), String> {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(path.parent().unwrap_or(path));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let check = || settings.bind(|| insta::assert_snapshot!(name, text));
    catch_unwind(AssertUnwindSafe(check)).map_err(|_| "the text differs from the snapshot; see above".to_string())
}

//! Whether what a case gives computes what it should, on the evaluator and on every backend.

use eec_ir::text::{parse, pool_resolver};
use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, Tensor};
use eec_passes::exit_heads::EXIT_INDEX;

use super::backend::{Backend, COMPILED};
use super::values::{check, check_all, output, row};
use super::{Case, Compare, Outcome, exit_count, seeded_inputs};

/// Backends may sum in another order than the evaluator.
const BACKENDS: f32 = 1e-4;

/// [`Case::judge`].
pub(super) fn judge(case: &Case, outcome: &Outcome) -> Result<(), String> {
    let Outcome { before, after, .. } = outcome;
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
        compare(case.header.compare, (before, &plain), (after, &made))
            .map_err(|e| format!("the evaluator at {sizes:?}: {e}"))?;
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

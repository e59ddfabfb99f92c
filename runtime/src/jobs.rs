//! Steps that run as one job: neighbouring products by constant matrices that need nothing of each other
//! and are stored alike, like those for queries, keys and values. Code and memory are both planned by these
//! jobs, since no result may lie where another product of the job still reads.

use eec_ir::program::{Form, MatMul, Program, Source, Step};

/// Products of a job at most.
pub(crate) const MAX_PRODUCTS: usize = 4;

/// `steps` as jobs: several products, or one step.
pub(crate) fn jobs<'p>(program: &'p Program, mut steps: &'p [Step]) -> impl Iterator<Item = &'p [Step]> {
    std::iter::from_fn(move || {
        let count = together(program, steps).max(1);
        let (job, rest) = steps.split_at_checked(count)?;
        steps = rest;
        Some(job)
    })
}

/// How many steps at the beginning are products of one job.
fn together(program: &Program, steps: &[Step]) -> usize {
    let mut products: Vec<&MatMul> = Vec::new();
    for step in steps.iter().take(MAX_PRODUCTS) {
        let Some(product) = by_constant(program, step) else { break };
        let reads = [&product.a].into_iter().chain(&product.bias);
        let mut touched = reads.chain([&product.c]).map(|view| view.buffer);
        let other_weights = products.first().is_some_and(|before| before.weights != product.weights);
        if other_weights || touched.any(|buffer| products.iter().any(|before| before.c.buffer == buffer)) {
            break;
        }
        products.push(product);
    }
    products.len()
}

/// The product of a step without batch dims, by a constant, with a dense bias and an epilogue without
/// operands if any.
fn by_constant<'p>(program: &'p Program, step: &Step) -> Option<&'p MatMul> {
    let Step::Run(id) = step else { return None };
    let Form::MatMul(form) = &program.kernel(*id).form else { return None };
    let constant = matches!(program.buffer(form.b.buffer).source, Source::Constant(_));
    let dense_bias = form.bias.as_ref().is_none_or(|bias| bias.strides[0].as_const() == Some(1));
    let no_operands = form.epilogue.as_ref().is_none_or(|e| e.operands.is_empty());
    (constant && dense_bias && no_operands && form.batch.is_empty()).then_some(form)
}

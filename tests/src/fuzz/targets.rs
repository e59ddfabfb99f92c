//! What each target does with an input.

use eec::cases::{lowered, seeded_constant, seeded_inputs};
use eec::fit::random::Random;
use eec::model::{Form, Model, session_of, simplified};
use eec::npz::read_npz;
use eec::onnx::{ImportOptions, Limits, import_bytes_with};
use eec_ir::bind::Sizes;
use eec_ir::minifloat::Overflow;
use eec_ir::text::{parse, pool_resolver};
use eec_ir::verify::{Stage, verify};
use eec_ir::{Dim, Graph, Tensor, ValueId, eval};
use eec_passes::clone::{Changes, clone_nodes, with_inputs};
use eec_passes::pass::{Context, Pass};
use eec_passes::simplify::Simplify;
use eec_runtime::{Control, Options};

use super::{Target, graphs};
use crate::backend::run;
use crate::values::check_all;

/// What inputs may ask for here: little, so that many fit into a second.
const LIMITS: Limits = Limits { rank: 16, nodes: 2000, depth: 16, steps: 40, constant_bytes: 16 << 20 };

/// The most elements that the values of a graph may have together to be computed.
const MOST_ELEMENTS: i64 = 1 << 18;

pub(super) fn feed(target: Target, input: &[u8]) -> Result<(), String> {
    match target {
        Target::OnnxBytes => onnx(input),
        Target::IrText => text(input),
        Target::ArtifactBytes => artifact(input),
        Target::NpzBytes => npz(input),
        Target::Passes => passes(input),
    }
}

fn onnx(input: &[u8]) -> Result<(), String> {
    let options = ImportOptions { limits: LIMITS, ..ImportOptions::default() };
    let Ok(graph) = import_bytes_with(input, "input", None, &options) else { return Ok(()) };
    verify(&graph, Stage::Imported).map_err(|e| format!("an imported graph is not valid: {e}"))?;
    compute(&graph)
}

/// Simplifies, lowers and, if it is small, runs a graph.
fn compute(graph: &Graph) -> Result<(), String> {
    let Ok(plain) = simplified(graph.clone()) else { return Ok(()) };
    let Ok(program) = lowered(&plain) else { return Ok(()) };
    let Some((_, inputs)) = small(&plain) else { return Ok(()) };
    let Ok(mut session) = session_of(program, &plain, options()) else { return Ok(()) };
    // The evaluator takes no limit of steps: it follows what ran within one.
    let Ok(ran) = run(&mut session, &plain, &inputs, Control::Auto) else { return Ok(()) };
    let Ok(want) = eval::evaluate(&plain, &inputs) else { return Ok(()) };
    let have: Vec<Tensor> = ran.outputs.into_iter().map(|(_, tensor)| tensor).collect();
    let Err(difference) = check_all(&plain, &have, &want, TOLERANCE) else { return Ok(()) };
    match is_steady(&plain, &inputs, &want)? {
        true => Err(format!("the compiled model differs from its evaluator: {difference}")),
        false => Ok(()),
    }
}

/// How sessions run here.
fn options() -> Options {
    Options { threads: 1, memory_limit: 256 << 20, step_limit: 1 << 12, ..Options::default() }
}

/// What rounding may make of a result, as a difference and as a share of it.
const TOLERANCE: f32 = 1e-3;

/// Beyond this, products of a few constants come near the largest float.
const HUGE: f64 = 1e9;

/// Whether the outputs stay much the same where all floats of inputs and constants are a little larger or smaller,
/// each in its own way. Where they do not, as where a difference of large numbers or a comparison decides, rounding
/// may make anything of them; so may sums of constants that are huge, which overflow in one order and not in
/// another, and products of the zeros of a pad with what is no number. Fails if the graph with other constants cannot be made.
fn is_steady(graph: &Graph, inputs: &[Tensor], outputs: &[Tensor]) -> Result<bool, String> {
    let constants = (0..graph.value_count()).map(ValueId::new).filter_map(|value| graph.as_constant(value));
    let mut floats = constants.filter(|tensor| tensor.dtype().is_float());
    if floats.any(|tensor| tensor.to_f64s().iter().any(|x| x.is_nan() || x.abs() > HUGE)) {
        return Ok(false);
    }
    for seed in 1..=2 {
        let mut random = Random::new(seed);
        let moved: Vec<Tensor> = inputs.iter().map(|t| moved(t, &mut random)).collect();
        let (mut other, mut map) = with_inputs(graph);
        for value in (0..graph.value_count()).map(ValueId::new) {
            if let Some(tensor) = graph.as_constant(value) {
                map.insert(value, other.constant(self::moved(tensor, &mut random)));
            }
        }
        let nodes = &graph.region(Graph::ROOT).nodes;
        clone_nodes(graph, nodes, &mut other, Graph::ROOT, &mut map, Changes::default())
            .map_err(|e| format!("a copy of the graph cannot be made: {e}"))?;
        let named = graph.output_names().iter().zip(graph.outputs());
        let named = named.map(|(name, v)| Some((name.to_string(), *map.get(v)?)));
        other.set_outputs(named.collect::<Option<_>>().ok_or("a copy of the graph lacks an output")?);
        // Where a larger input makes an index or a divisor invalid, nothing is steady.
        let Ok(found) = eval::evaluate(&other, &moved) else { return Ok(false) };
        if check_all(graph, &found, outputs, TOLERANCE / 10.0).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A float tensor with every element a little larger or smaller; any other as it is.
fn moved(tensor: &Tensor, random: &mut Random) -> Tensor {
    if !tensor.dtype().is_float() {
        return tensor.clone();
    }
    let elements = tensor.to_f64s().into_iter().map(|x| x * (1.0 + 2e-5 * (random.uniform() - 0.5)));
    let moved = Tensor::from_f64s(tensor.dtype(), tensor.dims(), &elements.collect::<Vec<_>>(), Overflow::Special);
    moved.unwrap_or_else(|_| tensor.clone())
}

/// Sizes and inputs of a graph, if all its values together are small under them.
fn small(graph: &Graph) -> Option<(Sizes, Vec<Tensor>)> {
    let mut symbols = std::collections::BTreeSet::new();
    graph.inputs().iter().flat_map(|v| &graph.ty(*v).dims).for_each(|d| d.collect_symbols(&mut symbols));
    let sizes: Sizes = symbols.into_iter().zip((1..4).cycle()).collect();
    let nodes = graph.nodes_in_order();
    let values = nodes.iter().flat_map(|n| &graph.node(*n).outputs).chain(graph.inputs());
    let size = |d: &Dim| d.eval(&|s| Some(sizes.get(s).copied().unwrap_or(3)));
    let mut total = 0i64;
    for value in values {
        let elements = graph.ty(*value).dims.iter().map(size).try_fold(1i64, |n, d| n.checked_mul(d?.max(1)));
        total = total.checked_add(elements?)?;
    }
    if total > MOST_ELEMENTS {
        return None;
    }
    let inputs = seeded_inputs(graph, &sizes).ok()?;
    Some((sizes, inputs))
}

fn text(input: &[u8]) -> Result<(), String> {
    let source = String::from_utf8_lossy(input);
    let few = |dims: &[usize]| dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).is_some_and(|n| n <= 1 << 16);
    let Ok(graph) = parse(&source, &mut |c| few(&c.dims).then(|| seeded_constant(c))) else { return Ok(()) };
    let printed = graph.to_string();
    let again = parse(&printed, &mut pool_resolver(graph.constants()));
    let again = again.map_err(|e| format!("what is printed is not read: {e}"))?.to_string();
    if again != printed {
        return Err("what is printed, read and printed again differs".into());
    }
    if verify(&graph, Stage::Imported).is_ok() { compute(&graph) } else { Ok(()) }
}

fn artifact(input: &[u8]) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    std::fs::write(file.path(), input).map_err(|e| e.to_string())?;
    let Ok(model) = Model::open(file.path()) else { return Ok(()) };
    let Ok(mut session) = model.session(Form::Dynamic, options()) else { return Ok(()) };
    if let Some((_, inputs)) = small(&model.plain) {
        let _ = run(&mut session, &model.plain, &inputs, Control::Auto);
    }
    Ok(())
}

fn npz(input: &[u8]) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    std::fs::write(file.path(), input).map_err(|e| e.to_string())?;
    let _ = read_npz(file.path());
    Ok(())
}

/// Simplification changes no bit of any output.
fn passes(input: &[u8]) -> Result<(), String> {
    let graph = graphs::of_bytes(input);
    let sizes: Sizes = [("batch", 3), ("seq len", 2), ("r0", 4)].map(|(s, n)| (eec_ir::Symbol::new(s), n)).into();
    let inputs = seeded_inputs(&graph, &sizes).map_err(|e| e.to_string())?;
    let Ok(before) = eval::evaluate(&graph, &inputs) else { return Ok(()) };
    let mut simple = graph.clone();
    Simplify.run(&mut simple, &mut Context::default()).map_err(|e| format!("simplify: {e}"))?;
    verify(&simple, Stage::Typed).map_err(|e| format!("after simplify: {e}"))?;
    let after = eval::evaluate(&simple, &inputs).map_err(|e| format!("after simplify: {e}"))?;
    check_all(&simple, &after, &before, 0.0)
}

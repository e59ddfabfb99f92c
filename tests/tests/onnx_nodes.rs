//! The node and model tests of the ONNX standard through import, lowering and the CPU runtime.
//!
//! What does not pass stands in `onnx_nodes.txt` or `onnx_models.txt` with its reason. A test that passes and is listed, or
//! fails for another reason than the listed one, fails this suite; `EEC_UPDATE=1` writes the list anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use eec::compare::{Tolerance, compare};
use eec::npz::Arrays;
use eec::onnx::{
    Cpu, FixedInput, ImportError, ImportErrorKind, ImportOptions, Operator, Unsupported, import_bytes_with, operators,
    read_tensor_file,
};
use eec_ir::program::Form;
use eec_ir::{Graph, Tensor};
use eec_passes::pass::{Context, Pass};
use eec_passes::simplify::Simplify;
use eec_runtime::Control;
use eec_tests::backend::{cpu, run};
use eec_tests::shared::python;

/// Kinds of value and operator that eec does not set out to support, as import names them.
const OUT_OF_SCOPE: &[(&str, &str)] = &[
    ("string", "strings"),
    ("not a tensor", "sequences and optionals"),
    ("ai.onnx.ml.", "the ml domain"),
    ("ai.onnx.preview.training.", "the training domain"),
    ("ImageDecoder", "image files"),
];

/// Tests whose expected values are rounded otherwise than those found here, by more than the tolerance.
struct Rounded {
    tests: &'static [&'static str],
    /// How far the values are apart at most.
    most: f64,
    /// What is rounded, and where.
    reason: &'static str,
}

const ROUNDED: &[Rounded] = &[
    Rounded {
        tests: &[
            "test_attention_3d_causal_bf16",
            "test_attention_4d_attn_mask_causal_bf16",
            "test_attention_4d_causal_bf16",
            "test_attention_4d_causal_padded_kv_bf16",
            "test_attention_4d_padded_kv_bf16",
        ],
        most: 1.0 / 256.0,
        reason: "expected values are rounded to bfloat16 at every step, found ones are the exact ones rounded once; \
                 a bfloat16 step is 4 to 8 times the tolerance",
    },
    Rounded {
        tests: &[
            "test_attention_3d_causal_bf16_expanded",
            "test_attention_4d_attn_mask_causal_bf16_expanded",
            "test_attention_4d_causal_bf16_expanded",
            "test_attention_4d_causal_padded_kv_bf16_expanded",
            "test_attention_4d_padded_kv_bf16_expanded",
        ],
        most: 1.0 / 256.0,
        reason: "the expected Softmax rounds exponentials and sums to bfloat16 too, the found one its result alone; \
                 a bfloat16 step is 4 to 8 times the tolerance",
    },
    Rounded {
        tests: &["test_attention_4d_causal_fp16_expanded"],
        most: 1.0 / 2048.0,
        reason: "the expected Softmax rounds exponentials and sums to float16 too, the found one its result alone; \
                 2 of 192 elements are two float16 steps apart, which is more than the tolerance",
    },
    Rounded {
        tests: &["test_dft_inverse", "test_dft_inverse_opset19"],
        most: 8e-6,
        reason: "expected values are those of an FFT in float32: 10 that are 0 err by more than the tolerance there, 1e-7",
    },
];

/// How a test passed.
#[derive(Clone, Default)]
struct Passed {
    /// With inputs that decide shapes or attributes fixed to the test's values when the model was read.
    fixed: bool,
    /// The operator, of a test of only one.
    operator: Option<String>,
    /// With kernels that are evaluators, on element types that loops compute with alone.
    host: Option<bool>,
}

type Outcome = Result<Passed, String>;

/// What the Python script says of a test.
#[derive(serde::Deserialize)]
struct About {
    rtol: f32,
    atol: f32,
    operators: Vec<String>,
}

#[test]
fn node_tests_of_the_standard() {
    let Some(outcomes) = outcomes("write_node_tests.py") else { return };
    check_operators(&outcomes);
    check_rounded(&outcomes);
    check_list("onnx_nodes.txt", &outcomes);
}

#[test]
fn model_tests_of_the_standard() {
    let Some(outcomes) = outcomes("write_model_tests.py") else { return };
    check_list("onnx_models.txt", &outcomes);
}

/// What becomes of the tests that a script writes from the Python package `onnx`.
fn outcomes(script: &str) -> Option<BTreeMap<String, Outcome>> {
    let python = python()?;
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("no folder: {e}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let done = Command::new(&python).arg(script).arg(folder.path()).output();
    let done = done.unwrap_or_else(|e| panic!("{}: {e}", python.display()));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(run_all(&tests_in(folder.path())))
}

/// Compares what does not pass with the list in the file `name`.
fn check_list(name: &str, outcomes: &BTreeMap<String, Outcome>) {
    let found = listing(outcomes);
    println!("{}", found.lines().take_while(|l| l.starts_with('#')).collect::<Vec<_>>().join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("EEC_UPDATE").is_some() {
        std::fs::write(&path, found).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        return;
    }
    let listed = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (listed, found): (BTreeSet<&str>, BTreeSet<&str>) = (listed.lines().collect(), found.lines().collect());
    let changes: Vec<String> = (found.difference(&listed).map(|l| format!("now    {l}")))
        .chain(listed.difference(&found).map(|l| format!("listed {l}")))
        .collect();
    assert!(changes.is_empty(), "{name} differs (EEC_UPDATE=1 writes it anew):\n{}", changes.join("\n"));
}

fn tests_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let wanted = std::env::var("EEC_CASE").unwrap_or_default();
    let mut tests: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    tests.retain(|t| name_of(t).contains(&wanted));
    tests.sort();
    assert!(!tests.is_empty() || !wanted.is_empty(), "no tests");
    tests
}

fn name_of(test: &Path) -> String {
    test.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Runs the tests on all cores.
fn run_all(tests: &[PathBuf]) -> BTreeMap<String, Outcome> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = std::panic::catch_unwind(|| run_test(test)).unwrap_or_else(|_| Err("it panics".into()));
            done.push((name_of(test), outcome));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap_or_default()).collect()
    })
}

fn run_test(test: &Path) -> Outcome {
    let bytes = std::fs::read(test.join("model.onnx")).map_err(|e| e.to_string())?;
    let about = std::fs::read_to_string(test.join("test.json")).map_err(|e| e.to_string())?;
    let about: About = serde_json::from_str(&about).map_err(|e| e.to_string())?;
    let tolerance = Tolerance { atol: about.atol, rtol: about.rtol };
    let operator = if let [one] = about.operators.as_slice() { Some(one.clone()) } else { None };
    let mut passed = Passed { operator, ..Passed::default() };
    for data in (0..).map(|n| test.join(n.to_string())).take_while(|d| d.is_dir()) {
        let read = |kind: &str| -> Result<Vec<(String, Tensor)>, ImportError> {
            let files = (0..).map(|k| data.join(format!("{kind}_{k}.pb"))).take_while(|f| f.is_file());
            files.map(|f| read_tensor_file(&f)).collect()
        };
        let inputs = read("input");
        let known = inputs.as_ref().map_or(Arrays::new(), |i| i.iter().cloned().collect());
        let (graph, fixed) = import_for(&bytes, &known)?;
        passed.fixed |= fixed;
        let inputs: Vec<(String, Tensor)> = inputs.map_err(|e| e.to_string())?;
        let outputs = read("output").map_err(|e| e.to_string())?;
        let host = check(&graph, &inputs, &outputs, tolerance).map_err(|failure| match failure {
            Failure::Differs(by) => difference(&name_of(test), by),
            Failure::Other(reason) => reason,
        })?;
        if inputs.iter().chain(&outputs).all(|(_, t)| t.dtype().is_compiled()) {
            passed.host = Some(host);
        }
    }
    Ok(passed)
}

/// The graph, and whether inputs had to be fixed for it.
fn import_for(model: &[u8], inputs: &Arrays) -> Result<(Graph, bool), String> {
    let mut options = ImportOptions::default();
    loop {
        let error = match import_bytes_with(model, "model", None, &options) {
            Ok(graph) => return Ok((graph, !options.inputs.is_empty())),
            Err(error) => error,
        };
        let deciding = match error.kind() {
            ImportErrorKind::Unsupported(list) => list.deciding_inputs(),
            _ => BTreeSet::new(),
        };
        let before = options.inputs.len();
        let fixed = |name: &str| Some((name.to_string(), FixedInput::Tensor(inputs.get(name)?.clone())));
        options.inputs.extend(deciding.into_iter().filter_map(fixed));
        if options.inputs.len() == before {
            return Err(reason(&error));
        }
    }
}

/// A failed import in few words, the same for all that fail alike.
fn reason(error: &ImportError) -> String {
    match error.kind() {
        ImportErrorKind::Unsupported(list) => unsupported(list),
        other => other.to_string(),
    }
}

fn unsupported(list: &Unsupported) -> String {
    let ops = list.ops.iter().map(|o| match (o.domain.as_str(), o.reason) {
        ("", None) => o.name.clone(),
        ("", Some(reason)) => format!("{}: {reason}", o.name),
        (domain, _) => format!("{domain}.{}", o.name),
    });
    let (ops, types): (Vec<String>, Vec<&str>) = (ops.collect(), list.types.iter().map(|t| t.name.as_str()).collect());
    let named = |known: &str| types.contains(&known) || ops.iter().any(|o| o.starts_with(known));
    if let Some((_, what)) = OUT_OF_SCOPE.iter().find(|(known, _)| named(known)) {
        return format!("out of scope: {what}");
    }
    if !ops.is_empty() {
        return format!("operator {}", ops.join(", "));
    }
    if !types.is_empty() {
        return format!("type {}", types.join(", "));
    }
    list.forms.first().map_or_else(String::new, |f| format!("form of {}: {}", f.op, f.reason))
}

/// Why outputs are not what they should be.
enum Failure {
    /// They are outside of the tolerance, by so much at most.
    Differs(f64),
    Other(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Failure::Other(reason)
    }
}

/// A difference in words, with its reason where that is known.
fn difference(test: &str, by: f64) -> String {
    match ROUNDED.iter().find(|r| r.tests.contains(&test)) {
        Some(known) if by <= known.most => format!("rounding: {}", known.reason),
        Some(known) => format!("the result differs by {by:e}, not {:e} at most", known.most),
        None => "the result differs".into(),
    }
}

/// Checks that the tests of [`ROUNDED`] differ as it says.
fn check_rounded(outcomes: &BTreeMap<String, Outcome>) {
    let differs = |known: &Rounded, test: &str| match outcomes.get(test) {
        Some(Err(reason)) => reason.ends_with(known.reason),
        Some(Ok(_)) => false,
        None => std::env::var_os("EEC_CASE").is_some(),
    };
    for known in ROUNDED {
        let wrong: Vec<&&str> = known.tests.iter().filter(|test| !differs(known, test)).collect();
        assert!(wrong.is_empty(), "not \"{}\": {wrong:?}", known.reason);
    }
}

/// Checks the outputs; whether kernels are evaluators.
fn check(
    graph: &Graph,
    inputs: &[(String, Tensor)],
    outputs: &[(String, Tensor)],
    tolerance: Tolerance,
) -> Result<bool, Failure> {
    let mut graph = graph.clone();
    Simplify.run(&mut graph, &mut Context::default()).map_err(|e| format!("simplify: {e}"))?;
    let mut session = cpu(&graph, 1).map_err(|e| format!("lowering: {e}"))?;
    let name = |v: &eec_ir::ValueId| graph.value(*v).name.as_deref().unwrap_or_default();
    let given = |name: &str| inputs.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone());
    let ordered: Option<Vec<Tensor>> = graph.inputs().iter().map(|v| given(name(v))).collect();
    let ordered = ordered.ok_or_else(|| "an input has no value".to_string())?;
    let done = run(&mut session, &graph, &ordered, Control::Auto).map_err(|e| format!("run: {e}"))?;
    for (name, want) in outputs {
        let have = done.outputs.iter().find(|(n, _)| n == name).ok_or_else(|| "an output is missing".to_string())?;
        let difference = compare(&have.1, want, tolerance);
        if !difference.within {
            if std::env::var_os("EEC_CASE").is_some() {
                println!("{name}: {}, at most by {:e}", difference.detail, difference.max_abs);
            }
            return Err(Failure::Differs(difference.max_abs));
        }
    }
    Ok(session.program().kernels.iter().any(|k| matches!(k.form, Form::Host(_))))
}

/// Checks what [`operators`] says of those that have tests on compiled element types.
fn check_operators(outcomes: &BTreeMap<String, Outcome>) {
    let mut found: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    for passed in outcomes.values().filter_map(|o| o.as_ref().ok()) {
        if let (Some(operator), Some(host)) = (&passed.operator, passed.host) {
            found.entry(operator).or_default().insert(host);
        }
    }
    let wrong = |o: &Operator| {
        let Some(found) = found.get(o.name).filter(|_| o.domain.is_empty()) else { return false };
        match o.cpu {
            Cpu::Compiled => found.contains(&true),
            Cpu::Partly(_) => !found.contains(&true),
            Cpu::Host | Cpu::Late => found.contains(&false),
        }
    };
    let wrong: Vec<Operator> = operators().into_iter().filter(wrong).collect();
    assert!(wrong.is_empty() || std::env::var_os("EEC_CASE").is_some(), "not so: {wrong:?}");
}

/// The list: the counts, then a line per test that does not pass.
fn listing(outcomes: &BTreeMap<String, Outcome>) -> String {
    let passed: Vec<&Passed> = outcomes.values().filter_map(|o| o.as_ref().ok()).collect();
    let (all, fixed) = (passed.len(), passed.iter().filter(|p| p.fixed).count());
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in outcomes.values().filter_map(|o| o.as_ref().err()) {
        *reasons.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<(&str, usize)> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let total = outcomes.len();
    let mut lines = vec![format!("# {all} of {total} pass, {fixed} of them with inputs fixed that decide shapes")];
    lines.extend(reasons.iter().map(|(reason, count)| format!("# {count:4}  {reason}")));
    let failed = outcomes.iter().filter_map(|(name, o)| Some(format!("{name}: {}", o.as_ref().err()?)));
    lines.extend(failed);
    lines.join("\n") + "\n"
}

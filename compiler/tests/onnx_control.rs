//! `If` and `Route`, and operators without code of their own, as ONNX: the evaluator's values against ONNX Runtime's, and files read back.

mod shared;

use std::error::Error;
use std::path::Path;

use eec::cases::{Case, seeded_inputs};
use eec::npz::write_npz;
use eec::onnx::{export, export_bytes, import, import_bytes};
use eec_ir::verify::{Stage, verify};
use eec_ir::{DType, Dim, Graph, NodeId, Op, Origin, RegionId, Tensor, Type, ValueId};
use eec_passes::pass::{Context, Pass};
use eec_passes::simplify::Simplify;

use shared::{compare, onnx_runtime};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn dims(items: &[&str]) -> Vec<Dim> {
    items.iter().map(|s| s.parse::<i64>().map_or_else(|_| Dim::symbol(s), Dim::from)).collect()
}

fn f32s(items: &[&str]) -> Type {
    Type::new(DType::F32, dims(items))
}

/// Index-dependent values without symmetry.
fn ramp(dims: &[usize]) -> Outcome<Tensor> {
    let count: usize = dims.iter().product();
    Ok(Tensor::new(dims, (0..count).map(|i| ((i * 7919 + 13) % 101) as f32 / 25.0 - 2.0).collect())?)
}

fn add(graph: &mut Graph, region: RegionId, op: Op, inputs: &[ValueId], name: &str) -> Outcome<ValueId> {
    Ok(graph.append1(region, op, inputs, Origin::source(name))?)
}

/// A region of a `Route` with parameters for operands of these types, whose first dim is the rows.
fn row_region(graph: &mut Graph, operands: &[Type]) -> (RegionId, Dim, Vec<ValueId>) {
    let symbol = graph.fresh_symbol("r");
    let region = graph.new_region(Some(symbol.clone()));
    let rows = Dim::from(symbol);
    let with_rows = |t: &Type| Type::new(t.dtype, std::iter::once(rows.clone()).chain(t.dims[1..].iter().cloned()));
    let params = operands.iter().map(|t| graph.add_param(region, with_rows(t))).collect();
    (region, rows, params)
}

/// Rows whose first element is above a limit leave with a small head; the others run a block with a
/// reshape to the rows' own count, and a second `Route` inside. One operand is used on one side only.
fn nested_routes() -> Outcome<Graph> {
    let mut g = Graph::new("routes");
    let x = g.add_input("x", f32s(&["batch", "seq", "4"]));
    let ids = g.add_input("ids", Type::new(DType::I64, dims(&["batch"])));
    let weight = g.constant(ramp(&[4, 4])?);
    let zero = g.constant(Tensor::scalar(0f32));
    let root = Graph::ROOT;

    let pooled = add(&mut g, root, Op::ReduceMean { axes: vec![1, 2], keepdims: false }, &[x], "pool")?;
    let mask = add(&mut g, root, Op::Greater {}, &[pooled, zero], "exit.0/mask")?;
    let operands = [g.ty(x).clone(), g.ty(ids).clone()];

    let (then, _, p) = row_region(&mut g, &operands);
    let scaled = add(&mut g, then, Op::Mul {}, &[p[0], p[0]], "exit.0/square")?;
    let exit = add(&mut g, then, Op::Greater {}, &[scaled, zero], "exit.0/positive")?;
    g.set_yields(then, vec![scaled, p[1], exit]);

    let (other, rows, q) = row_region(&mut g, &operands);
    let flat = Op::Reshape { dims: vec![&rows * &Dim::symbol("seq"), 4.into()] };
    let flat = add(&mut g, other, flat, &[q[0]], "block.1/flat")?;
    let product = add(&mut g, other, Op::MATMUL, &[flat, weight], "block.1/fc")?;
    let back = Op::Reshape { dims: vec![rows, Dim::symbol("seq"), 4.into()] };
    let back = add(&mut g, other, back, &[product], "block.1/back")?;
    let inner = inner_route(&mut g, other, back)?;
    let late = add(&mut g, other, Op::Greater {}, &[inner, zero], "block.1/positive")?;
    let doubled = add(&mut g, other, Op::Add {}, &[q[1], q[1]], "block.1/ids")?;
    g.set_yields(other, vec![inner, doubled, late]);

    let origin = Origin::pass("exit-heads", "exit.0");
    let route = g.append_control(root, Op::Route { exit: 0, gate: -1 }, &[mask, x, ids], vec![then, other], origin)?;
    let results = g.node(route).outputs.clone();
    let names = ["y", "ids_out", "positive"].map(str::to_string);
    g.set_outputs(names.into_iter().zip(results).collect());
    Ok(g)
}

fn inner_route(g: &mut Graph, parent: RegionId, x: ValueId) -> Outcome<ValueId> {
    let largest = add(g, parent, Op::ReduceMax { axes: vec![1, 2], keepdims: false }, &[x], "gate/max")?;
    let limit = g.constant(Tensor::scalar(3f32));
    let mask = add(g, parent, Op::Greater {}, &[largest, limit], "gate/mask")?;
    let operands = [g.ty(x).clone()];
    let (then, _, p) = row_region(g, &operands);
    g.set_yields(then, vec![p[0]]);
    let (other, _, q) = row_region(g, &operands);
    let negated = add(g, other, Op::Neg {}, &[q[0]], "gate/neg")?;
    g.set_yields(other, vec![negated]);
    let origin = Origin::pass("ffn-gates", "gate");
    let node = g.append_control(parent, Op::Route { exit: -1, gate: -1 }, &[mask, x], vec![then, other], origin)?;
    Ok(g.node(node).outputs[0])
}

/// A branch that computes from sizes and outer values, beside one that yields an outer value.
fn branches() -> Outcome<Graph> {
    let mut g = Graph::new("branches");
    let x = g.add_input("x", f32s(&["batch", "n"]));
    let flag = g.add_input("flag", Type::new(DType::Bool, []));
    let then = g.new_region(None);
    let n = Dim::symbol("n");
    let columns = add(&mut g, then, Op::Range { start: 1.into(), limit: &n + &1.into(), delta: 1 }, &[], "then/range")?;
    let columns = add(&mut g, then, Op::Cast { to: DType::F32 }, &[columns], "then/cast")?;
    let wide = add(&mut g, then, Op::Expand { dims: dims(&["batch", "n"]) }, &[columns], "then/expand")?;
    let sum = add(&mut g, then, Op::Add {}, &[wide, x], "then/add")?;
    let size = add(&mut g, then, Op::Sizes { values: vec![n.clone(), &n * &Dim::symbol("batch")] }, &[], "then/sizes")?;
    g.set_yields(then, vec![sum, sum, size]);
    let other = g.new_region(None);
    let constant = g.constant(Tensor::vector(vec![7i64, -1]));
    g.set_yields(other, vec![x, x, constant]);
    let node = g.append_control(
        Graph::ROOT,
        Op::If { exit: -1, gate: -1 },
        &[flag],
        vec![then, other],
        Origin::source("choose"),
    )?;
    let outputs = g.node(node).outputs.clone();
    let mut named: Vec<(String, ValueId)> = ["a", "b", "sizes"].map(str::to_string).into_iter().zip(outputs).collect();
    named.push(("copy_of_x".into(), x));
    named.push(("constant".into(), constant));
    g.set_outputs(named);
    Ok(g)
}

fn route_inputs(limits: &[f32], seq: usize) -> Outcome<Vec<Tensor>> {
    let count = limits.len() * seq * 4;
    let row = |i: usize| limits[i / (seq * 4)];
    let x: Vec<f32> = (0..count).map(|i| row(i) + ((i * 31) % 17) as f32 / 20.0).collect();
    let ids = (0..limits.len() as i64).map(|i| 100 + i * i).collect();
    Ok(vec![Tensor::new(&[limits.len(), seq, 4], x)?, Tensor::vector::<i64>(ids)])
}

fn route_cases() -> Outcome<Vec<Vec<Tensor>>> {
    Ok(vec![
        route_inputs(&[1.0, -2.0, -0.9, 2.0, -3.0], 3)?,
        route_inputs(&[-1.0, -2.5], 2)?,
        route_inputs(&[1.0, 1.5, 2.0], 1)?,
        route_inputs(&[-4.0], 5)?,
    ])
}

fn branch_cases() -> Outcome<Vec<Vec<Tensor>>> {
    let case = |flag: u8| -> Outcome<Vec<Tensor>> { Ok(vec![ramp(&[2, 5])?, Tensor::new(&[], vec![flag])?]) };
    Ok(vec![case(0)?, case(1)?])
}

/// Checks an export in ONNX Runtime on each case; the names of the nodes' passes are the caller's.
fn check_in_onnx_runtime(graph: &Graph, cases: &[Vec<Tensor>]) -> Outcome {
    let folder = tempfile::tempdir()?;
    let model = folder.path().join("model.onnx");
    export(graph, &model)?;
    for inputs in cases {
        let expected = eec_ir::eval::evaluate(graph, inputs)?;
        let Some(found) = run_case(graph, inputs, &model, folder.path())? else {
            return Ok(());
        };
        for (name, want) in graph.output_names().iter().zip(&expected) {
            let have = found.get(&**name).ok_or_else(|| format!("no output {name}"))?;
            compare(name, have, want)?;
        }
    }
    Ok(())
}

fn run_case(graph: &Graph, inputs: &[Tensor], model: &Path, folder: &Path) -> Outcome<Option<eec::npz::Arrays>> {
    let given = folder.join("inputs.npz");
    let names = graph.inputs().iter().map(|v| graph.value(*v).name.as_deref().unwrap_or_default());
    write_npz(&given, names.zip(inputs))?;
    Ok(onnx_runtime(model, &given, &folder.join("outputs.npz"))?)
}

#[test]
fn routes_run_in_onnx_runtime_as_in_the_evaluator() -> Outcome {
    check_in_onnx_runtime(&nested_routes()?, &route_cases()?)
}

/// Checks each of these cases of `tests/cases`: its graph, with seeded inputs for each of its sizes.
fn for_each_case(
    folder: &str,
    names: &[&str],
    mut check: impl FnMut(&str, &Graph, &[Vec<Tensor>]) -> Outcome,
) -> Outcome {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases").join(folder);
    for name in names {
        let case = Case::new(&std::fs::read_to_string(folder.join(name).with_extension("eir"))?)?;
        let graph = case.graph()?;
        let inputs =
            case.sizes(&graph)?.iter().map(|sizes| seeded_inputs(&graph, sizes)).collect::<Result<Vec<_>, _>>()?;
        check(name, &graph, &inputs).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

/// The cases of `tests/cases/joins`.
const JOINS: [&str; 4] = ["shorter", "nested", "either", "kept"];

/// On rows of both sides.
#[test]
fn joins_run_in_onnx_runtime_as_in_the_evaluator() -> Outcome {
    for_each_case("joins", &JOINS, |_, graph, inputs| check_in_onnx_runtime(graph, inputs))
}

/// The loops of `tests/cases/ops`, among them one without steps: in ONNX Runtime, and read back.
#[test]
fn loops_run_in_onnx_runtime_as_in_the_evaluator_and_are_read_back() -> Outcome {
    for_each_case("ops", &["loop", "loop_rows", "loop_route"], |name, graph, inputs| {
        check_in_onnx_runtime(graph, inputs)?;
        if name == "loop_route" {
            return Ok(());
        }
        let again = check_equal_read_back(graph, inputs)?;
        let is_loop = |n: &NodeId| matches!(again.node(*n).op, Op::Loop { .. });
        assert!(again.nodes_in_order().iter().any(is_loop), "{again}");
        Ok(())
    })
}

/// Checks that the export of a graph, read back, has the same outputs to the last bit, and returns it.
fn check_equal_read_back(graph: &Graph, cases: &[Vec<Tensor>]) -> Outcome<Graph> {
    let again = import_bytes(&export_bytes(graph)?, "export", None)?;
    for inputs in cases {
        assert_eq!(eec_ir::eval::evaluate(&again, inputs)?, eec_ir::eval::evaluate(graph, inputs)?, "{graph}");
    }
    Ok(again)
}

/// Checks that the export of a graph, read back and simplified, has the same outputs.
fn check_read_back(graph: &Graph, cases: &[Vec<Tensor>]) -> Outcome {
    let mut again = import_bytes(&export_bytes(graph)?, "export", None)?;
    Simplify.run(&mut again, &mut Context::default())?;
    verify(&again, Stage::Lowerable)?;
    for (new, old) in again.outputs().iter().zip(graph.outputs()) {
        assert_eq!(again.ty(*new), graph.ty(*old));
    }
    for inputs in cases {
        let pairs = eec_ir::eval::evaluate(&again, inputs)?.into_iter().zip(eec_ir::eval::evaluate(graph, inputs)?);
        for ((have, want), name) in pairs.zip(graph.output_names()) {
            compare(name, &have, &want)?;
        }
    }
    Ok(())
}

#[test]
fn an_export_that_chooses_rows_is_read_back() -> Outcome {
    check_read_back(&nested_routes()?, &route_cases()?)?;
    for_each_case("joins", &JOINS, |_, graph, inputs| check_read_back(graph, inputs))
}

/// Selections, sizes that data decides, and rows until data ends a loop: in ONNX Runtime, and read back.
#[test]
fn late_sizes_run_in_onnx_runtime_as_in_the_evaluator_and_are_read_back() -> Outcome {
    let names = ["nonzero", "selected", "late_equal", "loop_rows_until"];
    for_each_case("ops", &names, |_, graph, inputs| {
        check_in_onnx_runtime(graph, inputs)?;
        check_equal_read_back(graph, inputs).map(drop)
    })
}

/// Operators of detection: in ONNX Runtime, and read back.
#[test]
fn operators_of_detection_run_in_onnx_runtime_as_in_the_evaluator_and_are_read_back() -> Outcome {
    for_each_case("ops", &["deformconv", "det", "roialign"], |_, graph, inputs| {
        check_in_onnx_runtime(graph, inputs)?;
        check_equal_read_back(graph, inputs).map(drop)
    })
}

/// What a join holds stands in the file once.
#[test]
fn a_join_is_written_once() -> Outcome {
    let source =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases/joins/nested.eir"))?;
    let graph = Case::new(&source)?.graph()?;
    let bytes = export_bytes(&graph)?;
    let count = |op: &str| bytes.windows(op.len()).filter(|w| *w == op.as_bytes()).count();
    assert_eq!((count("\"\u{4}Loop"), count("\"\u{4}Tanh")), (2, 1));
    Ok(())
}

#[test]
fn branches_run_in_onnx_runtime_as_in_the_evaluator() -> Outcome {
    check_in_onnx_runtime(&branches()?, &branch_cases()?)
}

#[test]
fn branches_read_back_give_the_same_values() -> Outcome {
    let graph = branches()?;
    let again = import_bytes(&export_bytes(&graph)?, "export", None)?;
    for inputs in branch_cases()? {
        assert_eq!(eec_ir::eval::evaluate(&again, &inputs)?, eec_ir::eval::evaluate(&graph, &inputs)?);
    }
    Ok(())
}

#[test]
fn the_masks_of_the_cases_take_every_side() -> Outcome {
    // The cases above prove nothing if all rows go one way.
    let mut positive = Vec::new();
    for inputs in route_cases()? {
        let x = inputs[0].elements::<f32>().ok_or("x is f32")?.into_owned();
        let rows = x.chunks(x.len() / inputs[1].len()).map(|r| r.iter().sum::<f32>() > 0.0);
        positive.push(rows.collect::<Vec<_>>());
    }
    assert_eq!(positive[0], [true, false, false, true, false]);
    assert!(positive[1].iter().all(|p| !p) && positive[2].iter().all(|p| *p));
    Ok(())
}

#[test]
fn a_size_that_no_value_has_is_refused() -> Outcome {
    let mut g = Graph::new("lost");
    let x = g.add_input("x", f32s(&["4"]));
    let wide = add(&mut g, Graph::ROOT, Op::Expand { dims: dims(&["rows", "4"]) }, &[x], "wide")?;
    g.set_outputs(vec![("y".into(), wide)]);
    let error = export_bytes(&g).err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(error, "wide: no visible value has `rows` as a dim, so its size cannot be computed in the file");
    Ok(())
}

#[test]
fn a_file_that_cannot_be_written_is_named() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("absent").join("model.onnx");
    let error = export(&branches()?, &path).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("absent") && error.contains("cannot be written"), "{error}");
    assert!(import(&path).is_err());
    Ok(())
}

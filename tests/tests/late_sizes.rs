//! Sizes that data decides, against ONNX Runtime: selections, branches and loops of different sizes.

use std::error::Error;

use eec::model::Model;
use eec_ir::{DType, Dim, Graph, Op, Origin, Type};
use eec_tests::written::check_written;

#[test]
fn sizes_of_data_are_what_onnx_runtime_makes_them() {
    check_written("late_models.py", 1e-5);
}

/// A reshape whose other size is what is left beside one that data decides: no run can tell that it divides.
#[test]
fn what_would_divide_by_a_size_of_data_is_not_compiled() -> Result<(), Box<dyn Error>> {
    let mut g = Graph::new("m");
    let (n, late) = (Dim::symbol("n"), Dim::symbol("late0"));
    let x = g.add_input("x", Type::new(DType::F32, [n.clone(), 6.into()]));
    let k = g.add_input("k", Type::new(DType::I64, []));
    g.append1(Graph::ROOT, Op::LateSize { size: late.clone(), most: n.clone() }, &[k], Origin::source("size"))?;
    let rest = (&n * &6.into()).floor_div(&late).ok_or("a divisor")?;
    let folded = g.append1(Graph::ROOT, Op::Reshape { dims: vec![late, rest] }, &[x], Origin::source("folded"))?;
    let y = g.append1(Graph::ROOT, Op::Tanh {}, &[folded], Origin::source("tanh"))?;
    g.set_outputs(vec![("y".into(), y)]);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("m.eec");
    let error = Model::new(&folder.path().join("m.onnx"), g).save(&path).err().ok_or("it was compiled")?.to_string();
    assert!(error.contains("tanh") && error.contains("divides by `late0`, which may be 0"), "{error}");
    assert!(!path.exists());
    Ok(())
}

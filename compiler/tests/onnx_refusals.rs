//! Files that hold no usable model: the error names the file, the node and what was found.

use std::error::Error;

use eec::onnx::{ImportErrorKind, import, import_bytes, read_tensor_file};
use eec_ir::{Graph, Op, Origin, Tensor, Type};

type Outcome = Result<(), Box<dyn Error>>;

/// The message for a file with these bytes.
fn message(bytes: &[u8]) -> String {
    import_bytes(bytes, "m.onnx", None).err().map(|e| e.to_string()).unwrap_or_default()
}

/// A small valid model.
fn model() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut g = Graph::new("small");
    let x = g.add_input("x", Type::new(eec_ir::DType::F32, ["n".into(), "3".into()].map(|s: String| dim(&s))));
    let w = g.constant(Tensor::new(&[3, 2], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?);
    let y = g.append1(Graph::ROOT, Op::MATMUL, &[x, w], Origin::source("fc"))?;
    let z = g.append1(Graph::ROOT, Op::Softmax { axis: 1 }, &[y], Origin::source("softmax"))?;
    g.set_outputs(vec![("z".into(), z)]);
    Ok(eec::onnx::export_bytes(&g)?)
}

fn dim(text: &str) -> eec_ir::Dim {
    text.parse::<i64>().map_or_else(|_| eec_ir::Dim::symbol(text), eec_ir::Dim::from)
}

/// `bytes` with the one occurrence of `from` replaced by `to` of the same length.
fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|w| w == from);
    let mut patched = bytes.to_vec();
    if let Some(at) = at {
        patched[at..at + to.len()].copy_from_slice(to);
    }
    patched
}

#[test]
fn files_that_are_no_models_are_described() {
    assert_eq!(message(b""), "m.onnx: is not an ONNX model: the file is empty");
    assert_eq!(message(b"hello, world\n"), "m.onnx: is not an ONNX model: it looks like text");
    assert!(message(b"version https://git-lfs.github.com/spec/v1\noid").contains("fetch the file itself"));
    assert!(message(b"PK\x03\x04\x14\x00\x00").contains("a zip archive"));
    assert!(message(&[0xff; 40]).contains("broken or cut off"));
}

#[test]
fn missing_files_and_folders_are_named() -> Outcome {
    let folder = tempfile::tempdir()?;
    for path in [folder.path().join("absent.onnx"), folder.path().to_path_buf()] {
        let Some(error) = import(&path).err() else {
            return Err("imported".into());
        };
        assert!(matches!(error.kind(), ImportErrorKind::Read(_)));
        assert_eq!(error.file(), path.display().to_string());
        assert!(error.node_path().is_none());
    }
    Ok(())
}

#[test]
fn a_model_cut_off_anywhere_is_refused() -> Outcome {
    let bytes = model()?;
    assert!(import_bytes(&bytes, "m.onnx", None).is_ok());
    // The opset is the file's last field: without it, or with a part of it, nothing is imported.
    for length in 0..bytes.len() {
        assert!(!message(&bytes[..length]).is_empty(), "{length} of {} bytes were imported", bytes.len());
    }
    Ok(())
}

#[test]
fn a_broken_node_is_named_with_the_reason() -> Outcome {
    let bytes = model()?;
    let unsupported = message(&patched(&bytes, b"Softmax", b"Softmin"));
    assert_eq!(unsupported, "m.onnx: unsupported operators: Softmin (×1)");
    let unknown = message(&patched(&bytes, b"\x04axis", b"\x04oxis"));
    assert_eq!(unknown, "m.onnx: node `softmax` (Softmax): attribute `oxis` is not supported");
    Ok(())
}

#[test]
fn unsupported_forms_are_counted_beside_operators() -> Outcome {
    let mut g = Graph::new("forms");
    let x = g.add_input("x", Type::new(eec_ir::DType::F32, [dim("n"), dim("3")]));
    let mut outputs = Vec::new();
    for (name, axis) in [("a", 1), ("b", 1), ("c", 0)] {
        let y = g.append1(Graph::ROOT, Op::Softmax { axis }, &[x], Origin::source(name))?;
        let z = g.append1(Graph::ROOT, Op::Softmax { axis: 1 }, &[y], Origin::source(&format!("after {name}")))?;
        outputs.push((format!("{name}2"), z));
    }
    let y = g.append1(Graph::ROOT, Op::Tanh {}, &[x], Origin::source("d"))?;
    outputs.push(("d".into(), y));
    g.set_outputs(outputs);
    let bytes = patched(&eec::onnx::export_bytes(&g)?, b"Tanh", b"Tonh");
    // All `axis` become `oxis`: the first three nodes are refused, those after them are not judged.
    let all = (0..6).fold(bytes, |b, _| patched(&b, b"\x04axis", b"\x04oxis"));
    let error = import_bytes(&all, "m.onnx", None).err().ok_or("imported")?;
    let ImportErrorKind::Unsupported(found) = error.kind() else { return Err(error.into()) };
    assert_eq!((found.ops.len(), found.forms.len(), found.forms[0].count), (1, 1, 3));
    assert_eq!(
        found.to_string(),
        "unsupported operators: Tonh (×1); unsupported forms of operators: \
         Softmax: attribute `oxis` is not supported (×3, first at node `a` (Softmax))"
    );
    Ok(())
}

#[test]
fn tensor_files_are_read_and_refused() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("input_0.pb");
    // dims 2, element type i64, int64_data [5, 7], name "ids".
    std::fs::write(&path, [0x08, 2, 0x10, 7, 0x3a, 2, 5, 7, 0x42, 3, b'i', b'd', b's'])?;
    assert_eq!(read_tensor_file(&path)?, ("ids".to_string(), Tensor::vector(vec![5i64, 7])));
    std::fs::write(&path, [0x08, 3, 0x10, 7, 0x3a, 2, 5, 7, 0x42, 3, b'i', b'd', b's'])?;
    let error = read_tensor_file(&path).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.ends_with("tensor `ids`: i64[3] needs 24 bytes, found 16"), "{error}");
    Ok(())
}

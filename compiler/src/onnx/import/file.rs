//! Reading a model file, and saying what it holds if that is not a model.

use std::path::Path;

use eec_ir::Tensor;
use prost::Message;

use super::super::error::{ImportError, ImportErrorKind};
use super::super::proto::{ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use super::super::survey::standard_domain;
use super::super::tensor::{ExternalFiles, decode};
use super::OPSETS;

/// The oldest version of the file format that is read.
const MIN_IR_VERSION: i64 = 3;

/// The model in `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<ModelProto, ImportErrorKind> {
    if bytes.is_empty() {
        return Err(ImportErrorKind::NotOnnx("the file is empty".into()));
    }
    let model = ModelProto::decode(bytes).map_err(|e| ImportErrorKind::NotOnnx(describe(bytes, &e.to_string())))?;
    if model.graph.is_none() {
        return Err(ImportErrorKind::NotOnnx(describe(bytes, "it holds no graph")));
    }
    Ok(model)
}

/// What `bytes` seem to be, given that they did not parse for `reason`.
fn describe(bytes: &[u8], reason: &str) -> String {
    let head = &bytes[..bytes.len().min(512)];
    let texty = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
    let known = match head {
        [b'P', b'K', 3, 4, ..] => Some("a zip archive"),
        [0x1f, 0x8b, ..] => Some("a gzip archive"),
        [0x89, b'H', b'D', b'F', ..] => Some("an HDF5 file"),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some("a NumPy array"),
        [0x7f, b'E', b'L', b'F', ..] => Some("a program"),
        _ if head.starts_with(b"version https://git-lfs") => Some("a Git LFS pointer: fetch the file itself"),
        _ if head.iter().all(texty) => Some("text"),
        _ => None,
    };
    match known {
        Some(kind) => format!("it looks like {kind}"),
        None => format!("it is broken or cut off ({reason}; {} bytes)", bytes.len()),
    }
}

/// The version of ONNX's own operators that the model uses.
pub(super) fn opset(model: &ModelProto) -> Result<i64, ImportErrorKind> {
    if model.ir_version < MIN_IR_VERSION {
        let found = model.ir_version;
        let reason = format!("the file has IR version {found}; {MIN_IR_VERSION} and later are supported");
        return Err(ImportErrorKind::Version(reason));
    }
    let nodes = model.graph.as_ref().map_or(&[][..], |g| &g.node);
    opset_of(&model.opset_import, nodes).map_err(|reason| ImportErrorKind::Version(format!("the model {reason}")))
}

/// The version of ONNX's own operators among `imports`, for these nodes.
pub(super) fn opset_of(imports: &[OperatorSetIdProto], nodes: &[NodeProto]) -> Result<i64, String> {
    let own = imports.iter().find(|o| standard_domain(&o.domain).is_empty());
    let Some(version) = own.map(|o| o.version) else {
        return match nodes.iter().map(|n| standard_domain(&n.domain)).any(str::is_empty) {
            true => Err("does not say which opset it uses".into()),
            // It uses none of ONNX's own operators.
            false => Ok(*OPSETS.end()),
        };
    };
    // Of an older one, what has not changed since may be all that is used.
    if !(1..=*OPSETS.end()).contains(&version) {
        let (first, last) = (OPSETS.start(), OPSETS.end());
        return Err(format!("uses opset {version}; {first} to {last} are supported"));
    }
    Ok(version)
}

/// The tensor in a `.pb` file (a serialised `TensorProto`, as ONNX test data has them) and its name.
pub fn read_tensor_file(path: &Path) -> Result<(String, Tensor), ImportError> {
    let file = path.display().to_string();
    let fail = |kind| ImportError::new(&file, None, kind);
    let bytes = std::fs::read(path).map_err(|e| fail(ImportErrorKind::Read(e)))?;
    let not_tensor = |reason: String| ImportErrorKind::Tensor { name: String::new(), reason };
    let proto =
        TensorProto::decode(bytes.as_slice()).map_err(|e| fail(not_tensor(describe(&bytes, &e.to_string()))))?;
    let name = proto.name.clone();
    let tensor = decode(proto, &mut ExternalFiles::new(None));
    let tensor = tensor.map_err(|reason| fail(ImportErrorKind::Tensor { name: name.clone(), reason }))?;
    Ok((name, tensor))
}

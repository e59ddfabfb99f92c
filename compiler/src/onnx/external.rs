//! The files beside a model that hold its tensors, found without importing it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prost::Message;

use super::error::{ImportError, ImportErrorKind};
use super::proto::{EXTERNAL, GraphProto, ModelProto, TensorProto};

/// The files that the tensors of the ONNX model at `path` are in, besides the model itself. Whether they
/// are there, and inside the model's folder, is for [`import`](super::import) to say.
pub fn external_files(path: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let fail = |kind| ImportError::new(&path.display().to_string(), None, kind);
    let bytes = std::fs::read(path).map_err(|e| fail(ImportErrorKind::Read(e)))?;
    let model = ModelProto::decode(bytes.as_slice()).map_err(|e| fail(ImportErrorKind::NotOnnx(e.to_string())))?;
    let mut locations = BTreeSet::new();
    model.graph.iter().for_each(|graph| collect(graph, &mut locations));
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(locations.into_iter().map(|location| folder.join(location)).collect())
}

fn collect(graph: &GraphProto, locations: &mut BTreeSet<String>) {
    let attributes = || graph.node.iter().flat_map(|n| &n.attribute);
    let tensors = graph.initializer.iter().chain(attributes().filter_map(|a| a.t.as_ref()));
    let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref());
    locations.extend(tensors.chain(sparse).filter_map(location));
    attributes().filter_map(|a| a.g.as_ref()).for_each(|inner| collect(inner, locations));
}

fn location(tensor: &TensorProto) -> Option<String> {
    let mut entries = tensor.external_data.iter().filter(|_| tensor.data_location == EXTERNAL);
    entries.find(|e| e.key == "location").map(|e| e.value.clone())
}

#[cfg(test)]
mod tests {
    use super::super::proto::{AttributeProto, NodeProto, StringStringEntryProto};
    use super::*;

    fn tensor(location: &str, data_location: i32) -> TensorProto {
        let entry = StringStringEntryProto { key: "location".into(), value: location.into() };
        TensorProto { external_data: vec![entry], data_location, ..TensorProto::default() }
    }

    #[test]
    fn files_of_weights_are_found_in_branches_too() -> Result<(), Box<dyn std::error::Error>> {
        let branch = GraphProto { initializer: vec![tensor("b.bin", EXTERNAL)], ..GraphProto::default() };
        let attribute = AttributeProto { g: Some(branch), ..AttributeProto::default() };
        let value = AttributeProto { t: Some(tensor("c.bin", EXTERNAL)), ..AttributeProto::default() };
        let graph = GraphProto {
            initializer: vec![tensor("a.bin", EXTERNAL), tensor("a.bin", EXTERNAL), tensor("not.bin", 0)],
            node: vec![NodeProto { attribute: vec![attribute, value], ..NodeProto::default() }],
            ..GraphProto::default()
        };
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("m.onnx");
        std::fs::write(&path, ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec())?;
        let names: Vec<PathBuf> = ["a.bin", "b.bin", "c.bin"].map(|n| folder.path().join(n)).to_vec();
        assert_eq!(external_files(&path)?, names);
        Ok(())
    }
}

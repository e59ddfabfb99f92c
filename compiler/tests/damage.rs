//! Damaged artifacts: opening and evaluating one gives an error or a result, but never a panic.

use std::error::Error;
use std::path::Path;

use eec::backend::Backend;
use eec::cases::{Case, seeded_inputs};
use eec::compile::{Compile, compile};
use eec::dataset::Dataset;
use eec::evaluate::{Evaluate, evaluate};
use eec::model::Model;
use eec::progress::Silent;
use eec::recipe::Recipe;
use eec_ir::bind::Sizes;
use eec_ir::{ContentHash, Symbol, Tensor};
use eec_passes::registry::Registry;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A small model with a calibrated exit, as the bytes of its artifact, and its data.
fn compiled(folder: &Path) -> Result<(Vec<u8>, Dataset)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases/models/vit.eir");
    let graph = Case::new(&std::fs::read_to_string(source)?)?.graph()?;
    let plain = eec::model::simplified(graph)?;
    let sizes: Sizes = [(Symbol::new("batch"), 160)].into_iter().collect();
    let names = plain.inputs().iter().map(|v| plain.value(*v).name.as_deref().unwrap_or_default().to_string());
    let inputs = names.zip(seeded_inputs(&plain, &sizes)?).collect();
    let data = Dataset { name: "seeded".into(), inputs, labels: None, rows: 160 };
    let recipe = Recipe::from_toml("[exit-heads]\nat = \"0,2\"\nrule = \"maxprob:0.3\"")?;
    let model = compile(
        Path::new("vit"),
        plain,
        Some(&data),
        &Compile { recipe, registry: &Registry::builtin(), threads: Some(1), progress: &Silent },
    )?;
    let path = folder.join("model.eec");
    model.save(&path)?;
    Ok((std::fs::read(path)?, data))
}

/// Opens and evaluates an artifact of these bytes.
fn judged(bytes: &[u8], folder: &Path, data: &Dataset) -> std::result::Result<(), eec::Error> {
    let path = folder.join("model.eec");
    std::fs::write(&path, bytes).map_err(|e| eec::Error::io(&path, e))?;
    let model = Model::open(&path)?;
    evaluate(
        &model,
        data,
        &Evaluate { backend: &Backend::Cpu { threads: Some(1) }, threads: Some(1), float32: None, progress: &Silent },
    )
    .map(drop)
}

/// `bytes` with the text `from`, which occurs, replaced by one of the same length.
fn with(bytes: &[u8], from: &str, to: &str) -> Result<Vec<u8>> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).rposition(|w| w == from.as_bytes()).ok_or_else(|| format!("no {from}"))?;
    let mut out = bytes.to_vec();
    out[at..at + from.len()].copy_from_slice(to.as_bytes());
    Ok(out)
}

#[test]
fn sections_that_contradict_each_other_are_refused() -> Result {
    let folder = tempfile::tempdir()?;
    let (good, data) = compiled(folder.path())?;
    judged(&good, folder.path(), &data)?;
    for (from, to, part) in [
        (r#"{"exit":1,"#, r#"{"exit":7,"#, "section policy: it keeps candidate 7 of 2"),
        (r#""blocks":[0,2]"#, r#""blocks":[9  ]"#, "section candidates: 1 blocks have 2 heads"),
        (r#""blocks":[0,2]"#, r#""blocks":[2,0]"#, "section candidates: the blocks [2, 0] are not in order"),
        (r#"{"exits":[0,2]"#, r#"{"exits":[0  ]"#, "section inserted: names 1 exits, the program has 2"),
        (r#""segment":["#, r#""segmant":["#, "segment"),
    ] {
        let refused = judged(&with(&good, from, to)?, folder.path(), &data);
        let error = refused.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("model.eec") && error.contains(part), "{to}: {error}");
    }
    Ok(())
}

/// Every constant of an artifact, with the place in the file of the byte in its middle.
fn middles(bytes: &[u8], path: &Path) -> Result<Vec<(ContentHash, usize)>> {
    let artifact = eec_runtime::Artifact::open(path)?;
    let weights = artifact.section("weights").ok_or("no weights")?;
    let start = bytes.windows(weights.len()).position(|w| w == weights).ok_or("the weights are not in the file")?;
    let offset = |t: &Tensor| t.bytes().as_ptr().addr() - weights.as_ptr().addr() + t.bytes().len() / 2;
    let place = |hash| Some((hash, start + offset(&artifact.constant(hash)?)));
    Ok(artifact.constants().filter_map(place).collect())
}

#[test]
fn damaged_weights_are_refused_by_file_and_constant() -> Result {
    let folder = tempfile::tempdir()?;
    let (good, data) = compiled(folder.path())?;
    for (hash, at) in middles(&good, &folder.path().join("model.eec"))? {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let error = judged(&bad, folder.path(), &data).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("model.eec") && error.contains(&format!("damaged: the constant {hash}")), "{error}");
    }
    Ok(())
}

#[test]
fn damaged_sections_never_panic() -> Result {
    let folder = tempfile::tempdir()?;
    let (good, data) = compiled(folder.path())?;
    let data = data.truncated(8);
    let mut refused = 0;
    for name in ["{\"rule\":\"threshold\"", "{\"blocks\":[", "\"costs\":{"] {
        let start = good.windows(name.len()).rposition(|w| w == name.as_bytes()).ok_or(name)?;
        for at in (start..start + 120).step_by(2) {
            let mut bad = good.clone();
            bad[at] = if bad[at].is_ascii_digit() { b'9' } else { bad[at] ^ 1 };
            refused += usize::from(judged(&bad, folder.path(), &data).is_err());
        }
    }
    assert!(refused > 90, "only {refused} of 180 are refused");
    Ok(())
}

//! Artifacts: round trips and hostile files.

use std::path::PathBuf;

use eec_runtime::{Artifact, ArtifactWriter, Control, ErrorKind, Options, Session};

use crate::build::{Builder, floats, ramp};
use crate::control::nested;
use crate::loops::embedding;

fn file(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

fn write(b: &Builder, path: &std::path::Path) {
    let mut writer = ArtifactWriter::new();
    writer.program(&b.program).unwrap();
    writer.section("recipe", b"rule = \"maxprob\"".to_vec()).unwrap();
    for tensor in b.constants.values() {
        let hash = writer.constant(tensor);
        assert_eq!(writer.constant(tensor), hash);
    }
    writer.write_to(path).unwrap();
}

#[test]
fn round_trip() {
    let (_folder, path) = file("model.eec");
    let b = embedding();
    write(&b, &path);
    let artifact = Artifact::open(&path).unwrap();
    assert_eq!(artifact.program().unwrap(), b.program);
    assert_eq!(artifact.plain_program().unwrap(), None);
    assert_eq!(artifact.section("recipe"), Some(&b"rule = \"maxprob\""[..]));
    assert_eq!(artifact.section("report"), None);
    for (hash, tensor) in &b.constants {
        let found = artifact.constant(*hash).unwrap();
        assert_eq!(found, *tensor);
        assert_eq!(found.bytes().as_ptr() as usize % 64, 0);
    }
    drop(artifact);
    let ids = eec_ir::Tensor::vector(vec![3i64, 19]);
    let mut session = Session::load(&path, Options::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let run = session.run(&[("ids", ids)], Control::Auto).unwrap();
    let table = floats(&ramp(&[20, 9], 0.25));
    assert_eq!(floats(&run.outputs[0].1), [&table[27..36], &table[171..180]].concat());
}

#[test]
fn writing_replaces_whole_files_and_leaves_nothing_behind() {
    let (folder, path) = file("model.eec");
    write(&embedding(), &path);
    write(&nested(), &path);
    assert_eq!(Artifact::open(&path).unwrap().program().unwrap().name, "nested");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = ArtifactWriter::new().write_to(&folder.path().join("missing/model.eec")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("missing/model.eec"), "{error}");
    for name in ["", "weights", "a\0b", &"x".repeat(49)] {
        assert!(ArtifactWriter::new().section(name, vec![]).is_err());
    }
}

#[test]
fn other_files_are_refused_by_name() {
    let (folder, path) = file("model.eec");
    let refuse = |bytes: &[u8], part: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = Artifact::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Artifact);
        let text = error.to_string();
        assert!(text.contains("model.eec") && text.contains(part), "{text} does not say {part:?}");
    };
    write(&embedding(), &path);
    let good = std::fs::read(&path).unwrap();
    refuse(b"", "starts with \"\"");
    refuse(b"hello, I am text", "starts with \"hello, I\"");
    refuse(&good[..20], "truncated");
    refuse(&good[..good.len() - 1], "header says");
    let mut newer = good.clone();
    newer[8] = 10;
    refuse(&newer, "version 10, expected 9");
    let mut empty = ArtifactWriter::new();
    empty.section("report", vec![1]).unwrap();
    empty.write_to(&path).unwrap();
    assert!(
        Session::load(&path, Options::default()).err().expect("no program").to_string().contains("holds no program")
    );
    assert_eq!(Artifact::open(folder.path()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(Artifact::open(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::Io);
}

/// Loads and runs a damaged file: an error or a result, but no crash.
fn survive(bytes: &[u8], path: &std::path::Path) {
    std::fs::write(path, bytes).unwrap();
    let options = Options { threads: 1, memory_limit: 1 << 24, ..Options::default() };
    let Ok(mut session) = Session::load(path, options) else { return };
    let inputs = [("ids", eec_ir::Tensor::vector(vec![3i64, 19, -2])), ("x", ramp(&[5, 6], 1.0))];
    let used: Vec<_> =
        inputs.into_iter().filter(|(name, _)| session.inputs().iter().any(|p| p.name == *name)).collect();
    let _ = session.run(&used, Control::Auto);
}

#[test]
fn damaged_files_never_crash() {
    let (_folder, path) = file("model.eec");
    for b in [embedding(), nested()] {
        write(&b, &path);
        let good = std::fs::read(&path).unwrap();
        for length in (0..good.len()).step_by(97) {
            survive(&good[..length], &path);
        }
        for at in (0..good.len()).step_by(7) {
            for flip in [1u8, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                survive(&bad, &path);
            }
        }
    }
}

#[test]
fn deeply_nested_dims_are_refused() {
    // A list of one term with one factor, a division whose first operand is again such a list.
    let bytes = vec![1u8; 3_000_000];
    assert!(postcard::from_bytes::<eec_ir::Dim>(&bytes).is_err());
    let seq = eec_ir::Dim::symbol("seq");
    let halves = (0..20).fold(seq, |d, _| (&d + &1.into()).floor_div(&2.into()).unwrap());
    let bytes = postcard::to_stdvec(&halves).unwrap();
    assert_eq!(postcard::from_bytes::<eec_ir::Dim>(&bytes).unwrap(), halves);
}

//! What build scripts get: an artifact, a module that compiles and runs it, and nothing done twice.

mod shared;

use std::path::Path;

use eec::build::{Builder, Cpu};
use eec::recipe::Recipe;
use eec_ir::Tensor;
use eec_runtime::{Array, Control, Options, Session};
use shared::place::{Place, Result, says};

/// The module of the carried model with one exit, as the builder writes it. Written anew by a test run
/// with EEC_UPDATE=1.
#[allow(unreachable_pub)]
mod generated {
    include!("generated/one_exit.rs");
}

const MODULE: &str = "tests/generated/one_exit.rs";
const RECIPE: &str = "[exit-heads]\nat = '3'\nhead = 'final'\nrule = 'maxprob:0.5'\n";

fn builder(place: &Place) -> Result<Builder> {
    Ok(Builder::new(place.at("model.onnx"))
        .recipe(Recipe::from_toml(RECIPE)?)
        .name("one_exit")
        .out_dir(place.at("out")))
}

#[test]
fn modules_run_the_model_with_its_names_types_and_exits() -> Result {
    let place = Place::new()?;
    let built = builder(&place)?.generate()?;
    let text = std::fs::read_to_string(&built.module)?;
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join(MODULE);
    if std::env::var_os("EEC_UPDATE").is_some() {
        std::fs::write(&kept, &text)?;
    }
    assert_eq!(text, std::fs::read_to_string(kept)?, "EEC_UPDATE=1 writes it anew");
    assert_eq!(built.changes, ["one exit, after block 3"]);

    let pixels: Vec<f32> = (0..2 * 3 * 64 * 64).map(|i| ((i * 37) % 255) as f32 / 127.5 - 1.0).collect();
    let (pixels, ids) = (Array::new([2, 3, 64, 64], pixels)?, Array::new([2, 10], (0..20).collect::<Vec<i64>>())?);
    let mut model = generated::Model::load(&built.artifact, Options::default())?;
    let output = model.run(&pixels, &ids)?;
    let mut session = Session::load(&built.artifact, Options::default())?;
    let inputs: [(&str, Tensor); 2] = [("pixel_values", pixels.tensor().clone()), ("input_ids", ids.tensor().clone())];
    let run = session.run(&inputs, Control::Auto)?;
    assert_eq!(output.logits.tensor(), run.tensor("logits")?);
    assert_eq!(output.confidence.dims(), [2]);
    let mut forced = |control| model.run_with(&pixels, &ids, control).map(|output| output.exits);
    assert_eq!(forced(Control::Force(0))?, [generated::Exit::Block3; 2]);
    assert_eq!(forced(Control::Never)?, [generated::Exit::End; 2]);
    Ok(())
}

#[test]
fn what_is_there_already_is_not_made_again() -> Result {
    let place = Place::new()?;
    let build = |recipe: &str| -> Result<bool> {
        std::fs::write(place.at("r.toml"), recipe)?;
        let builder = Builder::new(place.at("model.onnx")).recipe_file(place.at("r.toml")).out_dir(place.at("out"));
        Ok(builder.generate()?.is_cached)
    };
    assert!(!build(RECIPE)? && build(RECIPE)?);
    assert!(!build(&RECIPE.replace("0.5", "0.6"))?, "another recipe");
    std::fs::remove_file(place.at("out/model.rs"))?;
    assert!(!build(&RECIPE.replace("0.5", "0.6"))?, "no module");
    let model = std::fs::read(place.at("model.onnx"))?;
    std::fs::write(place.at("model.onnx"), [&model[..], b"\x12\x00"].concat())?;
    assert!(!build(&RECIPE.replace("0.5", "0.6"))?, "another model");
    Ok(())
}

#[test]
fn embedded_modules_name_the_artifact() -> Result {
    let place = Place::new()?;
    let built = builder(&place)?.embed(true).generate()?;
    let text = std::fs::read_to_string(built.module)?;
    says(&text, &["include_artifact!", &format!("{:?}", built.artifact.display().to_string())]);
    Ok(())
}

#[test]
fn machine_code_is_a_library_that_the_module_links() -> Result {
    let place = Place::new()?;
    let build = |cpu| -> Result<_> { Ok(builder(&place)?.native_code(cpu).generate()?) };
    let built = build(Cpu::Target)?;
    let library = built.library.ok_or("no library")?;
    let archive = std::fs::read(&library)?;
    assert!(archive.starts_with(b"!<arch>\n"));
    let text = std::fs::read_to_string(&built.module)?;
    says(&text, &["#[link(name = \"eec_one_exit\", kind = \"static\")]", "Options { native: Some(&CODE), ..options }"]);
    let symbol = text.split("#[link_name = \"").nth(1).and_then(|rest| rest.split('"').next()).ok_or("no symbol")?;
    assert!(archive.windows(symbol.len()).any(|window| window == symbol.as_bytes()), "{symbol}");
    assert!(build(Cpu::Target)?.is_cached && !build(Cpu::Host)?.is_cached, "made for other CPUs");
    std::fs::remove_file(library)?;
    assert!(!build(Cpu::Host)?.is_cached, "no library");
    Ok(())
}

#[test]
fn mistakes_are_errors_not_panics() -> Result {
    let place = Place::new()?;
    let refused = |builder: Builder, parts: &[&str]| {
        says(&builder.out_dir(place.at("out")).generate().err().map(|e| e.to_string()).unwrap_or_default(), parts);
    };
    refused(Builder::new(place.at("absent.onnx")), &["absent.onnx", "No such file"]);
    refused(Builder::new(place.at("model.onnx")).data(place.at("absent.npz")), &["absent.npz"]);
    refused(Builder::new(place.at("model.onnx")).name("no module"), &["`no module` cannot name a Rust module"]);
    std::fs::write(place.at("r.toml"), "max-dorp = 1")?;
    refused(Builder::new(place.at("model.onnx")).recipe_file(place.at("r.toml")), &["r.toml", "max-dorp"]);
    let unknown = Recipe { passes: "nonsense".into(), ..Recipe::default() };
    refused(Builder::new(place.at("model.onnx")).recipe(unknown), &["model.onnx", "passes: in `nonsense`"]);
    Ok(())
}

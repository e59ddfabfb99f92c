//! Narrow weights from the flag to the artifact, its runs and its export, on the carried model.

mod shared;

use eec::model::{Form, Model, run_options};
use eec::npz::{read_npz, write_npz};
use eec_ir::{Precision, Tensor};
use eec_runtime::Control;
use shared::place::{Place, Result, carried, says};

const FIXED_EXIT: &str = "--exits 3 --head final --rule maxprob:0.5";

/// The inputs in `rows.npz`.
fn rows(place: &Place) -> Result<Vec<(String, Tensor)>> {
    Ok(read_npz(&place.at("rows.npz"))?
        .into_iter()
        .filter(|(name, _)| *name != "labels")
        .map(|(n, t)| (n.to_string(), t))
        .collect())
}

fn size(place: &Place, name: &str) -> Result<f64> {
    Ok(std::fs::metadata(place.at(name))?.len() as f64)
}

#[test]
fn artifacts_shrink_and_run_like_the_model_that_was_rounded() -> Result {
    let place = Place::new()?;
    place.stdout("compile model.onnx -o f32.eec")?;
    place.rows("eval.npz", 5, "rows.npz")?;
    let rows = rows(&place)?;
    let inputs: Vec<(&str, Tensor)> = rows.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    // The embedding, which the last product shares as long as both are floats, stays as it is.
    for (precision, most) in [("f16", 0.65), ("bf16", 0.65), ("int8", 0.45)] {
        let file = format!("{precision}.eec");
        place.stdout(&format!("compile model.onnx --precision {precision} {FIXED_EXIT} -o {file}"))?;
        let share = size(&place, &file)? / size(&place, "f32.eec")?;
        assert!(share < most, "{precision}: {share} of the float32 artifact");
        let model = Model::open(&place.at(&file))?;
        assert_eq!(model.recipe.precision.name(), precision);
        let mut plain = model.session(Form::Plain, run_options(Some(1)))?;
        let mut dynamic = model.session(Form::Dynamic, run_options(Some(2)))?;
        // From the floats of the graph, without the artifact.
        let graph = &model.plain;
        let mut rounded =
            eec::model::session_of(eec::model::lowered(graph, Default::default())?, graph, run_options(None))?;
        let plain = plain.run(&inputs, Control::Auto)?;
        let never = dynamic.run(&inputs, Control::Never)?;
        assert_eq!(plain.outputs[0], never.outputs[0], "{precision}: without exits");
        assert_eq!(plain.outputs, rounded.run(&inputs, Control::Auto)?.outputs, "{precision}: from floats");
    }
    Ok(())
}

#[test]
fn with_data_both_models_are_measured_and_exits_are_judged_on_the_narrow_one() -> Result {
    let place = Place::new()?;
    place.data(|_| ())?;
    let json = place.json("compile model.onnx -o int8.eec --precision int8 --data data.npz")?;
    let narrowing = &json["narrowing"];
    assert_eq!((&narrowing["precision"], &narrowing["rows"]), (&"int8".into(), &200.into()));
    let number = |key: &str| narrowing[key].as_f64().unwrap_or(f64::NAN);
    assert!((number("full") - number("narrow")).abs() <= 0.02, "{narrowing}");
    assert!(number("narrow_bytes") < 0.4 * number("full_bytes"), "{narrowing}");
    let page = std::fs::read_to_string(place.at("int8.html"))?;
    says(&page, &["Weights as int8", "float32", "bytes of weights"]);
    let model = Model::open(&place.at("int8.eec"))?;
    let plain = model.reports.first().and_then(|r| r.outcome.as_ref()).map(|o| o.plain.accuracy);
    assert!(plain.is_some_and(|accuracy| (accuracy - number("narrow")).abs() < 0.1));
    Ok(())
}

#[test]
fn eval_sets_the_float32_model_beside_it() -> Result {
    let place = Place::new()?;
    place.rows("eval.npz", 40, "rows.npz")?;
    place.stdout("compile model.onnx --precision int8 -o int8.eec")?;
    let json = place.json("eval int8.eec --data rows.npz --against model.onnx")?;
    assert!(json["float32"]["batch1_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{json}");
    assert_eq!(json["float32"]["macs"], json["plain"]["macs"]);
    says(&place.stdout("eval int8.eec --data rows.npz --against model.onnx")?, &["float32", "plain / float32"]);
    says(&place.refusal(1, "eval int8.eec --data rows.npz --against int8.eec")?, &["int8.eec", "int8 weights itself"]);
    Ok(())
}

#[test]
fn a_recipe_names_the_precision_and_unknown_ones_are_refused() -> Result {
    let place = Place::new()?;
    std::fs::write(place.at("r.toml"), "precision = \"bf16\"\n")?;
    place.stdout("compile model.onnx --recipe r.toml -o a.eec")?;
    assert_eq!(Model::open(&place.at("a.eec"))?.recipe.precision, Precision::Bf16);
    std::fs::write(place.at("bad.toml"), "precision = \"int4\"\n")?;
    says(&place.refusal(1, "compile model.onnx --recipe bad.toml -o b.eec")?, &["bad.toml", "f32, f16, bf16 or int8"]);
    says(
        &place.refusal(2, "compile model.onnx --precision int4 -o b.eec")?,
        &["--precision", "f32, f16, bf16 or int8"],
    );
    says(&place.refusal(1, "compile a.eec --precision int8 -o b.eec")?, &["a.eec", "bf16 weights already"]);
    Ok(())
}

#[test]
fn exports_keep_the_rounded_values() -> Result {
    let place = Place::new()?;
    place.rows("eval.npz", 3, "rows.npz")?;
    place.stdout("compile model.onnx --precision int8 -o int8.eec")?;
    place.stdout("export int8.eec -o int8.onnx")?;
    let (narrow, exported) = (Model::open(&place.at("int8.eec"))?, Model::open(&place.at("int8.onnx"))?);
    let rows = rows(&place)?;
    let inputs: Vec<(&str, Tensor)> = rows.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    let run = |model: &Model| -> Result<_> {
        Ok(model.session(Form::Plain, run_options(None))?.run(&inputs, Control::Auto)?.outputs)
    };
    assert_eq!(run(&narrow)?, run(&exported)?);
    Ok(())
}

/// A difference in the last place turns the rounding of some activations, and the logits with it.
const BF16_LOGITS: f32 = 0.05;

#[test]
fn onnx_runtime_rounds_what_bf16_products_are_multiplied_with() -> Result {
    let place = Place::new()?;
    let all = read_npz(&carried("eval.npz"))?;
    let rows: Vec<_> = all.iter().filter(|(n, _)| *n != "labels").map(|(n, t)| (n, t.rows(0, 8))).collect();
    write_npz(&place.at("rows.npz"), rows.iter().map(|(n, t)| (n.as_str(), t)))?;
    place.stdout("compile model.onnx --precision bf16 -o m.eec")?;
    place.stdout("export m.eec -o m.onnx")?;
    place.stdout("run m.eec --inputs rows.npz --save-outputs have.npz")?;
    let found = shared::onnx_runtime(&place.at("m.onnx"), &place.at("rows.npz"), &place.at("want.npz"))?;
    let (Some(want), have) = (found, read_npz(&place.at("have.npz"))?) else { return Ok(()) };
    for (name, want) in &want {
        let (have, want) = (have[name].elements::<f32>().ok_or("floats")?, want.elements::<f32>().ok_or("floats")?);
        assert!(have.iter().zip(want.iter()).all(|(h, w)| (h - w).abs() <= BF16_LOGITS * (1.0 + w.abs())), "{name}");
    }
    Ok(())
}

//! `eec run` and `eec bench` as a user meets them: inputs, comparisons, what is warned of.

mod shared;

use eec::npz::write_npz;
use eec_ir::Tensor;

use shared::place::{Place, Result, says};

#[test]
fn a_comparison_with_nothing_is_refused() -> Result {
    let place = Place::new()?;
    write_npz(&place.at("none.npz"), [])?;
    let line = "run model.onnx --dim batch=1 --expect none.npz";
    says(&place.refusal(1, line)?, &["none.npz", "holds no arrays"]);
    place.data(|_| ())?;
    says(&place.refusal(1, "run model.onnx --dim batch=1 --expect data.npz")?, &["data.npz", "is no output"]);
    Ok(())
}

#[test]
fn inputs_that_are_random_beside_given_ones_are_named() -> Result {
    let place = Place::new()?;
    place.data(|a| drop((a.remove("labels"), a.remove("input_ids"))))?;
    let out = place.run("run model.onnx --inputs data.npz")?;
    assert!(out.status.success());
    assert_eq!(String::from_utf8(out.stderr)?, "warning: input input_ids is not given; taking random values\n");
    let out = place.run("run model.onnx --dim batch=1")?;
    assert!(out.status.success() && out.stderr.is_empty());
    Ok(())
}

#[test]
fn a_gap_in_a_folder_of_test_data_is_refused() -> Result {
    let place = Place::new()?;
    std::fs::create_dir(place.at("set"))?;
    says(&place.refusal(1, "run model.onnx --inputs set")?, &["set", "found none"]);
    std::fs::write(place.at("set/input_0.pb"), [0x08, 2, 0x10, 7, 0x3a, 2, 5, 7])?;
    std::fs::write(place.at("set/input_2.pb"), [0x08, 2, 0x10, 7, 0x3a, 2, 5, 7])?;
    says(&place.refusal(1, "run model.onnx --inputs set")?, &["input_2.pb", "no input_1.pb before it"]);
    std::fs::copy(place.at("set/input_0.pb"), place.at("set/input_1.pb"))?;
    says(&place.refusal(1, "run model.onnx --inputs set")?, &["input_2.pb", "only the inputs pixel_values, input_ids"]);
    Ok(())
}

#[test]
fn exits_are_named_by_number() -> Result {
    let place = Place::new()?;
    assert!(place.run("compile model.onnx -o one.eec --exits 3 --head final --rule maxprob:0.5")?.status.success());
    let text = String::from_utf8(place.run("run one.eec --dim batch=1")?.stdout)?;
    says(&text, &["exits: 0 (after block 3), 1 (full depth)"]);
    Ok(())
}

#[test]
fn bench_times_all_depths_and_says_where_the_run_left() -> Result {
    let place = Place::new()?;
    assert!(place.run("compile model.onnx -o one.eec --exits 3 --head final --rule maxprob:0")?.status.success());
    let line = "bench one.eec --dim batch=3 --iters 1 --warmup 0";
    let text = String::from_utf8(place.run(line)?.stdout)?;
    says(&text, &["run", "forced exit after block 3", "plain model", "rows of the run: 3 after block 3"]);
    let json: serde_json::Value = serde_json::from_slice(&place.run(&format!("{line} --json"))?.stdout)?;
    assert_eq!(json["exit_histogram"], serde_json::json!([3, 0]));
    assert!(json["plain"]["median_ms"].as_f64() > Some(0.0));
    let json: serde_json::Value = serde_json::from_slice(&place.run(&format!("{line} --no-exit --json"))?.stdout)?;
    assert!(json["plain"].is_null() && json["per_exit"].is_null());
    Ok(())
}

#[test]
fn integers_of_other_widths_are_taken() -> Result {
    let place = Place::new()?;
    place.data(|a| {
        a.remove("labels");
        a.values_mut().for_each(|t| *t = t.rows(0, 2));
    })?;
    assert!(place.run("run model.onnx --inputs data.npz --save-outputs y.npz")?.status.success());
    let narrow = |ids: &Tensor| ids.to_i64s().unwrap_or_default().into_iter().map(|i| i as i32).collect();
    place.data(|a| {
        a.remove("labels");
        a.values_mut().for_each(|t| *t = t.rows(0, 2));
        a.extend(Tensor::new(&[2, 10], narrow(&a["input_ids"])).ok().map(|t| ("input_ids".to_string(), t)));
    })?;
    assert!(place.run("run model.onnx --inputs data.npz --expect y.npz")?.status.success());
    Ok(())
}

#[test]
fn inputs_and_dims_are_fixed() -> Result {
    let place = Place::new()?;
    let fixed = "--fix input_ids=1,2,3,4,5,6,7,8,9,10 --fix-dim batch=1";
    let json: serde_json::Value =
        serde_json::from_slice(&place.run(&format!("inspect model.onnx {fixed} --json"))?.stdout)?;
    assert_eq!(json["inputs"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["inputs"][0]["shape"][0], serde_json::json!("1"));
    assert!(place.run(&format!("compile model.onnx -o fixed.eec {fixed}"))?.status.success());
    assert!(place.run("run fixed.eec --save-outputs y.npz")?.status.success());
    // The same input given at the run.
    place.data(|a| {
        a.clear();
        a.extend(Tensor::new(&[1, 10], (1..=10).collect::<Vec<i64>>()).ok().map(|t| ("input_ids".to_string(), t)));
    })?;
    assert!(place.run("run model.onnx --inputs data.npz --dim batch=1 --expect y.npz")?.status.success());
    assert!(place.run("run model.onnx --fix input_ids=@data.npz --fix-dim batch=1 --expect y.npz")?.status.success());
    says(&place.refusal(2, &format!("run fixed.eec {fixed}"))?, &["fixed.eec", "when the .onnx is imported"]);
    let limited = place.refusal(2, "run fixed.eec --import-limit nodes=7")?;
    says(&limited, &["fixed.eec", "limits are set when the .onnx is imported"]);
    let unknown = place.refusal(2, "run model.onnx --fix ids=1")?;
    says(&unknown, &["`ids` is no input of the model", "inputs: pixel_values, input_ids"]);
    for verb in ["run", "opt", "explain", "reduce"] {
        let unknown = place.refusal(2, &format!("{verb} model.onnx --fix-dim rows=1"))?;
        says(&unknown, &["no input of the model has a dim `rows`", "dims: batch"]);
    }
    says(&place.stdout("opt model.onnx --fix-dim batch=3")?, &["pixel_values: f32[3, "]);
    says(&place.refusal(2, "run model.onnx --fix input_ids=1,2 --fix-dim batch=1")?, &["2 elements do not fit"]);
    says(&place.refusal(2, "run model.onnx --fix input_ids=seven --fix-dim batch=1")?, &["not one of its elements"]);
    says(&place.refusal(2, "run model.onnx --fix-dim batch=1 --fix-dim batch=2")?, &["given twice for `batch`"]);
    says(&place.refusal(2, "compile model.onnx -o x.eec --report r.html")?, &["--report needs --data"]);
    says(&place.refusal(2, "run model.onnx --import-limit nods=3")?, &["rank, nodes, depth, steps"]);
    says(&place.refusal(1, "run model.onnx --import-limit nodes=3")?, &["the limit `nodes`, 3"]);
    Ok(())
}

//! The command as a user meets it: what is refused, in which words, and what is left on disk.

mod shared;

use std::process::Stdio;
use std::time::Duration;

use eec::npz::Arrays;
use eec_ir::{Graph, Op, Origin, Tensor, Type};

use shared::place::{Place, Result, carried, says};

#[test]
fn broken_models_are_named_with_what_they_are() -> Result {
    let place = Place::new()?;
    let model = std::fs::read(place.at("model.onnx"))?;
    std::fs::write(place.at("half.onnx"), &model[..model.len() / 2])?;
    std::fs::write(place.at("text.onnx"), "not a model\n")?;
    std::fs::write(place.at("empty.onnx"), "")?;
    says(&place.refusal(1, "inspect absent.onnx")?, &["absent.onnx", "No such file"]);
    says(&place.refusal(1, "inspect half.onnx")?, &["half.onnx", "cut off"]);
    says(&place.refusal(1, "run text.onnx")?, &["text.onnx", "looks like text"]);
    says(&place.refusal(1, "compile empty.onnx -o x.eec")?, &["empty.onnx", "is empty"]);
    assert!(place.run("compile model.onnx -o whole.eec")?.status.success());
    let artifact = std::fs::read(place.at("whole.eec"))?;
    std::fs::write(place.at("half.eec"), &artifact[..artifact.len() / 2])?;
    says(&place.refusal(1, "run half.eec")?, &["half.eec", "damaged"]);
    says(&place.refusal(1, "export text.onnx -o x.onnx")?, &["text.onnx", "looks like text"]);
    assert!(!place.at("x.eec").exists() && !place.at("x.onnx").exists());
    Ok(())
}

#[test]
fn flags_of_a_gpu_are_wrong_without_one() -> Result {
    let place = Place::new()?;
    place.rows("eval.npz", 2, "rows.npz")?;
    for (line, flag) in [
        ("run model.onnx --adapter any", "--adapter"),
        ("bench model.onnx --gpu-guard direct", "--gpu-guard"),
        ("eval model.onnx --data rows.npz --host-ops", "--host-ops"),
        ("hwbench --adapter any", "--adapter"),
    ] {
        says(&place.refusal(2, line)?, &[flag, "needs --backend gpu"]);
    }
    Ok(())
}

#[test]
fn inspect_says_whether_a_model_runs_on_a_gpu() -> Result {
    let place = Place::new()?;
    says(&place.stdout("inspect model.onnx")?, &["  runs on a GPU\n"]);
    assert_eq!(place.json("inspect model.onnx")?["gpu"]["runs"], true);
    Ok(())
}

#[test]
fn data_that_does_not_fit_is_refused_by_file_array_and_row() -> Result {
    let place = Place::new()?;
    let line = "compile model.onnx -o x.eec --data data.npz";
    let refused = |change: &dyn Fn(&mut Arrays), parts: &[&str]| -> Result {
        place.data(change)?;
        let error = place.refusal(1, line)?;
        says(&error, parts);
        says(&error, &["data.npz"]);
        Ok(())
    };
    let labels =
        |values: Vec<i64>| move |a: &mut Arrays| drop(a.insert("labels".into(), Tensor::vector(values.clone())));
    refused(&labels(vec![1; 199]), &["i64[200]", "i64[199]"])?;
    refused(&labels((0..200).map(|i| if i == 17 { 13 } else { 0 }).collect()), &["13 in row 17", "0 to 12"])?;
    refused(&labels((0..200).map(|i| if i == 3 { -1 } else { 0 }).collect()), &["-1 in row 3"])?;
    refused(&|a| drop(a.remove("input_ids")), &["no array for input input_ids"])?;
    refused(&|a| drop(a.insert("extra".into(), Tensor::scalar(1f32))), &["extra", "no input"])?;
    refused(&|a| drop(a.insert("input_ids".into(), a["pixel_values"].clone())), &["input_ids", "i64[batch, 10]"])?;
    refused(&|a| a.values_mut().for_each(|t| *t = t.rows(0, 0)), &["no rows"])?;
    refused(&|a| a.values_mut().for_each(|t| *t = t.rows(0, 20)), &["model.onnx", "found 20"])?;
    let nan = |a: &mut Arrays| {
        let mut values = a["pixel_values"].elements::<f32>().map(|v| v.into_owned()).unwrap_or_default();
        values[5 * 3 * 64 * 64 + 7] = f32::NAN;
        a.extend(Tensor::new(&[200, 3, 64, 64], values).ok().map(|t| ("pixel_values".to_string(), t)));
    };
    refused(&nan, &["pixel_values", "NaN in row 5"])?;
    let beyond = |a: &mut Arrays| {
        drop(a.insert("input_ids".into(), Tensor::new(&[200, 10], vec![9999i64; 2000]).unwrap_or(Tensor::scalar(0i64))))
    };
    refused(&beyond, &["model.onnx", "index is out of range", "\"input_ids\" holds values from 9999 to 9999"])?;
    std::fs::write(place.at("data.npz"), "text")?;
    says(&place.refusal(1, line)?, &["data.npz", "is not an .npz archive"]);
    says(&place.refusal(1, "compile model.onnx -o x.eec --data absent.npz")?, &["absent.npz"]);
    assert_eq!(place.files()?, ["data.npz", "model.onnx"]);
    Ok(())
}

#[test]
fn nonsense_in_flags_is_a_usage_error_with_what_was_expected() -> Result {
    let place = Place::new()?;
    let refused = |flags: &str, parts: &[&str]| -> Result {
        says(&place.refusal(2, &format!("compile model.onnx -o x.eec {flags}"))?, parts);
        Ok(())
    };
    for drop in ["abc", "50", "-1%", "200%", "NaN", "%"] {
        refused(&format!("--max-drop {drop}"), &["--max-drop", drop, "a drop such as 0.5%"])?;
    }
    refused("--confidence 2", &["--confidence", "above 0 and below 1"])?;
    refused("--rule maxprob:2", &["--rule", "from 0 to 1"])?;
    refused("--rule softmax", &["--rule", "maxprob, entropy, margin or patience"])?;
    refused("--head mlp:99999999999", &["--head", "1 to 16384"])?;
    refused("--exits x", &["--exits", "auto, none or a list"])?;
    says(&place.refusal(2, "bench model.onnx --iters 0")?, &["--iters", "1 or more"]);
    for (verb, threads) in [("run", "0"), ("bench", "100000"), ("eval --data d.npz", "-1"), ("compile -o x.eec", "x")] {
        let error = place.refusal(2, &format!("{verb} model.onnx --threads={threads}"))?;
        says(&error, &["--threads", "from 1 to 1024", "all cores"]);
    }
    let zero = place.command("run model.onnx").env("EEC_THREADS", "0").output()?;
    assert_eq!(zero.status.code(), Some(2));
    says(&String::from_utf8(zero.stderr)?, &["from 1 to 1024"]);
    says(&place.refusal(2, "run model.onnx --no-exit --force-exit 0")?, &["cannot be used with"]);
    std::fs::write(place.at("r.toml"), "confidence = 3.0")?;
    says(&place.refusal(1, "compile model.onnx -o x.eec --recipe r.toml")?, &["r.toml", "line 1", "below 1"]);
    assert_eq!(place.files()?, ["model.onnx", "r.toml"]);
    Ok(())
}

#[test]
fn requests_that_the_model_cannot_meet_are_refused_with_the_reason() -> Result {
    let place = Place::new()?;
    place.data(|_| ())?;
    let beyond = place.refusal(1, "compile model.onnx -o x.eec --data data.npz --exits 99")?;
    says(&beyond, &["model.onnx", "block 99", "candidates: 0, 1, 2, 3, 4, 5, 6", "last block"]);
    says(&place.refusal(2, "compile model.onnx -o x.eec --exits 2")?, &["needs data"]);
    let head = place.refusal(1, "compile model.onnx -o x.eec --data data.npz --head file:model.onnx")?;
    says(&head, &["model.onnx", "expected a graph with 1 input and 1 output, found 2 and 1"]);
    says(&place.refusal(1, "run model.onnx --input pixel_values=@absent.npy")?, &["absent.npy"]);
    Ok(())
}

#[test]
fn flags_that_do_not_fit_the_model_are_usage_errors() -> Result {
    let place = Place::new()?;
    for (flags, parts) in [
        ("--force-exit 0", &["model.onnx has no exits"][..]),
        ("--dim foo=3", &["no dim `foo`", "batch"]),
        ("--dim batch=x", &["batch=x", "--dim", "NAME=N"]),
        ("--dim batch", &["--dim", "NAME=N"]),
        ("--input pixel_values=px.npy", &["--input", "NAME=@FILE"]),
        ("--shape pixel_values:axb", &["--shape", "NAME:SHAPE"]),
        ("--shape pixel:1x2", &["`pixel` is no input", "pixel_values"]),
    ] {
        says(&place.refusal(2, &format!("run model.onnx {flags}"))?, parts);
    }
    assert!(place.run("compile model.onnx -o one.eec --exits 3 --head final --rule maxprob:0.5")?.status.success());
    let forced = place.refusal(2, "bench one.eec --dim batch=1 --force-exit 99")?;
    says(&forced, &["--force-exit 99", "one.eec has the exits 0 (after block 3)"]);
    Ok(())
}

#[test]
fn inspect_says_why_a_model_has_no_blocks() -> Result {
    let place = Place::new()?;
    let mut g = Graph::new("flat");
    let x = g.add_input("x", Type::new(eec_ir::DType::F32, [eec_ir::Dim::symbol("batch"), 3.into()]));
    let w = g.constant(Tensor::new(&[3, 2], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?);
    let y = g.append1(Graph::ROOT, Op::MATMUL, &[x, w], Origin::source("fc"))?;
    g.set_outputs(vec![("y".into(), y)]);
    std::fs::write(place.at("flat.onnx"), eec::onnx::export_bytes(&g)?)?;
    let text = String::from_utf8(place.run("inspect flat.onnx")?.stdout)?;
    says(&text, &["MACs: 6", "no blocks: between the values that all data passes there is no matrix product"]);
    Ok(())
}

#[test]
fn opt_refuses_passes_and_names_that_are_not_there() -> Result {
    let place = Place::new()?;
    for (flags, parts) in [
        ("--passes nonsense", &["--passes", "nonsense", "exit-heads"][..]),
        ("--passes simplify --stop-after nope", &["--stop-after nope", "`simplify`"]),
        ("--passes simplify --print-ir-after nope", &["--print-ir-after nope", "`simplify`"]),
        ("--passes exit-heads{plaices=[1]}", &["no option `plaices`"]),
    ] {
        says(&place.refusal(2, &format!("opt model.onnx {flags}"))?, parts);
    }
    assert!(place.run("opt model.onnx --passes simplify --print-ir-after all")?.status.success());
    Ok(())
}

#[test]
fn opt_takes_a_compiled_model_with_its_exits() -> Result {
    let place = Place::new()?;
    assert!(place.run("compile model.onnx -o one.eec --exits 3 --head final --rule maxprob:0.5")?.status.success());
    let text = String::from_utf8(place.run("opt one.eec")?.stdout)?;
    says(&text, &["Route", "exit_index"]);
    Ok(())
}

#[test]
fn results_are_refused_before_work_where_they_cannot_be_written() -> Result {
    let place = Place::new()?;
    std::fs::create_dir(place.at("folder.eec"))?;
    let model = std::fs::read(place.at("model.onnx"))?;
    says(&place.refusal(1, "compile model.onnx -o absent/x.eec")?, &["absent/x.eec", "no folder absent"]);
    says(&place.refusal(1, "compile model.onnx -o folder.eec")?, &["folder.eec", "found a folder"]);
    says(&place.refusal(2, "compile model.onnx -o model.onnx")?, &["model.onnx", "ends in .eec"]);
    says(&place.refusal(2, "export model.onnx -o x.eec")?, &["x.eec", "ends in .onnx"]);
    says(&place.refusal(2, "run model.onnx --save-outputs y.npy")?, &["y.npy", "ends in .npz"]);
    says(&place.refusal(1, "export model.onnx -o ./model.onnx")?, &["model.onnx", "overwritten"]);
    says(&place.refusal(1, "run model.onnx --save-outputs absent/x.npz")?, &["absent/x.npz", "no folder"]);
    assert!(std::fs::read(place.at("model.onnx"))? == model);
    assert_eq!(place.files()?, ["folder.eec", "model.onnx"]);
    Ok(())
}

#[test]
fn an_interrupted_compile_leaves_the_old_artifact() -> Result {
    let place = Place::new()?;
    std::fs::write(place.at("x.eec"), "old")?;
    for wait in [1, 30, 200] {
        let line = format!("compile model.onnx -o x.eec --data {}", carried("calib.npz").display());
        let mut child = place.command(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(wait));
        child.kill()?;
        child.wait()?;
        assert_eq!(std::fs::read(place.at("x.eec"))?, b"old");
    }
    Ok(())
}

#[test]
fn a_closed_pipe_ends_the_command_quietly() -> Result {
    let place = Place::new()?;
    let mut child = place.command("opt model.onnx").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    drop(child.stdout.take());
    let out = child.wait_with_output()?;
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

#[test]
fn every_verbs_help_reads_as_documentation() -> Result {
    let place = Place::new()?;
    for verb in ["inspect", "compile", "run", "eval", "bench", "export", "opt", "explain", "reduce"] {
        let out = place.run(&format!("{verb} --help"))?;
        let text = String::from_utf8(out.stdout)?;
        let first = text.lines().next().unwrap_or_default();
        assert!(
            out.status.success() && first.len() > 20 && first.ends_with(|c: char| !c.is_whitespace()),
            "{verb}: {text}"
        );
        assert!(text.contains(&format!("Usage: eec {verb}")), "{text}");
    }
    assert_eq!(place.run("")?.status.code(), Some(2));
    Ok(())
}

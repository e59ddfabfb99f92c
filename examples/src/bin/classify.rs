//! Asks a compiled model about a few pictures and shows where each sample left. It needs
//! `eec-runtime` alone: neither ONNX nor the compiler is part of this program.
//!
//! ```text
//! cargo run --release -p eec-examples --bin classify
//! cargo run --release -p eec-examples --bin classify -- MODEL.eec DATA.npz ROWS
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use eec_runtime::{Control, DType, Options, PortInfo, Run, Session, Tensor};
use npyz::npz::NpzArchive;

type Archive = NpzArchive<BufReader<File>>;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let model = args.next().unwrap_or_else(|| "easy-vqa.eec".into());
    let data = args.next().unwrap_or_else(|| "examples/easy-vqa/eval.npz".into());
    let rows = args.next().map_or(Some(8), |text| text.to_str()?.parse().ok());
    let result = match rows {
        Some(rows) => classify(&model, &data, rows),
        None => Err("expected MODEL.eec DATA.npz ROWS, with a number of rows".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn classify(model: &Path, data: &Path, rows: u64) -> Result<(), Box<dyn Error>> {
    if !model.exists() {
        let name = model.display();
        return Err(format!(
            "there is no {name}; to make it from the model carried here:\n  \
             cargo run --release -p eec -- compile examples/easy-vqa/model.onnx --data examples/easy-vqa/calib.npz \
             --max-drop 0.5% -o {name}"
        )
        .into());
    }
    let mut session = Session::load(model, Options::default())?;
    let mut archive = NpzArchive::open(data).map_err(|e| format!("{}: {e}", data.display()))?;
    let mut inputs = Vec::new();
    for port in session.inputs() {
        let tensor = first_rows(&mut archive, &port, rows);
        inputs.push((port.name.clone(), tensor.map_err(|e| format!("{}: {}: {e}", data.display(), port.name))?));
    }
    let named: Vec<(&str, Tensor)> = inputs.iter().map(|(name, t)| (name.as_str(), t.clone())).collect();
    // One call for the whole batch: each sample leaves where it is sure, the others go on together.
    let run = session.run(&named, Control::Auto)?;
    print(&run, &session.exits())
}

/// The first rows of the array that a model's input is named after.
fn first_rows(archive: &mut Archive, port: &PortInfo, rows: u64) -> Result<Tensor, Box<dyn Error>> {
    let array = archive.by_name(&port.name)?.ok_or("no such array")?;
    let mut shape: Vec<usize> = array.shape().iter().map(|d| usize::try_from(*d)).collect::<Result<_, _>>()?;
    let all = shape.first_mut().ok_or("a scalar has no rows")?;
    *all = usize::try_from(rows)?.min(*all);
    let count = shape.iter().product();
    Ok(match port.dtype {
        DType::F32 => Tensor::new(&shape, array.data::<f32>()?.take(count).collect::<Result<Vec<_>, _>>()?)?,
        DType::I64 => Tensor::new(&shape, array.data::<i64>()?.take(count).collect::<Result<Vec<_>, _>>()?)?,
        other => return Err(format!("inputs of {other} are not read here").into()),
    })
}

/// Class, exit and confidence per sample, and how much work the batch took.
fn print(run: &Run, exits: &[&str]) -> Result<(), Box<dyn Error>> {
    let output = |name: &str| run.outputs.iter().find(|(n, _)| n == name).map(|(_, t)| t);
    let (name, logits) = run.outputs.first().ok_or("the model has no output")?;
    let classes = logits.dims().last().copied().filter(|n| *n > 0).ok_or("the first output has no classes")?;
    let scores = logits.elements::<f32>().ok_or_else(|| format!("`{name}` is not a float per class"))?;
    let taken = output("exit_index").and_then(Tensor::to_i64s);
    let confidence = output("confidence").and_then(|t| Some(t.elements::<f32>()?.into_owned()));
    println!("sample  class  left after  confidence");
    for (sample, row) in scores.chunks(classes).enumerate() {
        let class = (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0);
        let exit = taken.as_ref().and_then(|t| t.get(sample)).and_then(|k| exits.get(usize::try_from(*k).ok()?));
        let sure = confidence.as_ref().and_then(|c| c.get(sample)).map_or("-".into(), |c| format!("{c:.3}"));
        println!("{sample:>6}  {class:>5}  {:<10}  {sure:>10}", exit.copied().unwrap_or("the end"));
    }
    println!("{} multiply-accumulates in {} kernels", run.counters.macs, run.counters.kernels);
    Ok(())
}

//! One case: workers are started, their outputs compared, and rounds timed in turn.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use eec::compare::{Tolerance, compare};
use eec::model::{Form, Model, run_options};
use eec::onnx::export;
use eec_ir::Tensor;
use eec_runtime::Control as RunControl;

use crate::Args;
use crate::cases::{self, Case};
use crate::dynamic;
use crate::engines::{Control, Kind};
use crate::worker::{Job, Worker};

/// Engines keep their threads spinning for a while after a run; the next one waits that out.
const PAUSE: Duration = Duration::from_millis(100);

/// Outputs of different engines may differ by the order of their sums.
const TOLERANCE: Tolerance = Tolerance { atol: 2e-3, rtol: 2e-3 };

/// A case at a number of threads.
pub struct Timed {
    /// For people.
    pub case: String,
    /// Threads that compute.
    pub threads: usize,
    /// eec first; for a case with exits its plain model second.
    pub engines: Vec<TimedEngine>,
    /// Executed multiply-accumulates as a share of the plain model's, for a case with exits.
    pub macs_ratio: Option<f64>,
}

/// One engine's figures.
pub struct TimedEngine {
    /// For people.
    pub name: String,
    /// The figures, or why there are none.
    pub result: Result<Figures, String>,
}

/// What was measured.
pub struct Figures {
    /// Milliseconds per run, one per round, ascending.
    pub times: Vec<f64>,
    /// Milliseconds from the start of loading to the first result.
    pub load_ms: f64,
    /// MiB by which loading and the first run raised the peak of resident memory.
    pub peak_mb: f64,
}

impl Figures {
    /// The median time in milliseconds.
    pub fn median(&self) -> f64 {
        self.times[self.times.len() / 2]
    }
}

/// Files of a case, and what its model executes.
struct Prepared {
    work: tempfile::TempDir,
    outputs: Vec<String>,
    macs_ratio: Option<f64>,
}

const INPUTS: &str = "inputs.npz";
const ARTIFACT: &str = "model.eec";
const PLAIN: &str = "plain.eec";
const EXPORTED: &str = "exported.onnx";

/// Times a case.
pub fn time(args: &Args, case: &Case, threads: usize) -> Result<Timed, Box<dyn Error>> {
    let path = args.models.iter().map(|folder| folder.join(&case.model)).find(|p| p.exists());
    let path = path.ok_or_else(|| format!("{} is in none of the folders of models", case.model))?;
    let prepared = prepare(&path, case)?;
    let work = prepared.work.path();
    let inputs = work.join(INPUTS);
    let start = |kind: Kind, model: &Path, control: Control| {
        let outputs = &prepared.outputs;
        Worker::start(kind, &args.python, &Job { model, inputs: &inputs, outputs, threads, control, work })
    };
    let artifact = start(Kind::Eec, &work.join(ARTIFACT), Control::Auto)?;
    let mut workers = vec![("eec".to_string(), Ok(artifact))];
    let source = if case.exits.is_some() {
        workers.push(("eec, plain model".into(), Ok(start(Kind::Eec, &work.join(PLAIN), Control::Never)?)));
        work.join(EXPORTED)
    } else {
        path
    };
    for kind in args.engines.iter().filter(|k| **k != Kind::Eec) {
        let worker = start(*kind, &source, Control::Auto).map_err(|e| e.to_string());
        workers.push((kind.name().into(), worker));
    }
    let engines = rounds(workers, args.rounds, case)?;
    Ok(Timed { case: case.name.clone(), threads, engines, macs_ratio: prepared.macs_ratio })
}

/// Writes the inputs, the artifact and, for a case with exits, the plain artifact and the exported model.
fn prepare(path: &Path, case: &Case) -> Result<Prepared, Box<dyn Error>> {
    let mut model = Model::open(path)?;
    let inputs = cases::inputs(&model.plain, &case.dims)?;
    let work = tempfile::tempdir()?;
    let file = |name: &str| work.path().join(name);
    eec::npz::write_npz(&file(INPUTS), inputs.iter().map(|(n, t)| (n.as_str(), t)))?;
    let mut macs_ratio = None;
    if let Some(pattern) = case.exits {
        model.save(&file(PLAIN))?;
        dynamic::insert(&mut model, pattern, &inputs)?;
        macs_ratio = Some(macs(&model, Form::Dynamic, &inputs)? / macs(&model, Form::Plain, &inputs)?);
        export(model.graph(Form::Dynamic), &file(EXPORTED))?;
    }
    model.save(&file(ARTIFACT))?;
    let graph = model.graph(Form::Dynamic);
    let name = |v: &eec_ir::ValueId| graph.value(*v).name.as_deref().unwrap_or_default().to_string();
    let outputs = graph.outputs().iter().map(name).collect();
    Ok(Prepared { outputs, macs_ratio, work })
}

/// Multiply-accumulates that a run executes.
fn macs(model: &Model, form: Form, inputs: &[(String, Tensor)]) -> Result<f64, Box<dyn Error>> {
    let named: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    Ok(model.session(form, run_options(None))?.run(&named, RunControl::Auto)?.counters.macs as f64)
}

type Started = (String, Result<Worker, String>);

/// Times all workers whose outputs are those of the first, in turn.
fn rounds(workers: Vec<Started>, rounds: usize, case: &Case) -> Result<Vec<TimedEngine>, Box<dyn Error>> {
    let mut checked: Vec<Started> = Vec::new();
    for (name, worker) in workers {
        let first = checked.first().and_then(|(_, w)| w.as_ref().ok());
        // A model without its exits answers otherwise.
        let other = checked.len() == 1 && case.exits.is_some();
        let difference = first.filter(|_| !other).and_then(|f| difference(f, worker.as_ref().ok()));
        checked.push((name, difference.map_or(worker, Err)));
    }
    let mut times = vec![Vec::new(); checked.len()];
    for round in 0..rounds + 1 {
        for ((_, worker), times) in checked.iter_mut().zip(&mut times) {
            let Ok(worker) = worker else { continue };
            std::thread::sleep(PAUSE);
            let time = worker.run(case.repeat)?;
            // The first round warms up.
            if round > 0 {
                times.push(time);
            }
        }
    }
    let figures = |worker: Worker, mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        Figures { times, load_ms: worker.load_ms, peak_mb: worker.peak_mb }
    };
    let timed = checked.into_iter().zip(times);
    Ok(timed.map(|((name, w), t)| TimedEngine { name, result: w.map(|w| figures(w, t)) }).collect())
}

/// How outputs of a worker differ from those of the first, if they do.
fn difference(first: &Worker, worker: Option<&Worker>) -> Option<String> {
    worker?.outputs.iter().find_map(|(name, want)| {
        let Some(have) = first.outputs.get(name) else { return Some(format!("has an output {name} of its own")) };
        // Engines differ in the integers that they compute with.
        let (have, want) = match have.dtype() == want.dtype() {
            true => (have.clone(), want.clone()),
            false => (floats(have)?, floats(want)?),
        };
        let difference = compare(&have, &want, TOLERANCE);
        (!difference.within).then(|| format!("output {name} differs: {}", difference.detail))
    })
}

fn floats(tensor: &Tensor) -> Option<Tensor> {
    Tensor::new(tensor.dims(), tensor.to_f64s().into_iter().map(|x| x as f32).collect::<Vec<f32>>()).ok()
}

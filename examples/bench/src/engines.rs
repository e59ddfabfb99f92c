//! The engines, each ready to run one model on one set of inputs.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use eec::model::{Form, Model, run_options};
use eec::npz::{Arrays, read_npz, write_npz};
use eec_ir::Tensor;
use eec_runtime::{Control, Session};

/// One engine with a loaded model.
pub trait Engine {
    /// Its name in the table.
    fn name(&self) -> &'static str;

    /// The outputs of the first run, by name.
    fn outputs(&self) -> &Arrays;

    /// Runs `count` times; the mean in milliseconds.
    fn run(&mut self, count: usize) -> Result<f64, Box<dyn Error>>;
}

/// This repository's compiler and runtime.
pub struct Eec {
    session: Session,
    inputs: Vec<(String, Tensor)>,
    outputs: Arrays,
}

impl Eec {
    /// Compiles `model` and runs it once.
    pub fn new(model: &Model, inputs: &[(String, Tensor)], threads: usize) -> Result<Eec, Box<dyn Error>> {
        let session = model.session(Form::Plain, run_options(Some(threads)))?;
        let mut engine = Eec { session, inputs: inputs.to_vec(), outputs: Arrays::new() };
        engine.outputs = engine.once()?.into_iter().collect();
        Ok(engine)
    }

    fn once(&mut self) -> Result<Vec<(String, Tensor)>, Box<dyn Error>> {
        let named: Vec<(&str, Tensor)> = self.inputs.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        Ok(self.session.run(&named, Control::Auto)?.outputs)
    }
}

impl Engine for Eec {
    fn name(&self) -> &'static str {
        "eec"
    }

    fn outputs(&self) -> &Arrays {
        &self.outputs
    }

    fn run(&mut self, count: usize) -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        for _ in 0..count {
            self.once()?;
        }
        Ok(start.elapsed().as_secs_f64() * 1e3 / count as f64)
    }
}

/// ONNX Runtime in a Python process.
pub struct OnnxRuntime {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    outputs: Arrays,
}

impl OnnxRuntime {
    /// Starts a worker that loads `model` and runs it once; files go to the folder `work`.
    pub fn new(
        python: &Path,
        model: &Path,
        inputs: &[(String, Tensor)],
        threads: usize,
        work: &Path,
    ) -> Result<OnnxRuntime, Box<dyn Error>> {
        let (given, found) = (work.join("inputs.npz"), work.join("outputs.npz"));
        write_npz(&given, inputs.iter().map(|(n, t)| (n.as_str(), t)))?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ort_worker.py");
        let mut command = Command::new(python);
        command.arg(script).args([model, &given, &found]).arg(threads.to_string());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the worker has no pipes".into());
        };
        let mut engine = OnnxRuntime { process, stdin, stdout: BufReader::new(stdout), outputs: Arrays::new() };
        let ready = engine.line()?;
        if ready != "ready" {
            return Err(format!("ONNX Runtime did not start: {ready:?}").into());
        }
        engine.outputs = read_npz(&found)?;
        Ok(engine)
    }

    fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim().to_string())
    }
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn outputs(&self) -> &Arrays {
        &self.outputs
    }

    fn run(&mut self, count: usize) -> Result<f64, Box<dyn Error>> {
        writeln!(self.stdin, "{count}")?;
        self.stdin.flush()?;
        let line = self.line()?;
        Ok(line.parse().map_err(|_| format!("ONNX Runtime stopped: {line:?}"))?)
    }
}

impl Drop for OnnxRuntime {
    fn drop(&mut self) {
        // A worker that has already ended needs no end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

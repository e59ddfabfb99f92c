//! Workers: every engine runs in a process of its own behind a line protocol, so that rounds can be interleaved
//! and memory and loading are those of one engine alone.
//!
//! A worker reads its inputs, loads its model, runs once, writes the outputs and prints `ready MS MB`: the time
//! from the start of loading to the first result, and by how much that raised the peak of its resident memory.
//! Then for every line `N` it runs N times and prints the mean milliseconds.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use eec::npz::{Arrays, read_npz, write_npz};
use eec_ir::Tensor;

use crate::engines::{self, Control, Kind};

/// What a worker is given.
#[derive(clap::Args)]
pub struct WorkerArgs {
    /// The engine
    engine: Kind,
    /// The model
    model: PathBuf,
    /// Its inputs by name
    inputs: PathBuf,
    /// Where to write its outputs
    outputs: PathBuf,
    /// Threads that compute
    threads: usize,
    /// Who decides at early exits
    #[arg(long, value_enum, default_value_t = Control::Auto)]
    control: Control,
    /// The names of the outputs, in the model's order
    names: Vec<String>,
}

/// Serves one engine until the input ends.
pub fn serve(args: &WorkerArgs) -> Result<(), Box<dyn Error>> {
    let inputs: Vec<(String, Tensor)> = read_npz(&args.inputs)?.into_iter().collect();
    let (before, start) = (resident("VmRSS:"), Instant::now());
    let mut engine = engines::load(args.engine, &args.model, &inputs, args.threads, args.control)?;
    let outputs = engine.run(&args.names)?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let peak_mb = (resident("VmHWM:") - before) / 1024.0;
    write_npz(&args.outputs, outputs.iter().map(|(n, t)| (n.as_str(), t)))?;
    println!("ready {load_ms} {peak_mb}");
    for line in std::io::stdin().lines() {
        let count: usize = line?.trim().parse()?;
        let start = Instant::now();
        for _ in 0..count {
            engine.run(&args.names)?;
        }
        println!("{}", start.elapsed().as_secs_f64() * 1e3 / count as f64);
    }
    Ok(())
}

/// A figure of this process from the kernel, in KiB; 0 where there is none.
fn resident(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(field));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0.0)
}

/// What one worker is to run.
pub struct Job<'a> {
    /// The model's file.
    pub model: &'a Path,
    /// Inputs in an `.npz`.
    pub inputs: &'a Path,
    /// The outputs' names in the model's order.
    pub outputs: &'a [String],
    /// Threads that compute.
    pub threads: usize,
    /// Who decides at early exits.
    pub control: Control,
    /// A folder for files.
    pub work: &'a Path,
}

/// A running worker.
pub struct Worker {
    /// The engine.
    pub engine: Kind,
    /// The outputs of the first run, by name.
    pub outputs: Arrays,
    /// Milliseconds from the start of loading to the first result.
    pub load_ms: f64,
    /// MiB by which loading and the first run raised the peak of resident memory.
    pub peak_mb: f64,
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker; `python` runs the engines that are Python packages.
    pub fn start(engine: Kind, python: &Path, job: &Job) -> Result<Worker, Box<dyn Error>> {
        let found = job.work.join(format!("{}.npz", engine.name()));
        let mut command = match engine {
            Kind::OnnxRuntime => {
                let mut command = Command::new(python);
                command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("ort_worker.py"));
                command.args([job.model, job.inputs, &found]).arg(job.threads.to_string());
                command
            }
            Kind::Eec | Kind::Tract | Kind::Rten => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["worker", engine.name()]).args([job.model, job.inputs, &found]);
                command.arg(job.threads.to_string()).args(["--control", job.control.name()]).args(job.outputs);
                command
            }
        };
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the worker has no pipes".into());
        };
        let (outputs, stdout) = (Arrays::new(), BufReader::new(stdout));
        let mut worker = Worker { engine, outputs, load_ms: 0.0, peak_mb: 0.0, process, stdin, stdout };
        let ready = worker.line()?;
        let figures: Vec<f64> = ready.split(' ').skip(1).filter_map(|f| f.parse().ok()).collect();
        let [load_ms, peak_mb] = figures[..] else { return Err(worker.complaint().into()) };
        (worker.load_ms, worker.peak_mb) = (load_ms, peak_mb);
        worker.outputs = read_npz(&found)?;
        Ok(worker)
    }

    /// Runs `count` times; the mean in milliseconds.
    pub fn run(&mut self, count: usize) -> Result<f64, Box<dyn Error>> {
        writeln!(self.stdin, "{count}")?;
        self.stdin.flush()?;
        let line = self.line()?;
        Ok(line.parse().map_err(|_| format!("{} stopped: {line:?}", self.engine.name()))?)
    }

    fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim().to_string())
    }

    /// The last line that a worker which did not start wrote about it.
    fn complaint(&mut self) -> String {
        let stderr = self.process.stderr.take().map(BufReader::new);
        let lines = stderr.into_iter().flat_map(BufRead::lines).map_while(Result::ok);
        lines.filter(|l| !l.trim().is_empty()).last().unwrap_or_else(|| "it ended without a word".into())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker that has already ended needs no end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

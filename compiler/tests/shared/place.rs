//! A folder in which the command is run, and what it must say.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use eec::npz::{Arrays, read_npz, write_npz};
use serde_json::Value;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A file of the carried example.
pub(crate) fn carried(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/easy-vqa").join(name)
}

/// A folder with the carried model.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Result<Place> {
        let place = Place(tempfile::tempdir()?);
        std::fs::copy(carried("model.onnx"), place.at("model.onnx"))?;
        Ok(place)
    }

    /// A path in the folder.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the command with the words of `line`.
    pub(crate) fn run(&self, line: &str) -> Result<Output> {
        Ok(self.command(line).output()?)
    }

    /// What the command prints if it succeeds.
    pub(crate) fn stdout(&self, line: &str) -> Result<String> {
        let out = self.run(line)?;
        if !out.status.success() {
            return Err(format!("eec {line}: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
        Ok(String::from_utf8(out.stdout)?)
    }

    /// The JSON that the command prints with `--json`.
    pub(crate) fn json(&self, line: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.stdout(&format!("{line} --json"))?)?)
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eec"));
        // Tests run side by side; results do not depend on the number of threads.
        command.args(line.split_whitespace()).current_dir(self.0.path()).env("EEC_THREADS", "1");
        command
    }

    /// The refusal of a command, which must have this exit code, print nothing else and not panic.
    pub(crate) fn refusal(&self, code: i32, line: &str) -> Result<String> {
        let out = self.run(line)?;
        let error = String::from_utf8(out.stderr)?;
        assert_eq!(out.status.code(), Some(code), "eec {line}: {error}");
        assert!(out.stdout.is_empty() && error.starts_with("error: ") && !error.contains("panicked"), "{error}");
        Ok(error)
    }

    /// The carried data's first 200 rows after `change`, as `data.npz`.
    pub(crate) fn data(&self, change: impl FnOnce(&mut Arrays)) -> Result {
        let mut arrays: Arrays =
            read_npz(&carried("calib.npz"))?.into_iter().map(|(n, t)| (n, t.rows(0, 200))).collect();
        change(&mut arrays);
        Ok(write_npz(&self.at("data.npz"), arrays.iter().map(|(n, t)| (n.as_str(), t)))?)
    }

    /// The first `count` rows of a carried data file, as the file `to`.
    pub(crate) fn rows(&self, name: &str, count: usize, to: &str) -> Result {
        let arrays = read_npz(&carried(name))?;
        let part: Vec<_> = arrays.iter().map(|(n, t)| (n.as_str(), t.rows(0, count))).collect();
        Ok(write_npz(&self.at(to), part.iter().map(|(n, t)| (*n, t)))?)
    }

    /// The names in the folder, sorted.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let names = std::fs::read_dir(self.0.path())?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }
}

/// The number at a place of a JSON value.
pub(crate) fn number(value: &Value, path: &str) -> Result<f64> {
    value.pointer(path).and_then(Value::as_f64).ok_or_else(|| format!("no number {path} in {value}").into())
}

/// The strings of the list at a place of a JSON value.
pub(crate) fn names(value: &Value, path: &str) -> Vec<String> {
    let list = value.pointer(path).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
}

/// Checks that all `parts` are in a message.
#[track_caller]
pub(crate) fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

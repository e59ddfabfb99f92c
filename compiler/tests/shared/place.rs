//! A folder in which the command is run, and what it must say.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use eec::npz::{Arrays, read_npz, write_npz};

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A file of the carried example.
pub(crate) fn carried(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/easy-vqa").join(name)
}

/// A folder with the model and 200 rows of data.
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

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eec"));
        command.args(line.split_whitespace()).current_dir(self.0.path());
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

    /// The names in the folder, sorted.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let names = std::fs::read_dir(self.0.path())?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }
}

/// Checks that all `parts` are in a message.
#[track_caller]
pub(crate) fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

//! What models are imported with: inputs and dims that are fixed, and limits.

use std::path::Path;

use eec_ir::Graph;

use super::dims::dim_arg;
use super::inputs::read_input;
use crate::Error;
use crate::model::{Model, simplified};
use crate::onnx::{self, FixedInput, ImportErrorKind, ImportOptions, Limits};

/// Where the help lists these.
const HEADING: &str = "Import";

/// How an `.onnx` file is imported.
#[derive(clap::Args)]
pub(super) struct ImportArgs {
    /// Makes an input a constant, for inputs that decide shapes: NAME=VALUE with commas between elements,
    /// or NAME=@FILE (.npy, .npz or .pb); may be repeated
    #[arg(long, help_heading = HEADING, value_name = "NAME=VALUE|@FILE", value_parser = fix_arg)]
    fix: Vec<(String, String)>,
    /// Makes a symbolic dim a constant: NAME=N; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "NAME=N", value_parser = dim_arg)]
    fix_dim: Vec<(String, i64)>,
    /// Sets a limit of what a file may ask for: NAME=N with rank, nodes, depth, steps (of a loop,
    /// one by one) or constant-bytes; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "NAME=N", value_parser = limit_arg)]
    import_limit: Vec<(String, usize)>,
}

impl ImportArgs {
    /// The model in the file `path`.
    pub(super) fn open(&self, path: &Path) -> Result<Model, Error> {
        Model::open_with(path, &self.options()?).map_err(as_usage)
    }

    /// The graph of an ONNX model in memory; `path` stands for it in errors.
    pub(super) fn import(&self, bytes: &[u8], path: &Path) -> Result<Graph, Error> {
        let graph = onnx::import_bytes_with(bytes, &path.display().to_string(), None, &self.options()?);
        simplified(graph.map_err(|e| as_usage(e.into()))?)
    }

    /// Refuses flags of the import for a file that is not imported.
    pub(super) fn expect_none(&self, path: &Path) -> Result<(), Error> {
        match self.options()? == ImportOptions::default() {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "{} is no ONNX model: --fix, --fix-dim and --import-limit are for its import",
                path.display()
            ))),
        }
    }

    fn options(&self) -> Result<ImportOptions, Error> {
        let mut options = ImportOptions::default();
        once("--fix", &self.fix)?;
        once("--fix-dim", &self.fix_dim)?;
        once("--import-limit", &self.import_limit)?;
        for (name, value) in &self.fix {
            let fixed = match value.strip_prefix('@') {
                Some(file) => FixedInput::Tensor(read_input(name, Path::new(file))?),
                None => FixedInput::Text(value.clone()),
            };
            options.inputs.insert(name.clone(), fixed);
        }
        options.dims = self.fix_dim.iter().cloned().collect();
        for (name, value) in &self.import_limit {
            options.limits.set(name, *value);
        }
        Ok(options)
    }
}

/// Refuses a flag that is given twice for one name.
pub(super) fn once<T>(flag: &str, given: &[(String, T)]) -> Result<(), Error> {
    let twice = given.iter().enumerate().find(|(i, (name, _))| given[..*i].iter().any(|(before, _)| before == name));
    twice.map_or(Ok(()), |(_, (name, _))| Err(Error::usage(format!("{flag} is given twice for `{name}`"))))
}

/// A flag that does not fit the model is wrong usage.
fn as_usage(error: Error) -> Error {
    match &error {
        Error::Import(e) if matches!(e.kind(), ImportErrorKind::Option(_)) => Error::usage(e),
        _ => error,
    }
}

/// `NAME=VALUE` of `--fix`.
fn fix_arg(text: &str) -> Result<(String, String), String> {
    let parsed = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    let parsed = parsed.map(|(name, value)| (name.to_string(), value.to_string()));
    parsed.ok_or_else(|| "expected NAME=VALUE or NAME=@FILE".into())
}

/// `NAME=N` of `--import-limit`.
fn limit_arg(text: &str) -> Result<(String, usize), String> {
    let parsed = text.split_once('=').and_then(|(name, n)| Some((name.to_string(), n.parse().ok()?)));
    let known = |(name, n): &(String, usize)| Limits::default().set(name, *n);
    parsed.filter(known).ok_or_else(|| format!("expected NAME=N with one of {}", Limits::NAMES.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_import_are_checked() {
        assert_eq!(fix_arg("axis=-1"), Ok(("axis".into(), "-1".into())));
        assert!(["axis", "=1", "axis="].iter().all(|text| fix_arg(text).is_err()));
        assert_eq!(limit_arg("nodes=7"), Ok(("nodes".into(), 7)));
        assert!(["nodes", "nodes=x", "notes=7"].iter().all(|text| limit_arg(text).is_err()));
    }
}

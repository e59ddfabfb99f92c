//! What the command prints: results to stdout, progress and errors to stderr.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::Error;
pub(super) use crate::display::{si, table};
use crate::model::Model;
use crate::progress::Progress;

/// Writes to stdout. A closed pipe (`eec inspect … | head`) ends the process quietly.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|e| Error::request(format!("stdout: {e}"))),
    }
}

/// Writes one JSON object and a newline.
pub(super) fn print_json(value: &serde_json::Value) -> Result<(), Error> {
    print(&format!("{value:#}\n"))
}

/// Reports a failure.
pub(super) fn error(error: &Error) {
    // The process fails anyway; that stderr is closed cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "error: {error}");
}

/// Reports something that the user may not have meant.
pub(super) fn warning(text: &str) {
    // As with errors, there is nobody left to tell.
    let _ = writeln!(io::stderr(), "warning: {text}");
}

/// Progress bars on a terminal, nothing elsewhere.
#[derive(Default)]
pub(super) struct Bars {
    current: RefCell<Option<ProgressBar>>,
}

impl Progress for Bars {
    fn begin(&self, stage: &str, total: usize) {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg:>24} [{bar:30}] {pos}/{len} {eta}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(stage.to_string());
        *self.current.borrow_mut() = Some(bar);
    }

    fn advance(&self, steps: usize) {
        if let Some(bar) = &*self.current.borrow() {
            bar.inc(steps as u64);
        }
    }

    fn end(&self) {
        if let Some(bar) = self.current.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}

/// The name of a result, which must end as its format does: another ending would mislead who reads it.
pub(super) fn named(ending: &'static str) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(move |path| {
        let fits = path.extension().is_some_and(|e| e == ending);
        if fits { Ok(path) } else { Err(format!("expected a name that ends in .{ending}")) }
    })
}

/// The same, or `-`: the result goes to stdout.
pub(super) fn named_or_stdout(ending: &'static str) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(move |path| {
        let fits = path == Path::new("-") || path.extension().is_some_and(|e| e == ending);
        if fits { Ok(path) } else { Err(format!("expected a name that ends in .{ending}, or - for stdout")) }
    })
}

/// Fails early, before long work, if `path` cannot be written or is one of the files that are read.
/// Leaves no file behind.
pub(super) fn check_writable(path: &Path, sources: &[&Path]) -> Result<(), Error> {
    if path.is_dir() {
        return Err(Error::content(path, "expected a file to write, found a folder"));
    }
    if path.exists() && !path.is_file() {
        return Err(Error::content(path, "expected a file to write, found a device or another special file"));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Error::content(path, format!("cannot be written: there is no folder {}", folder.display())));
    }
    if let Ok(target) = path.canonicalize() {
        if sources.iter().any(|s| s.canonicalize().is_ok_and(|s| s == target)) {
            return Err(Error::content(path, "would be read and overwritten; choose another name for the result"));
        }
        let writable = std::fs::OpenOptions::new().append(true).open(path);
        writable.map_err(|e| Error::content(path, format!("cannot be written: {e}")))?;
    }
    let probe = folder.join(format!(".eec-{}", std::process::id()));
    std::fs::File::create_new(&probe).map_err(|e| Error::content(path, format!("cannot be written: {e}")))?;
    std::fs::remove_file(&probe).map_err(|e| Error::io(&probe, e))
}

/// What a model does otherwise for all inputs.
pub(super) fn edits(model: &Model) -> Value {
    let inserted = &model.inserted;
    json!({ "removed_ffns": inserted.removed_ffns, "fixed_token_exit": inserted.fixed_token_exit() })
}

//! The options of a pass as written: `at=[1, 3], rule=maxprob:0.9`.

use std::fmt;

/// Why options make no pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionError(String);

impl OptionError {
    /// An error that says what was expected and what was found.
    pub fn new(reason: impl fmt::Display) -> Self {
        OptionError(reason.to_string())
    }
}

/// Options that no field of the pass has taken yet.
#[derive(Debug)]
pub struct Options<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Options<'t> {
    /// The pairs of `text`, each of a key among `known` and given once.
    pub(super) fn parse<'k>(text: &'t str, known: impl Iterator<Item = &'k str> + Clone) -> Result<Self, OptionError> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for part in split(text) {
            let pair = part.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
            let (key, value) =
                pair.ok_or_else(|| OptionError::new(format_args!("expected `key=value`, found `{part}`")))?;
            if !known.clone().any(|k| k == key) {
                return Err(OptionError::new(format_args!("there is no option `{key}`")));
            }
            if pairs.iter().any(|(k, _)| *k == key) {
                return Err(OptionError::new(format_args!("the option `{key}` is given twice")));
            }
            pairs.push((key, value));
        }
        Ok(Options(pairs))
    }

    /// The option `key`, if it is given, as `read` understands its text.
    ///
    /// # Errors
    ///
    /// `read` gives `None`.
    pub fn take<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, OptionError> {
        let Some(at) = self.0.iter().position(|(k, _)| *k == key) else {
            return Ok(None);
        };
        let (_, value) = self.0.remove(at);
        let read = read(value).map(Some);
        read.ok_or_else(|| OptionError::new(format_args!("`{key}` cannot be `{value}`")))
    }

    /// [`Options::take`] of an option that must be given.
    ///
    /// # Errors
    ///
    /// It is not given, or `read` gives `None`.
    pub fn required<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, OptionError> {
        self.take(key, read)?.ok_or_else(|| OptionError::new(format_args!("expected the option `{key}`")))
    }

    /// The first option that was not taken.
    pub(super) fn left(&self) -> Option<&'t str> {
        self.0.first().map(|(key, _)| *key)
    }
}

/// The parts of `text` between commas that stand in no bracket, without empty ones.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0usize;
    let between = move |c: char| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    text.split(between).map(str::trim).filter(|part| !part.is_empty())
}

/// A number of things, or of a block.
pub fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}

/// A list of blocks: `[1, 3]`.
pub fn places(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner.split(',').map(|n| number(n.trim())).collect()
}

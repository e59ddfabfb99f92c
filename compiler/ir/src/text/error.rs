//! Errors of the text form: where, what was expected, what was found, and the line with a caret.

use std::fmt;

/// One error in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was expected and what was found.
    pub message: String,
    /// The part of the line that is shown, and the caret's line under it.
    excerpt: [String; 2],
}

/// The errors of a text in the order they were found; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseErrors {
    /// The errors; at most [`ParseErrors::MAX`].
    pub errors: Vec<ParseError>,
}

impl ParseErrors {
    /// Parsing stops after this many errors.
    pub const MAX: usize = 20;
}

/// Characters of a long line that are shown before and after the caret.
const SHOWN: usize = 80;

impl ParseError {
    /// The error `message` at byte `offset` of `source`.
    pub(super) fn at(source: &str, offset: usize, message: String) -> Self {
        let mut offset = offset.min(source.len());
        while !source.is_char_boundary(offset) {
            offset -= 1;
        }
        let (before, after) = source.split_at(offset);
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        let left: Vec<char> = before[start..].chars().collect();
        let right = after.lines().next().unwrap_or("");
        let shown = &left[left.len().saturating_sub(SHOWN)..];
        let text: String = shown.iter().copied().chain(right.chars().take(SHOWN)).collect();
        let pad: String = shown.iter().map(|c| if *c == '\t' { '\t' } else { ' ' }).collect();
        ParseError {
            line: before.matches('\n').count() + 1,
            column: left.len() + 1,
            message,
            excerpt: [text, format!("{pad}^")],
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [text, caret] = &self.excerpt;
        write!(f, "{}:{}: {}\n  | {text}\n  | {caret}", self.line, self.column, self.message)
    }
}

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, e) in self.errors.iter().enumerate() {
            write!(f, "{}{e}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ParseError {}
impl std::error::Error for ParseErrors {}

//! The text form of a graph: printer and parser. The grammar stands in the crate's documentation.

mod cursor;
mod error;
mod lex;
mod parse;
mod print;
mod terms;

pub use error::{ParseError, ParseErrors};
pub use parse::{ConstRef, parse, pool_resolver};
pub use print::{Printer, node_line, region_keywords, region_text};

/// Constants with at most this many elements print with their values, larger ones by their hash.
pub const MAX_INLINE: usize = 8;

/// Whether a name needs no quotes after `%` or `@`: letters, digits, `_` and `.`, no digit first.
fn is_plain_name(name: &str) -> bool {
    let first = name.chars().next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && name.chars().all(is_word_char)
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

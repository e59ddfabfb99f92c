//! Names of models, inputs, outputs and exits as Rust identifiers.

use std::collections::HashSet;

/// Words that are no identifiers, the reserved ones included.
const KEYWORDS: [&str; 52] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "Self", "static", "struct", "super", "trait",
    "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// A module's name for a text: `easy_vqa` for `easy-vqa`.
pub(super) fn module(text: &str) -> String {
    snake(text, "model")
}

/// Whether a name can be a module's.
pub(super) fn is_module(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !name.trim_matches('_').is_empty();
    starts && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') && !KEYWORDS.contains(&name)
}

/// Names for fields or arguments, one per text and none among `taken`.
pub(super) fn fields<'t>(texts: impl Iterator<Item = &'t str>, taken: &[&str]) -> Vec<String> {
    unique(texts.map(|text| snake(text, "value")), taken)
}

/// Names for the variants of an enum, one per text and none among `taken`.
pub(super) fn variants<'t>(texts: impl Iterator<Item = &'t str>, taken: &[&str]) -> Vec<String> {
    unique(texts.map(camel), taken)
}

fn unique(names: impl Iterator<Item = String>, taken: &[&str]) -> Vec<String> {
    let mut known: HashSet<String> = taken.iter().map(ToString::to_string).collect();
    let mut free = |name: String| {
        let numbered = (2..).map(|n| format!("{name}_{n}"));
        let mut free = std::iter::once(name.clone()).chain(numbered).filter(|n| !known.contains(n));
        let found = free.next().unwrap_or(name);
        known.insert(found.clone());
        found
    };
    names.map(&mut free).collect()
}

/// Letters, digits and `_`, not a digit first; `other` where nothing is left.
fn snake(text: &str, other: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        match c.is_ascii_alphanumeric() {
            true => name.push(c.to_ascii_lowercase()),
            false if !name.ends_with('_') => name.push('_'),
            false => {}
        }
    }
    let name = name.trim_matches('_');
    match name.chars().next() {
        None => other.to_string(),
        Some(c) if c.is_ascii_digit() => format!("{other}_{name}"),
        Some(_) if KEYWORDS.contains(&name) => format!("{name}_"),
        Some(_) => name.to_string(),
    }
}

/// `Block3` for `block 3`.
fn camel(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let capital = |w: &str| w[..1].to_ascii_uppercase() + &w[1..];
    let name: String = words.map(capital).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) && name != "Self" { name } else { format!("Exit{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_gets_an_identifier_of_its_own() {
        let texts = ["pixel_values", "Input.IDs", "type", "7", "", "é", "a-b", "a.b", "mask"];
        let wanted = ["pixel_values", "input_ids", "type_", "value_7", "value", "value_2", "a_b", "a_b_2", "mask_2"];
        assert_eq!(fields(texts.into_iter(), &["mask"]), wanted);
        assert_eq!(
            variants(["block 3", "block 3", "end", "0"].into_iter(), &["End"]),
            ["Block3", "Block3_2", "End_2", "Exit0"]
        );
    }

    #[test]
    fn modules_are_named_after_files() {
        assert_eq!(
            [module("easy-vqa"), module("2nd model.v1"), module("fn")],
            ["easy_vqa", "model_2nd_model_v1", "fn_"]
        );
        assert!(
            is_module("easy_vqa") && !is_module("easy-vqa") && !is_module("fn") && !is_module("") && !is_module("_")
        );
    }
}

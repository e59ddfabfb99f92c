//! How shaders see the arena: as one binding, or as several where one cannot show all of it.

use std::borrow::Cow;

/// What every text declares that reads or writes the arena.
pub const ARENA: &str = "@group(0) @binding(3) var<storage, read_write> arena: array<f32>;

fn arena_load(at: i32) -> f32 {
    return arena[at];
}

fn arena_store(at: i32, value: f32) {
    arena[at] = value;
}
";

/// The text over an arena of several bindings: binding 3 shows its first `words` words, and bindings 0… of group 1 as
/// many each of those that follow.
pub fn over_bindings(text: &str, bindings: usize, words: usize) -> Cow<'_, str> {
    if bindings <= 1 || !text.contains(ARENA) {
        return Cow::Borrowed(text);
    }
    let name = |i: usize| if i == 0 { "arena".to_string() } else { format!("arena_{i}") };
    let declared = (0..bindings).map(|i| match i.checked_sub(1) {
        None => format!("@group(0) @binding(3) var<storage, read_write> {}: array<f32>;\n", name(i)),
        Some(at) => format!("@group(1) @binding({at}) var<storage, read_write> {}: array<f32>;\n", name(i)),
    });
    let cases = |write: &dyn Fn(String) -> String| -> String {
        let case = |i: usize| {
            let label = if i + 1 == bindings { "default".to_string() } else { format!("case {i}") };
            format!("        {label}: {{ {} }}\n", write(format!("{}[at - {}]", name(i), i * words)))
        };
        format!("    switch at / {words} {{\n{}    }}\n", (0..bindings).map(case).collect::<String>())
    };
    let load = format!("    var value: f32;\n{}    return value;\n", cases(&|place| format!("value = {place};")));
    let store = cases(&|place| format!("{place} = value;"));
    let arena = format!(
        "{}\nfn arena_load(at: i32) -> f32 {{\n{load}}}\n\nfn arena_store(at: i32, value: f32) {{\n{store}}}\n",
        declared.collect::<String>()
    );
    Cow::Owned(text.replace(ARENA, &arena))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_in_one_binding() {
        let text = format!("before\n{ARENA}after");
        assert_eq!(over_bindings(&text, 1, 64), text);
        assert_eq!(over_bindings("fn main() {}", 3, 64), "fn main() {}");
        let three = over_bindings(&text, 3, 64);
        for line in [
            "@group(1) @binding(1) var<storage, read_write> arena_2: array<f32>;",
            "switch at / 64 {",
            "case 0: { value = arena[at - 0]; }",
            "case 1: { arena_1[at - 64] = value; }",
            "default: { value = arena_2[at - 128]; }",
        ] {
            assert!(three.contains(line), "{line}\n{three}");
        }
        assert!(three.starts_with("before\n") && three.ends_with("\nafter"));
    }
}

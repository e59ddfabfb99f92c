//! Where what was inserted into a model stands, as its artifact carries it.

use serde::{Deserialize, Serialize};

use crate::compile::Replacements;

/// Where what was inserted stands, and what its rivals are made of.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Inserted {
    /// The blocks after which samples may leave, by the exits' numbers.
    pub exits: Vec<usize>,
    /// FFNs in the order in which a set that never runs grows best.
    pub static_ffns: Vec<usize>,
    /// The blocks whose FFNs never run.
    #[serde(default)]
    pub removed_ffns: Vec<usize>,
    /// The blocks whose FFNs have gates that decide, by the gates' numbers.
    pub gated_ffns: Vec<usize>,
    /// What stands for FFNs that are skipped.
    pub replacements: Replacements,
    /// Where visual tokens may leave.
    pub tokens: Option<TokenPlaces>,
    /// Exits, after the others, that passes of the recipe inserted.
    #[serde(default)]
    pub exits_of_passes: usize,
    /// Gates, after the others, that passes of the recipe inserted.
    #[serde(default)]
    pub gates_of_passes: usize,
}

/// Where visual tokens may leave.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TokenPlaces {
    /// The first token and the number of tokens, if they are not those that the graph's form shows.
    pub span: Option<(i64, i64)>,
    /// The blocks after which they could.
    pub candidates: Vec<usize>,
    /// The blocks after which they do: by the gates' numbers, after those of FFNs, or one for all inputs.
    pub exits: Vec<usize>,
    /// Whether gates decide.
    pub decides: bool,
}

impl TokenPlaces {
    /// The blocks with gates.
    pub fn gates(&self) -> &[usize] {
        if self.decides { &self.exits } else { &[] }
    }
}

impl Inserted {
    /// Whether FFN gates decide at run time.
    pub fn decides_ffns(&self) -> bool {
        !self.gated_ffns.is_empty()
    }

    /// Whether token exits decide at run time.
    pub fn decides_tokens(&self) -> bool {
        self.tokens.as_ref().is_some_and(|t| t.decides)
    }

    /// The block after which visual tokens leave for all inputs.
    pub fn fixed_token_exit(&self) -> Option<usize> {
        self.tokens.as_ref().filter(|t| !t.decides)?.exits.first().copied()
    }

    /// What is changed for all inputs, for a reader.
    pub fn edits(&self) -> Vec<String> {
        let numbers: Vec<String> = self.removed_ffns.iter().map(usize::to_string).collect();
        let ffns = (!numbers.is_empty()).then(|| format!("never run: FFN {}", numbers.join(", ")));
        let tokens = self.fixed_token_exit().map(|block| format!("visual tokens leave after block {block}"));
        ffns.into_iter().chain(tokens).collect()
    }

    /// Whether this is true of a model with so many exits and gates.
    pub(super) fn check(&self, exits: usize, gates: usize) -> Result<(), String> {
        let tokens = self.tokens.as_ref().map_or(0, |t| t.gates().len());
        let known_gates = self.gated_ffns.len() + tokens + self.gates_of_passes;
        for (known, found, what) in
            [(self.exits.len() + self.exits_of_passes, exits, "exits"), (known_gates, gates, "gates")]
        {
            if known != found {
                return Err(format!("names {known} {what}, the program has {found}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_named_and_decisions_are_not() {
        let tokens = |decides| TokenPlaces { exits: vec![3], decides, ..TokenPlaces::default() };
        let inserted = |decides| Inserted {
            removed_ffns: vec![1, 5],
            gated_ffns: vec![2],
            tokens: Some(tokens(decides)),
            ..Inserted::default()
        };
        assert_eq!(inserted(false).edits(), ["never run: FFN 1, 5", "visual tokens leave after block 3"]);
        assert_eq!(inserted(true).edits(), ["never run: FFN 1, 5"]);
        assert!(Inserted::default().edits().is_empty());
    }
}

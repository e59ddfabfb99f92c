//! Options that do nothing because the rule that they belong to is absent, or data.

use eec_passes::ffn_gates::Granularity;

use super::{ExitHeads, FfnRule, Places, Recipe, Replace, TokenRule, VisualTokens};

impl Recipe {
    /// Checks that what differs from the defaults has an effect.
    ///
    /// # Errors
    ///
    /// The option, as a flag and as a key, and the rule that is missing.
    pub fn check(&self) -> Result<(), String> {
        let (ffns, tokens) = (&self.ffn_skip, &self.token_exit);
        let of_ffns = [
            ("--ffn-skip-at", "at", ffns.at != Places::default()),
            ("--ffn-replace", "replace", ffns.replace != Replace::default()),
            ("--ffn-granularity", "granularity", ffns.granularity != Granularity::default()),
        ];
        let of_tokens = [
            ("--token-exits-at", "at", tokens.at != Places::default()),
            ("--visual-tokens", "tokens", tokens.tokens != VisualTokens::default()),
            ("the width of gates", "width", tokens.width.is_some()),
        ];
        check("ffn-skip", ffns.rule == FfnRule::None, &of_ffns)?;
        check("token-exit", tokens.rule == TokenRule::None, &of_tokens)
    }

    /// Checks that heads and rules have an effect without data, by which the blocks that get exits are chosen.
    pub(crate) fn check_without_data(&self) -> Result<(), String> {
        let (exits, defaults) = (&self.exit_heads, ExitHeads::default());
        let options =
            [("--head", "head", exits.head != defaults.head), ("--rule", "rule", exits.rule != defaults.rule)];
        match options.iter().find(|(.., is_set)| *is_set && exits.at == Places::Auto) {
            Some((flag, key, _)) => Err(format!(
                "{flag} (in a recipe, `{key}` of [exit-heads]) has no effect: data chooses the blocks that get exits. \
                 Give --data, or name them (--exits 3,6), with --head final or file:HEAD.onnx and a fixed rule \
                 (--rule maxprob:0.9)"
            )),
            None => Ok(()),
        }
    }
}

fn check(table: &str, no_rule: bool, options: &[(&str, &str, bool)]) -> Result<(), String> {
    match options.iter().find(|(.., is_set)| no_rule && *is_set) {
        None => Ok(()),
        Some((flag, key, _)) => Err(format!(
            "{flag} (in a recipe, `{key}` of [{table}]) has no effect without a rule: give --{table} RULE (`rule` of \
             [{table}])"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_need_the_rule_that_they_belong_to() {
        let check = |text: &str| Recipe::from_toml(text).map_err(|e| e.to_string()).and_then(|r| r.check());
        for (table, rule, options) in [
            ("ffn-skip", "static", &["at = '2'", "replace = 'mlp:4'", "granularity = 'all'"]),
            ("token-exit", "fixed", &["at = '2'", "tokens = '0:4'", "width = 8"]),
        ] {
            for option in options {
                let refused = check(&format!("[{table}]\n{option}"));
                let named = |e: &String| e.contains(&format!("--{table} RULE")) && e.contains(&option[..2]);
                assert!(refused.as_ref().is_err_and(named), "{option}: {refused:?}");
                assert_eq!(check(&format!("[{table}]\nrule = '{rule}'\n{option}")), Ok(()));
            }
        }
        assert_eq!(Recipe::default().check(), Ok(()));
    }

    #[test]
    fn heads_and_rules_need_named_blocks_where_there_is_no_data() {
        for (option, flag) in [("head = 'final'", "--head"), ("rule = 'maxprob:0.9'", "--rule")] {
            let check = |places: &str| {
                let recipe = Recipe::from_toml(&format!("[exit-heads]\nat = '{places}'\n{option}"));
                recipe.map_err(|e| e.to_string()).and_then(|recipe| recipe.check_without_data())
            };
            assert!(check("auto").is_err_and(|e| e.starts_with(flag)));
            assert_eq!((check("3"), check("none")), (Ok(()), Ok(())));
        }
        assert_eq!(Recipe::default().check_without_data(), Ok(()));
    }
}

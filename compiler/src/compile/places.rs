//! Where decisions may stand, and why not elsewhere.

use eec_passes::structure::{ExitCandidate, Structure};

use crate::Error;
use crate::recipe::Places;

/// Blocks where a decision may stand, and why others may not.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) blocks: Vec<usize>,
    pub(super) reasons: Vec<String>,
}

impl Standing {
    /// Where early exits may stand.
    pub(super) fn of_exits(structure: &Structure) -> Standing {
        let verdict = |exit: &ExitCandidate| match exit {
            ExitCandidate::Yes => Ok(()),
            ExitCandidate::No(reason) => Err(reason.clone()),
        };
        Standing::of(structure.blocks.iter().map(|b| verdict(&b.exit)))
    }

    /// From a verdict per block.
    pub(super) fn of(verdicts: impl IntoIterator<Item = Result<(), String>>) -> Standing {
        let mut found = Standing::default();
        for (block, verdict) in verdicts.into_iter().enumerate() {
            match verdict {
                Ok(()) => found.blocks.push(block),
                Err(reason) => found.reasons.push(format!("block {block}: {reason}")),
            }
        }
        found
    }

    /// Only the places that were asked for, of which there must be some and all must be among these.
    pub(super) fn at(self, places: &Places, what: &str) -> Result<Standing, Error> {
        let wanted = match places {
            Places::Auto => return Ok(self),
            Places::None => {
                return Err(Error::request(format!(
                    "no {what} can stand at `none`: write auto or blocks such as 2,4 there; for a model without, make \
                     none the rule, not the place"
                )));
            }
            Places::Blocks(wanted) => wanted,
        };
        let refused: Vec<String> = wanted.iter().filter(|b| !self.blocks.contains(b)).map(usize::to_string).collect();
        if refused.is_empty() {
            return Ok(Standing { blocks: wanted.clone(), ..self });
        }
        let known: Vec<String> = self.blocks.iter().map(usize::to_string).collect();
        let reasons = if self.reasons.is_empty() { String::new() } else { format!("; {}", self.reasons.join("; ")) };
        Err(Error::request(format!(
            "no {what} can stand after block {} (candidates: {}{reasons})",
            refused.join(", "),
            if known.is_empty() { "none".into() } else { known.join(", ") },
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_all_those_named_or_refused() {
        let at = |places| {
            let standing = Standing::of([Ok(()), Err("it is odd".to_owned()), Ok(())]);
            standing.at(&places, "FFN gate").map(|s| s.blocks).map_err(|e| e.to_string())
        };
        assert_eq!(at(Places::Auto), Ok(vec![0, 2]));
        assert_eq!(at(Places::Blocks(vec![2])), Ok(vec![2]));
        assert!(at(Places::Blocks(vec![1, 2])).is_err_and(|e| e.contains("after block 1 ") && e.contains("it is odd")));
        assert!(at(Places::None).is_err_and(|e| e.contains("FFN gate can stand at `none`") && e.contains("auto")));
    }
}

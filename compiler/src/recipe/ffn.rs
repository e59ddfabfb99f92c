//! What the recipe says about skipping FFNs.

use std::fmt;
use std::str::FromStr;

use eec_passes::ffn_gates::Granularity;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{MAX_WIDTH, MaxDrop, ParseError, Places, refuse, serde_as_text};
use crate::calibrate::gates::Family;
use crate::capture::BATCH;

/// Whether FFNs are skipped, where, and by which rule.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct FfnSkip {
    /// When an FFN is skipped.
    pub rule: FfnRule,
    /// In which blocks.
    pub at: Places,
    /// What runs in the place of a skipped FFN.
    pub replace: Replace,
    /// Who decides together.
    #[serde(serialize_with = "write_granularity", deserialize_with = "read_granularity")]
    pub granularity: Granularity,
}

impl FfnSkip {
    /// Rows per run on data: [`BATCH`], or one where the tokens of a run decide together. Measured
    /// otherwise, rows would depend on each other.
    pub fn batch(&self) -> usize {
        match self.granularity {
            Granularity::All if self.rule != FfnRule::None => 1,
            Granularity::All | Granularity::Row => BATCH,
        }
    }

    /// The rule with what differs from the default, for a reader.
    pub fn words(&self) -> String {
        let mut words = self.rule.to_string();
        if self.replace != Replace::None {
            words.push_str(&format!(", {} in the place of an FFN", self.replace));
        }
        match self.granularity {
            Granularity::Row => {}
            Granularity::All => words.push_str(", all tokens decide together"),
        }
        words
    }
}

/// What runs in the place of a skipped FFN; its result is added to the residual stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replace {
    /// Nothing: the residual stream goes on as it is.
    #[default]
    None,
    /// A linear map of this rank, fitted to the FFN.
    LowRank(usize),
    /// An MLP with one hidden layer of this width, fitted to the FFN.
    Mlp(usize),
}

impl FromStr for Replace {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const EXPECTED: &str = "a replacement for FFNs: none, low-rank:R or mlp:R with R from 1 to 16384, such as \
                                low-rank:8";
        let (name, width) = match text.split_once(':') {
            None if text == "none" => return Ok(Replace::None),
            Some((name, width)) => (name, width.parse::<usize>().ok().filter(|w| (1..=MAX_WIDTH).contains(w))),
            None => return refuse(text, EXPECTED),
        };
        match (name, width) {
            ("low-rank", Some(rank)) => Ok(Replace::LowRank(rank)),
            ("mlp", Some(width)) => Ok(Replace::Mlp(width)),
            _ => refuse(text, EXPECTED),
        }
    }
}

impl fmt::Display for Replace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Replace::None => f.write_str("none"),
            Replace::LowRank(rank) => write!(f, "low-rank:{rank}"),
            Replace::Mlp(width) => write!(f, "mlp:{width}"),
        }
    }
}

/// A granularity from text: `row` or `all`.
pub fn granularity(text: &str) -> Result<Granularity, ParseError> {
    Granularity::named(text).map_or_else(|| refuse(text, "row or all"), Ok)
}

fn read_granularity<'de, D: Deserializer<'de>>(d: D) -> Result<Granularity, D::Error> {
    granularity(&String::deserialize(d)?).map_err(serde::de::Error::custom)
}

fn write_granularity<S: Serializer>(granularity: &Granularity, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(granularity.name())
}

/// When FFNs are skipped. With a share, that share of all FFNs is, whatever it costs.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum FfnRule {
    /// Never.
    #[default]
    None,
    /// By whichever rule calibration finds best.
    Auto,
    /// After an FFN that changed a token little (FFN-SkipLLM).
    Cosine(Option<f64>),
    /// By gates fitted to whether the token needs the FFN.
    Learned(Option<f64>),
    /// The same FFNs for all tokens.
    Static(Option<f64>),
}

impl FfnRule {
    /// The rules that may be chosen.
    pub fn families(self) -> Vec<Family> {
        match self {
            FfnRule::None => Vec::new(),
            FfnRule::Auto => vec![Family::Static, Family::Cosine, Family::Learned],
            FfnRule::Cosine(_) => vec![Family::Cosine],
            FfnRule::Learned(_) => vec![Family::Learned],
            FfnRule::Static(_) => vec![Family::Static],
        }
    }

    /// Whether policies of a family may be chosen.
    pub fn tries(self, family: Family) -> bool {
        self.families().contains(&family)
    }

    /// The share that is asked for.
    pub fn share(self) -> Option<f64> {
        match self {
            FfnRule::None | FfnRule::Auto => None,
            FfnRule::Cosine(share) | FfnRule::Learned(share) | FfnRule::Static(share) => share,
        }
    }
}

impl FromStr for FfnRule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const EXPECTED: &str = "a rule for FFNs: none, auto, cosine, learned or static, with a share such as learned:25% \
                                to fix it";
        let (name, share) = text.split_once(':').map_or((text, None), |(name, share)| (name, Some(share)));
        let share = match share.map(str::parse::<MaxDrop>) {
            None => None,
            Some(Ok(MaxDrop(share))) if share > 0.0 => Some(share),
            Some(_) => return refuse(text, EXPECTED),
        };
        match (name, share) {
            ("none", None) => Ok(FfnRule::None),
            ("auto", None) => Ok(FfnRule::Auto),
            ("cosine", share) => Ok(FfnRule::Cosine(share)),
            ("learned", share) => Ok(FfnRule::Learned(share)),
            ("static", share) => Ok(FfnRule::Static(share)),
            _ => refuse(text, EXPECTED),
        }
    }
}

impl fmt::Display for FfnRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            FfnRule::None => "none",
            FfnRule::Auto => "auto",
            FfnRule::Cosine(_) => "cosine",
            FfnRule::Learned(_) => "learned",
            FfnRule::Static(_) => "static",
        };
        match self.share() {
            Some(share) => write!(f, "{name}:{}", MaxDrop(share)),
            None => f.write_str(name),
        }
    }
}

serde_as_text!(FfnRule);
serde_as_text!(Replace);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn every_value_prints_as_it_parses() {
        for text in ["none", "low-rank:8", "mlp:16384"] {
            assert_eq!(text.parse::<Replace>().map(|p| p.to_string()).as_deref(), Ok(text));
        }
        for text in ["row", "all"] {
            assert_eq!(granularity(text).map(Granularity::name), Ok(text));
        }
        for text in ["none", "auto", "learned", "static:25%"] {
            assert_eq!(text.parse::<FfnRule>().map(|p| p.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "low-rank", "low-rank:0", "low-rank:x", "mlp:16385", "none:2", "wide:3"] {
            assert!(text.parse::<Replace>().is_err(), "{text}");
        }
        assert!(granularity("some").is_err() && granularity("").is_err());
    }

    #[test]
    fn recipes_round_trip() {
        let source = "[ffn-skip]\nrule = \"learned:25%\"\nreplace = \"mlp:16\"\ngranularity = \"all\"\n";
        let recipe = Recipe::from_toml(source);
        let asked = FfnSkip {
            rule: FfnRule::Learned(Some(0.25)),
            replace: Replace::Mlp(16),
            granularity: Granularity::All,
            ..FfnSkip::default()
        };
        assert_eq!(recipe.as_ref().map(|r| &r.ffn_skip), Ok(&asked));
        let text = recipe.as_ref().map(toml::to_string).ok().and_then(Result::ok).unwrap_or_default();
        assert_eq!(Recipe::from_toml(&text), recipe);
        assert!(Recipe::from_toml("[ffn-skip]\ngranularity = \"none\"").is_err());
    }
}

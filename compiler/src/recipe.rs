//! The recipe: what the user asks for. One struct and one TOML form; the command's flags and the
//! library fill the same struct, and the artifact carries it.

mod effect;
mod ffn;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use eec_ir::Precision;
use serde::{Deserialize, Serialize};

pub use ffn::{FfnRule, FfnSkip, Replace, granularity};

/// What to make of a model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Recipe {
    /// Early exits.
    pub exit_heads: ExitHeads,
    /// FFN gates.
    pub ffn_skip: FfnSkip,
    /// Token exits.
    pub token_exit: TokenExits,
    /// How the weights of products are stored.
    #[serde(deserialize_with = "deserialize_precision")]
    pub precision: Precision,
    /// Passes that run last, on what the other keys make, as in [`eec_passes::registry::Registry::pipeline`].
    /// Nothing calibrates what they do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub passes: String,
    /// The allowed loss of quality.
    pub max_drop: MaxDrop,
    /// The confidence with which the drop stays inside, in `(0, 1)`.
    #[serde(deserialize_with = "deserialize_confidence")]
    pub confidence: f64,
    /// Seeds every random choice: splits, starting weights.
    pub seed: u64,
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            exit_heads: ExitHeads::default(),
            ffn_skip: FfnSkip::default(),
            token_exit: TokenExits::default(),
            precision: Precision::F32,
            passes: String::new(),
            max_drop: MaxDrop(0.005),
            confidence: 0.9,
            seed: 0,
        }
    }
}

impl Recipe {
    /// Parses the TOML form; the error shows the line.
    pub fn from_toml(text: &str) -> Result<Recipe, toml::de::Error> {
        toml::from_str(text)
    }
}

/// A confidence from text: above 0 and below 1.
pub fn confidence(text: &str) -> Result<f64, ParseError> {
    match text.trim().parse::<f64>() {
        Ok(value) if value > 0.0 && value < 1.0 => Ok(value),
        Ok(_) | Err(_) => refuse(text, "a confidence above 0 and below 1, such as 0.9"),
    }
}

fn deserialize_confidence<'de, D: serde::Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    confidence(&f64::deserialize(d)?.to_string()).map_err(serde::de::Error::custom)
}

fn deserialize_precision<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Precision, D::Error> {
    String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
}

/// Which exits, with which heads, under which rule.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ExitHeads {
    /// After which blocks.
    pub at: Places,
    /// The heads' form.
    pub head: Head,
    /// When a sample leaves.
    pub rule: Rule,
}

/// Whether visual tokens leave, which, where, and by which rule.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TokenExits {
    /// When they leave.
    pub rule: TokenRule,
    /// Which tokens.
    pub tokens: VisualTokens,
    /// After which blocks they may leave.
    pub at: Places,
    /// Hidden units of a learned gate; 16 if absent.
    #[serde(deserialize_with = "deserialize_width")]
    pub width: Option<usize>,
}

fn deserialize_width<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<usize>, D::Error> {
    match Option::<usize>::deserialize(d)? {
        Some(width) if !(1..=MAX_WIDTH).contains(&width) => {
            refuse(&width.to_string(), "a width from 1 to 16384").map_err(serde::de::Error::custom)
        }
        width => Ok(width),
    }
}

/// A text that is not a value of what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not {expected}")]
pub struct ParseError {
    found: String,
    expected: &'static str,
}

fn refuse<T>(found: &str, expected: &'static str) -> Result<T, ParseError> {
    Err(ParseError { found: found.to_string(), expected })
}

/// Serialises a type through its `Display` and `FromStr`, which are also the flags' syntax.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
use serde_as_text;

/// The allowed drop as a fraction: of accuracy in percentage points, of a loss relative to it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MaxDrop(pub f64);

impl FromStr for MaxDrop {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const EXPECTED: &str = "a drop such as 0.5% or 0.005, at least 0 and below 100%";
        let (number, scale) = match text.trim().strip_suffix('%') {
            Some(percent) => (percent.trim_end(), 100.0),
            None => (text.trim(), 1.0),
        };
        match number.parse::<f64>() {
            Ok(value) if (0.0..1.0).contains(&(value / scale)) => Ok(MaxDrop(value / scale)),
            Ok(_) | Err(_) => refuse(text, EXPECTED),
        }
    }
}

impl fmt::Display for MaxDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded to a millionth of a percent, so that 0.5% does not become 0.5000000000000001%.
        write!(f, "{}%", (self.0 * 1e8).round() / 1e6)
    }
}

/// The blocks after which samples may leave.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Places {
    /// All candidates; calibration keeps those that pay.
    #[default]
    Auto,
    /// None: the plain model.
    None,
    /// These blocks, counted from 0; calibration keeps those that pay.
    Blocks(Vec<usize>),
}

impl FromStr for Places {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "auto" => return Ok(Places::Auto),
            "none" => return Ok(Places::None),
            _ => {}
        }
        let blocks: Result<Vec<usize>, _> = text.split(',').map(|b| b.trim().parse()).collect();
        let Ok(mut blocks) = blocks else {
            return refuse(text, "auto, none or a list of block numbers such as 3,6");
        };
        blocks.sort_unstable();
        blocks.dedup();
        Ok(Places::Blocks(blocks))
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Places::Auto => f.write_str("auto"),
            Places::None => f.write_str("none"),
            Places::Blocks(blocks) => f.write_str(&list(blocks)),
        }
    }
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// The form of the heads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Head {
    /// The model's own pooling and norm, then one dense layer.
    #[default]
    Linear,
    /// The same with one hidden layer of this width (chosen if absent).
    Mlp(Option<usize>),
    /// The model's own norm and classifier, weights shared.
    Final,
    /// A head of the user's: an ONNX model from the candidate's value to logits.
    File(PathBuf),
}

/// Hidden layers wider than this would cost more than the blocks that an exit saves.
const MAX_WIDTH: usize = 1 << 14;

impl FromStr for Head {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.split_once(':') {
            None if text == "linear" => Ok(Head::Linear),
            None if text == "mlp" => Ok(Head::Mlp(None)),
            None if text == "final" => Ok(Head::Final),
            Some(("mlp", width)) => match width.parse() {
                Ok(width) if (1..=MAX_WIDTH).contains(&width) => Ok(Head::Mlp(Some(width))),
                Ok(_) | Err(_) => refuse(text, "mlp with a width from 1 to 16384, such as mlp:64"),
            },
            Some(("file", path)) if !path.is_empty() => Ok(Head::File(path.into())),
            _ => refuse(text, "a head: linear, mlp, mlp:WIDTH, final or file:HEAD.onnx"),
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Head::Linear => f.write_str("linear"),
            Head::Mlp(None) => f.write_str("mlp"),
            Head::Mlp(Some(width)) => write!(f, "mlp:{width}"),
            Head::Final => f.write_str("final"),
            Head::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// When a sample leaves at a head. Without a number calibration chooses.
#[derive(Clone, PartialEq, Debug)]
pub enum Rule {
    /// The largest probability is above the threshold.
    MaxProb(Option<f32>),
    /// The entropy of the probabilities, in nats, is below the threshold (BranchyNet).
    Entropy(Option<f32>),
    /// The two largest probabilities differ by more than the threshold.
    Margin(Option<f32>),
    /// That many heads in a row name the same class (PABEE); calibration tries each number.
    Patience(Vec<usize>),
}

impl Default for Rule {
    fn default() -> Self {
        Rule::MaxProb(None)
    }
}

impl FromStr for Rule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const EXPECTED: &str = "a rule: maxprob, entropy, margin or patience, with a number such as \
                                maxprob:0.9, entropy:0.3 or patience:3,4 to fix it";
        let (name, number) = text.split_once(':').map_or((text, None), |(name, number)| (name, Some(number)));
        let threshold = match number.map(str::parse::<f32>) {
            Some(Ok(t)) if t.is_finite() => Ok(Some(t)),
            Some(_) => refuse(text, EXPECTED),
            None => Ok(None),
        };
        let within = |most: f32, expected| match threshold.clone() {
            Ok(Some(t)) if !(0.0..=most).contains(&t) => refuse(text, expected),
            threshold => threshold,
        };
        match name {
            "maxprob" => within(1.0, "maxprob with a probability from 0 to 1, such as maxprob:0.9").map(Rule::MaxProb),
            "entropy" => within(f32::MAX, "entropy with 0 nats or more, such as entropy:0.3").map(Rule::Entropy),
            "margin" => within(1.0, "margin with a difference from 0 to 1, such as margin:0.5").map(Rule::Margin),
            "patience" => {
                let counts = number.map(|n| n.split(',').map(|c| c.trim().parse()).collect::<Result<Vec<usize>, _>>());
                match counts {
                    None => Ok(Rule::Patience(Vec::new())),
                    Some(Ok(counts)) if counts.iter().all(|c| *c >= 2) => Ok(Rule::Patience(counts)),
                    Some(_) => refuse(text, "patience with counts of 2 or more, such as patience:3,4,5"),
                }
            }
            _ => refuse(text, EXPECTED),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, threshold) = match self {
            Rule::MaxProb(t) => ("maxprob", t),
            Rule::Entropy(t) => ("entropy", t),
            Rule::Margin(t) => ("margin", t),
            Rule::Patience(counts) if counts.is_empty() => return f.write_str("patience"),
            Rule::Patience(counts) => return write!(f, "patience:{}", list(counts)),
        };
        match threshold {
            Some(t) => write!(f, "{name}:{t}"),
            None => f.write_str(name),
        }
    }
}

/// When visual tokens leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TokenRule {
    /// Never.
    #[default]
    None,
    /// By learned gates, or after one block for all inputs, whichever calibration finds better.
    Auto,
    /// By gates fitted to whether the model needs the tokens (DyVTE).
    Learned,
    /// After this block for all inputs; chosen if absent.
    Fixed(Option<usize>),
    /// Where a fitted answer head is sure.
    Entropy,
}

impl FromStr for TokenRule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const EXPECTED: &str = "a rule for visual tokens: none, auto, learned, entropy, fixed or fixed:BLOCK";
        match text.split_once(':') {
            None if text == "none" => Ok(TokenRule::None),
            None if text == "auto" => Ok(TokenRule::Auto),
            None if text == "learned" => Ok(TokenRule::Learned),
            None if text == "entropy" => Ok(TokenRule::Entropy),
            None if text == "fixed" => Ok(TokenRule::Fixed(None)),
            Some(("fixed", block)) => match block.parse() {
                Ok(block) => Ok(TokenRule::Fixed(Some(block))),
                Err(_) => refuse(text, EXPECTED),
            },
            _ => refuse(text, EXPECTED),
        }
    }
}

impl fmt::Display for TokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenRule::None => f.write_str("none"),
            TokenRule::Auto => f.write_str("auto"),
            TokenRule::Learned => f.write_str("learned"),
            TokenRule::Entropy => f.write_str("entropy"),
            TokenRule::Fixed(None) => f.write_str("fixed"),
            TokenRule::Fixed(Some(block)) => write!(f, "fixed:{block}"),
        }
    }
}

/// The tokens that may leave.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum VisualTokens {
    /// Those that come from a float input, found by the graph's form.
    #[default]
    Auto,
    /// `start..start + len` of the sequence.
    Range {
        /// The first token.
        start: usize,
        /// The number of tokens.
        len: usize,
    },
    /// Those that a mask among the inputs marks, at the same places in all rows of the data.
    Input(String),
}

impl FromStr for VisualTokens {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const EXPECTED: &str = "visual tokens: auto, START:LEN such as 0:64, or input:NAME of a mask";
        match text.split_once(':') {
            None if text == "auto" => Ok(VisualTokens::Auto),
            Some(("input", name)) if !name.is_empty() => Ok(VisualTokens::Input(name.into())),
            Some((start, len)) => match (start.parse(), len.parse()) {
                (Ok(start), Ok(len)) if len > 0 => Ok(VisualTokens::Range { start, len }),
                _ => refuse(text, EXPECTED),
            },
            None => refuse(text, EXPECTED),
        }
    }
}

impl fmt::Display for VisualTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VisualTokens::Auto => f.write_str("auto"),
            VisualTokens::Range { start, len } => write!(f, "{start}:{len}"),
            VisualTokens::Input(name) => write!(f, "input:{name}"),
        }
    }
}

serde_as_text!(TokenRule);
serde_as_text!(VisualTokens);
serde_as_text!(MaxDrop);
serde_as_text!(Places);
serde_as_text!(Head);
serde_as_text!(Rule);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_percent_or_fractions_below_one() {
        assert_eq!("0.5%".parse(), Ok(MaxDrop(0.005)));
        assert_eq!("0.02".parse(), Ok(MaxDrop(0.02)));
        assert_eq!("0".parse(), Ok(MaxDrop(0.0)));
        for nonsense in ["", "%", "5", "-1%", "NaN", "inf%", "100%", "half", "0.5 %%"] {
            assert!(nonsense.parse::<MaxDrop>().is_err(), "{nonsense}");
        }
    }

    #[test]
    fn every_value_prints_as_it_parses() {
        for text in ["auto", "none", "3,6"] {
            assert_eq!(text.parse::<Places>().map(|p| p.to_string()).as_deref(), Ok(text));
        }
        for text in ["linear", "mlp", "mlp:64", "final", "file:a/b.onnx"] {
            assert_eq!(text.parse::<Head>().map(|p| p.to_string()).as_deref(), Ok(text));
        }
        for text in ["maxprob", "maxprob:0.9", "entropy:0.3", "margin", "patience", "patience:3,4"] {
            assert_eq!(text.parse::<Rule>().map(|p| p.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_was_expected() {
        let rules = [
            "maxprob:",
            "maxprob:x",
            "maxprob:NaN",
            "maxprob:2",
            "margin:-0.1",
            "entropy:-1",
            "patience:1",
            "patience:2,",
        ];
        for text in rules.into_iter().chain(["softmax", ""]) {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
        for width in ["0", "16385", "-1"] {
            assert!(Recipe::from_toml(&format!("[token-exit]\nwidth = {width}")).is_err(), "{width}");
        }
        assert!("mlp:99999999999".parse::<Head>().is_err());
        assert!("0".parse::<MaxDrop>().is_ok() && confidence("1").is_err() && confidence("NaN").is_err());
        assert!(Recipe::from_toml("confidence = 1.5").is_err() && Recipe::from_toml("confidence = 0.95").is_ok());
        assert!(
            "mlp:0".parse::<Head>().is_err() && "file:".parse::<Head>().is_err() && "Linear".parse::<Head>().is_err()
        );
        assert!("3,,4".parse::<Places>().is_err() && "-1".parse::<Places>().is_err());
    }

    #[test]
    fn recipes_round_trip_and_refuse_unknown_keys() {
        let recipe = Recipe {
            exit_heads: ExitHeads {
                at: Places::Blocks(vec![3, 6]),
                head: Head::Final,
                rule: Rule::Entropy(Some(0.25)),
            },
            token_exit: TokenExits { width: Some(16384), ..TokenExits::default() },
            max_drop: MaxDrop(0.01),
            ..Recipe::default()
        };
        let text = toml::to_string(&recipe).unwrap_or_default();
        assert_eq!(Recipe::from_toml(&text).as_ref(), Ok(&recipe));
        let carried = serde_json::to_string(&Recipe::default()).unwrap_or_default();
        assert_eq!(serde_json::from_str(&carried).ok(), Some(Recipe::default()));
        assert!(Recipe::from_toml("max-dorp = \"1%\"").is_err());
    }
}

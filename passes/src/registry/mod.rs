//! Passes by name: `simplify, exit-heads{at=[1, 3], head=linear, rule=maxprob:0.9}`.
//!
//! A [`Registry`] holds eec's own passes and those of others. Cases, recipes and the command read their
//! passes from it, so that a pass that is registered is known to all of them.
//!
//! ```
//! use eec_passes::pass::{Changed, Context, Pass, PassError};
//! use eec_passes::registry::{Entry, Registry};
//!
//! struct Prune;
//!
//! impl Pass for Prune {
//!     fn name(&self) -> &'static str {
//!         "prune"
//!     }
//!
//!     fn run(&self, graph: &mut eec_ir::Graph, _: &mut Context) -> Result<Changed, PassError> {
//!         Ok((graph.remove_dead() > 0).into())
//!     }
//! }
//!
//! let prune = Entry::new("prune", "removes nodes that nothing uses", |_| Ok(Box::new(Prune)));
//! let registry = Registry::builtin().with(prune)?;
//! assert_eq!(registry.pipeline("simplify, prune")?.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builtin;
mod options;

use eec_ir::Graph;

pub use options::{OptionError, Options, number, places};

use crate::pass::{Context, Pass};
use options::split;

/// A text that names no pass, or options that the pass does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("in `{text}`: {reason}")]
pub struct PipelineError {
    /// The pass as written.
    pub text: String,
    /// What was expected and what was found.
    pub reason: String,
}

/// Why a pass cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// There is a pass of this name.
    #[error("there is a pass `{0}` already")]
    Taken(String),
    /// Pipelines cannot hold this name.
    #[error("`{0}` cannot name a pass: expected small letters, digits and `-`")]
    Name(String),
}

/// What a constructor gives.
pub type Made = Result<Box<dyn Pass>, OptionError>;

/// A pass that can be asked for by name.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name in pipelines, recipes and provenance; [`Pass::name`] is the same.
    pub name: &'static str,
    /// What the pass does, in one line.
    pub doc: &'static str,
    /// Every option with what it may be.
    pub options: Vec<(&'static str, &'static str)>,
    make: fn(&mut Options<'_>) -> Made,
    explain: Option<fn(&Graph, &mut Context)>,
}

impl Entry {
    /// A pass without options; `make` is given those that [`Entry::option`] adds.
    pub fn new(name: &'static str, doc: &'static str, make: fn(&mut Options<'_>) -> Made) -> Self {
        Entry { name, doc, options: Vec::new(), make, explain: None }
    }

    /// The same with an option.
    #[must_use]
    pub fn option(mut self, key: &'static str, doc: &'static str) -> Self {
        self.options.push((key, doc));
        self
    }

    /// The same with what `eec explain` asks: `explain` notes for every place of a model whether the pass
    /// can apply there, and why not. [`crate::explain`] has what several passes share.
    #[must_use]
    pub fn explained(mut self, explain: fn(&Graph, &mut Context)) -> Self {
        self.explain = Some(explain);
        self
    }

    /// Notes where the pass could apply to `graph`; `false` if it can tell only by running.
    pub fn explain(&self, graph: &Graph, cx: &mut Context) -> bool {
        self.explain.map(|explain| explain(graph, cx)).is_some()
    }

    fn make(&self, options: &str) -> Made {
        let mut options = Options::parse(options, self.options.iter().map(|(key, _)| *key))?;
        let pass = (self.make)(&mut options)?;
        match options.left() {
            Some(key) => Err(OptionError::new(format_args!("the option `{key}` is not read by the pass"))),
            None => Ok(pass),
        }
    }
}

/// The passes that can be asked for by name.
#[derive(Clone, Debug)]
pub struct Registry(Vec<Entry>);

impl Default for Registry {
    fn default() -> Self {
        Registry::builtin()
    }
}

impl Registry {
    /// eec's own passes. Heads, gates and replacements have seeded weights, the same wherever the same
    /// block gets the same kind: they are for text. Fitted ones are the compiler's.
    pub fn builtin() -> Self {
        Registry(builtin::entries())
    }

    /// The same with a pass more.
    ///
    /// # Errors
    ///
    /// Its name is taken, or no pipeline can hold it.
    pub fn with(mut self, entry: Entry) -> Result<Self, RegisterError> {
        let is_name = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if entry.name.is_empty() || !entry.name.bytes().all(is_name) {
            return Err(RegisterError::Name(entry.name.into()));
        }
        if self.0.iter().any(|e| e.name == entry.name) {
            return Err(RegisterError::Taken(entry.name.into()));
        }
        self.0.push(entry);
        Ok(self)
    }

    /// All passes, eec's own first.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The passes that `text` lists, separated by commas, each a name and, if it takes any, its options:
    /// `name{key=value, …}`.
    ///
    /// # Errors
    ///
    /// A name that no pass has, or options that make none.
    pub fn pipeline(&self, text: &str) -> Result<Vec<Box<dyn Pass>>, PipelineError> {
        let pass =
            |part: &str| self.pass(part).map_err(|e| PipelineError { text: part.to_string(), reason: e.to_string() });
        split(text).map(pass).collect()
    }

    fn pass(&self, text: &str) -> Made {
        let (name, options) = match text.split_once('{') {
            Some((name, rest)) => {
                let options = rest.strip_suffix('}').ok_or_else(|| OptionError::new("expected `}` at the end"))?;
                (name.trim(), options)
            }
            None => (text, ""),
        };
        let found = self.0.iter().find(|e| e.name == name);
        let entry = found.ok_or_else(|| {
            let known: Vec<&str> = self.0.iter().map(|e| e.name).collect();
            OptionError::new(format_args!("expected one of the passes {}, found `{name}`", known.join(", ")))
        })?;
        entry.make(options)
    }
}

/// The passes of a pipeline as written: the parts of `text` between commas that stand in no bracket.
pub fn parts(text: &str) -> Vec<&str> {
    split(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pass::{Changed, Context, PassError};

    fn names(text: &str) -> Result<Vec<&'static str>, String> {
        Registry::builtin().pipeline(text).map(|p| p.iter().map(|p| p.name()).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn passes_are_found_by_name_with_their_options() {
        assert_eq!(
            names("simplify, exit-heads{at=[1, 3], rule=maxprob:0.5/0.9}, simplify"),
            Ok(vec!["simplify", "exit-heads", "simplify"])
        );
        assert_eq!(names("truncate{at=2, head=mlp:8}"), Ok(vec!["truncate"]));
        let gates =
            "ffn-gates{at=[1], rule=cosine:0.9/2/4, granularity=all, replace=3}, ffn-gates{at=[0], rule=learned:-inf}";
        assert_eq!(names(gates), Ok(vec!["ffn-gates"; 2]));
        assert_eq!(names("store-weights{as=int8}"), Ok(vec!["store-weights"]));
        assert_eq!(names(""), Ok(vec![]));
    }

    #[test]
    fn mistakes_are_named() {
        let one = |text: &str, expected: &str| {
            let error = names(text).err().unwrap_or_default();
            assert!(error.contains(expected), "{text}: {error}");
        };
        one("simplfy", "found `simplfy`");
        one("simplify{level=2}", "there is no option `level`");
        one("exit-heads{at=[1]}", "expected the option `rule`");
        one("exit-heads{at=1, rule=maxprob:1}", "`at` cannot be `1`");
        one("exit-heads{at=[1], head=mlp:0, rule=maxprob:1}", "`head` cannot be `mlp:0`");
        one("exit-heads{at=[1], rule=maxprob:x}", "`rule` cannot be `maxprob:x`");
        one("ffn-gates{at=[1], rule=cosine:0.9/1}", "`rule` cannot be `cosine:0.9/1`");
        one("ffn-gates{at=[1], rule=static, granularity=some}", "`granularity` cannot be `some`");
        one("ffn-gates{at=[1], rule=static, replace=0}", "`replace` cannot be `0`");
        one("truncate{at=1, at=2}", "`at` is given twice");
        one("exit-heads{plaice=[1]}", "there is no option `plaice`");
        one("store-weights{as=int4}", "`as` cannot be `int4`");
        one("truncate{at=1", "expected `}`");
    }

    #[test]
    fn passes_of_others_stand_beside_those_of_eec() {
        struct Nothing;
        impl Pass for Nothing {
            fn name(&self) -> &'static str {
                "nothing"
            }

            fn run(&self, _: &mut eec_ir::Graph, _: &mut Context) -> Result<Changed, PassError> {
                Ok(Changed::No)
            }
        }
        let entry = |name| Entry::new(name, "does nothing", |_| Ok(Box::new(Nothing))).option("much", "is not read");
        let registry = Registry::builtin().with(entry("nothing")).unwrap();
        assert_eq!(registry.pipeline("simplify, nothing").unwrap().len(), 2);
        assert_eq!(registry.entries().last().map(|e| e.name), Some("nothing"));
        let forgotten = registry.pipeline("nothing{much=1}").err().unwrap().to_string();
        assert!(forgotten.contains("`much` is not read by the pass"), "{forgotten}");
        for (name, reason) in [("simplify", "there is a pass `simplify` already"), ("no thing", "`no thing` cannot")] {
            let refused = Registry::builtin().with(entry(name)).err().unwrap().to_string();
            assert!(refused.contains(reason), "{refused}");
        }
    }
}

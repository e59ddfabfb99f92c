//! The list of everything in a model that eec does not support, with counts.

use std::collections::BTreeSet;
use std::fmt;

/// Everything in a model that eec does not support.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unsupported {
    /// Operators, by domain and name.
    pub ops: Vec<UnsupportedOp>,
    /// Element types and other kinds of value, each with where it was first seen and how often.
    pub types: Vec<UnsupportedType>,
    /// Nodes of supported operators in a form that is not, in the order they were met.
    pub forms: Vec<UnsupportedForm>,
}

/// An operator that eec does not support.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedOp {
    /// Domain; empty for ONNX's own operators.
    pub domain: String,
    /// Name.
    pub name: String,
    /// How many nodes use it.
    pub count: usize,
    /// Why it never will be supported, if that is so.
    pub reason: Option<&'static str>,
}

/// A kind of value that eec does not support.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedType {
    /// The type's name.
    pub name: String,
    /// The first place it was found at.
    pub place: String,
    /// How many places use it.
    pub count: usize,
}

/// A form of an operator, such as an attribute's value, that eec does not support.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedForm {
    /// The operator's name.
    pub op: String,
    /// What of it.
    pub reason: String,
    /// The first node, from the outermost graph down.
    pub place: String,
    /// How many nodes have it.
    pub count: usize,
    /// What would make it supported, if it were known before a run.
    pub deciding: Deciding,
    /// What chooses the branch that the first node stands in.
    pub choosing: Deciding,
}

/// What of a model's inputs decides a form or a branch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deciding {
    /// Inputs, by their elements.
    pub inputs: BTreeSet<String>,
    /// Symbolic dims.
    pub sizes: BTreeSet<String>,
}

impl Unsupported {
    /// The inputs that decide shapes and the like, so that they would have to be known before a run.
    pub fn deciding_inputs(&self) -> BTreeSet<&str> {
        self.forms.iter().flat_map(|f| &f.deciding.inputs).map(String::as_str).collect()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.types.is_empty() && self.forms.is_empty()
    }

    /// Counts a node at `place` whose form is refused for `reason`.
    pub(crate) fn count_form(&mut self, op: &str, reason: String, place: String, [deciding, choosing]: [Deciding; 2]) {
        match self.forms.iter_mut().find(|f| f.op == op && f.reason == reason) {
            Some(form) => {
                form.count += 1;
                form.deciding.inputs.extend(deciding.inputs);
                form.deciding.sizes.extend(deciding.sizes);
            }
            None => {
                self.forms.push(UnsupportedForm { op: op.to_string(), reason, place, count: 1, deciding, choosing })
            }
        }
    }

    /// The form, if one node's is all there is.
    pub(crate) fn only_form(&self) -> Option<&UnsupportedForm> {
        let alone = self.ops.is_empty() && self.types.is_empty() && self.forms.len() == 1;
        self.forms.first().filter(|form| alone && form.count == 1)
    }
}

impl fmt::Display for UnsupportedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.domain.is_empty() { "" } else { "." };
        let reason = self.reason.map_or_else(String::new, |reason| format!("; {reason}"));
        write!(f, "{}{dot}{} (×{}{reason})", self.domain, self.name, self.count)
    }
}

impl fmt::Display for UnsupportedType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (×{}, first at {})", self.name, self.count, self.place)
    }
}

impl fmt::Display for UnsupportedForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (decided, chosen) = (self.deciding.decided(), self.choosing.chosen());
        write!(f, "{}: {} (×{}, first at {}{decided}{chosen})", self.op, self.reason, self.count, self.place)
    }
}

impl Deciding {
    /// `; decided by the inputs a, b, …`, if there are any, with the options that make them constants.
    fn decided(&self) -> String {
        self.named().map_or_else(String::new, |names| format!("; decided by {names}"))
    }

    /// The same of a branch.
    pub(super) fn chosen(&self) -> String {
        self.named().map_or_else(String::new, |names| format!("; in a branch that is chosen by {names}"))
    }

    fn named(&self) -> Option<String> {
        let of = |what: &str, names: &BTreeSet<String>, option: &str| {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let constants = format!("the {what} {}, of which `{option}` makes constants", names.join(", "));
            (!names.is_empty()).then_some(constants)
        };
        let parts = [of("inputs", &self.inputs, "--fix"), of("sizes", &self.sizes, "--fix-dim")];
        parts.into_iter().flatten().reduce(|a, b| format!("{a}, and by {b}"))
    }
}

/// The reason alone where one node is all there is, as errors name the node themselves.
impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn group(title: &str, items: &[impl fmt::Display]) -> Option<String> {
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            (!items.is_empty()).then(|| format!("{title}: {}", items.join(", ")))
        }
        if let Some(form) = self.only_form() {
            return write!(f, "{}{}{}", form.reason, form.deciding.decided(), form.choosing.chosen());
        }
        let groups = [
            group("unsupported operators", &self.ops),
            group("unsupported element types", &self.types),
            group("unsupported forms of operators", &self.forms),
        ];
        f.write_str(&groups.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

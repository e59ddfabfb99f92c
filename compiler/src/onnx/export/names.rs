//! Unique names that stay close to the wanted ones.

use std::collections::HashMap;

/// The names in use, with how often each was asked for.
#[derive(Default)]
pub(super) struct Names {
    taken: HashMap<String, usize>,
}

impl Names {
    /// Whether `name` is in use.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.taken.contains_key(name)
    }

    /// Takes exactly `name`; returns whether it was free.
    pub(super) fn reserve(&mut self, name: &str) -> bool {
        self.taken.insert(name.to_string(), 1).is_none()
    }

    /// Takes `wanted`, or `wanted` and a number if it is in use.
    pub(super) fn unique(&mut self, wanted: &str) -> String {
        let Some(count) = self.taken.get(wanted).copied() else {
            self.taken.insert(wanted.to_string(), 1);
            return wanted.to_string();
        };
        for number in count.. {
            let name = format!("{wanted}.{number}");
            if !self.taken.contains_key(&name) {
                self.taken.insert(wanted.to_string(), number + 1);
                self.taken.insert(name.clone(), 1);
                return name;
            }
        }
        wanted.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_repeat() {
        let mut names = Names::default();
        assert!(names.reserve("y"));
        assert!(!names.reserve("y"));
        assert_eq!(names.unique("x.1"), "x.1");
        assert_eq!(["x", "x", "x", "y"].map(|n| names.unique(n)), ["x", "x.2", "x.3", "y.1"]);
    }
}

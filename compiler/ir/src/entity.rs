//! Ids of things that live in a graph's arena. Their `Display` is the text syntax.

use std::fmt;

macro_rules! entity {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub u32);

        impl $name {
            /// Position in the arena.
            pub fn index(self) -> usize {
                self.0 as usize
            }

            /// The id of position `index`.
            pub fn new(index: usize) -> Self {
                $name(index as u32)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

entity!(
    /// A tensor value: a graph input, a region parameter, a constant or a node's result.
    ValueId, "%");
entity!(
    /// A node: one operator applied to values.
    NodeId, "!");
entity!(
    /// A region: the graph's body, or a body owned by a control operator.
    RegionId, "^");
entity!(
    /// A pooled constant.
    ConstId, "#");
entity!(
    /// A buffer of a [`Program`](crate::program::Program).
    BufferId, "@");
entity!(
    /// A kernel of a [`Program`](crate::program::Program).
    KernelId, "k");

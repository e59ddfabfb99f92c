//! Where a shader finds the elements of a buffer, and how it reads and writes them.

use eec_ir::DType;

/// Where a buffer is.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) array: Array,
    pub(super) dtype: DType,
}

/// What holds a buffer's elements, by its name.
#[derive(Clone)]
pub(super) enum Array {
    /// The arena, from this position on.
    Arena(String),
    /// A binding of its own.
    Binding(String),
    /// Bindings that this function reads: halves, or pieces.
    Function(String),
}

impl Place {
    /// The bits of the element at a position as they are, to copy them.
    pub(super) fn word(&self, at: &str) -> String {
        match &self.array {
            Array::Arena(base) if at == "0" => format!("arena_load({base})"),
            Array::Arena(base) => format!("arena_load({base} + {at})"),
            Array::Binding(name) => format!("{name}[{at}]"),
            Array::Function(name) => format!("{name}({at})"),
        }
    }

    /// The value of the element at a position.
    pub(super) fn load(&self, at: &str) -> String {
        let element = self.word(at);
        match self.dtype {
            DType::F32 => element,
            DType::Bool => format!("(bitcast<i32>({element}) != 0)"),
            _ => format!("bitcast<i32>({element})"),
        }
    }

    /// Stores a value. Constants that are bound by themselves are not written.
    pub(super) fn store(&self, at: &str, value: &str) -> String {
        match self.dtype {
            DType::F32 => self.store_word(at, value),
            DType::Bool => self.store_word(at, &format!("bitcast<f32>(select(0, 1, {value}))")),
            _ => self.store_word(at, &format!("bitcast<f32>({value})")),
        }
    }

    /// Stores the bits of an element as they are.
    pub(super) fn store_word(&self, at: &str, word: &str) -> String {
        match &self.array {
            Array::Arena(base) if at == "0" => format!("arena_store({base}, {word});"),
            Array::Arena(base) => format!("arena_store({base} + {at}, {word});"),
            Array::Binding(name) | Array::Function(name) => format!("{name} is a constant"),
        }
    }
}

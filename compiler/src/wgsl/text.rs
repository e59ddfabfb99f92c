//! The text of one shader while it is written: its parameters and bindings, the symbols and buffers that it names,
//! and the lines of `main`.
//!
//! Nothing that differs between equal kernels of a model stands in the text: buffers, symbols, blocks and the number
//! of the dispatch come through parameters, so that equal layers share one shader.

use std::collections::{BTreeSet, HashMap};

use eec_ir::dim::Symbol;
use eec_ir::gpu::{Fault, Param};
use eec_ir::program::{BlockId, Program, Source, View};
use eec_ir::{BufferId, DType, Dim};

use super::assemble::indented;
use super::dims::SymbolNames;
use super::helpers::Helper;
use super::place::{Array, Place};

/// Why a kernel has no shader.
pub(super) type Reason = String;

/// What all shaders of a program share.
pub(super) struct Shared<'p> {
    pub(super) program: &'p Program,
    /// The position of every symbol in the state.
    pub(super) symbols: HashMap<Symbol, u32>,
    /// Those of them that inputs give.
    pub(super) given: BTreeSet<Symbol>,
    /// Constants that stand in the arena.
    pub(super) resident: BTreeSet<BufferId>,
    /// How the others are bound, by number.
    pub(super) bound: Vec<Bound>,
    /// Words of a binding at most.
    pub(super) piece: u32,
}

/// How a constant is bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bound {
    /// Whether its words are two 16-bit floats.
    pub(super) halves: bool,
    /// Bindings that it takes.
    pub(super) pieces: usize,
}

/// What a shader is for, which decides how it sees the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Reads the state.
    Kernel,
    /// Writes the state and the arguments of dispatches.
    Control,
}

/// A shader and what its dispatch binds.
pub(super) struct Written {
    pub(super) text: String,
    /// The same with subgroup operations, if there is something for them.
    pub(super) with_subgroups: Option<String>,
    /// The sizes that it computes.
    pub(super) sizes: Vec<Dim>,
    pub(super) params: Vec<Param>,
    pub(super) constants: Vec<u32>,
    /// The symbols whose values it adds up; its [`Param::Sum`]s are numbered from 0.
    pub(super) sums: Vec<u32>,
}

/// Writes one shader.
pub(super) struct Writer<'p> {
    pub(super) shared: &'p Shared<'p>,
    pub(super) kind: Kind,
    params: Vec<Param>,
    constants: Vec<u32>,
    pub(super) bindings: Vec<String>,
    /// Bindings that constants take.
    bound: usize,
    symbols: SymbolNames,
    /// Whether it adds up the values of symbols that are set on the device.
    keeps_sums: bool,
    sizes: Vec<Dim>,
    places: usize,
    /// What stands before the body: symbols and offsets.
    pub(super) head: Vec<String>,
    pub(super) globals: Vec<String>,
    /// Functions of lanes together: through the workgroup's memory alone, and with subgroup operations.
    pub(super) together: Vec<[String; 2]>,
    pub(super) helpers: BTreeSet<Helper>,
    pub(super) fault: Option<String>,
    /// When it does not run although its block does.
    pub(super) unless: Option<String>,
    pub(super) lines: Vec<String>,
}

impl<'p> Writer<'p> {
    /// A shader whose dispatch belongs to `block`.
    pub(super) fn new(shared: &'p Shared<'p>, kind: Kind, block: BlockId) -> Writer<'p> {
        Writer {
            shared,
            kind,
            params: vec![Param::Live(block), Param::Counter],
            constants: Vec::new(),
            bindings: Vec::new(),
            bound: 0,
            symbols: SymbolNames::default(),
            keeps_sums: false,
            sizes: Vec::new(),
            places: 0,
            head: Vec::new(),
            globals: Vec::new(),
            together: Vec::new(),
            helpers: BTreeSet::new(),
            fault: None,
            unless: None,
            lines: Vec::new(),
        }
    }

    /// Adds a parameter; gives the expression of its value.
    pub(super) fn param(&mut self, param: Param) -> String {
        self.params.push(param);
        value_of(self.params.len() - 1)
    }

    /// Adds parameters in a row; gives the position of the first, for `param(i)`.
    pub(super) fn params(&mut self, params: impl IntoIterator<Item = Param>) -> usize {
        self.helper(Helper::Param);
        let first = self.params.len();
        self.params.extend(params);
        first
    }

    /// The name of a symbol's value.
    pub(super) fn symbol(&mut self, symbol: &Symbol) -> Result<String, Reason> {
        let (name, new) = self.symbols.name(symbol);
        if new {
            let number = self.shared.symbols.get(symbol).ok_or_else(|| format!("symbol {symbol} has no place"))?;
            let at = self.param(Param::Symbol(*number));
            self.head.push(format!("let {name} = state[{at}];"));
        }
        Ok(name)
    }

    /// Adds up the values of the symbols that are set on the device, among them those of the kernel's work.
    pub(super) fn sum_symbols(&mut self, work: &Dim) -> Result<(), Reason> {
        self.keeps_sums = true;
        let mut found = BTreeSet::new();
        work.collect_symbols(&mut found);
        found.difference(&self.shared.given).try_for_each(|symbol| self.symbol(symbol).map(drop))
    }

    /// Where a buffer is.
    pub(super) fn place(&mut self, id: BufferId) -> Result<Place, Reason> {
        let dtype = self.shared.program.buffer(id).dtype;
        word(dtype)?;
        match self.shared.program.buffer(id).source {
            Source::Constant(constant) if !self.shared.resident.contains(&id) => {
                Ok(Place { array: self.constant(constant), dtype })
            }
            Source::Constant(_) | Source::Input(_) | Source::Temp | Source::Param | Source::Result => {
                self.arena(Param::Offset(id), dtype)
            }
        }
    }

    /// Where something in the arena is, whose offset stands at this place of the state.
    pub(super) fn arena(&mut self, offset: Param, dtype: DType) -> Result<Place, Reason> {
        let base = format!("b{}", self.places);
        self.places += 1;
        let at = self.param(offset);
        self.head.push(format!("let {base} = state[{at}];"));
        Ok(Place { array: Array::Arena(base), dtype })
    }

    /// Where something in the arena is, at the place that a parameter gives.
    pub(super) fn arena_at(&mut self, place: Param, dtype: DType) -> Result<Place, Reason> {
        word(dtype)?;
        let base = format!("b{}", self.places);
        self.places += 1;
        let at = self.param(place);
        self.head.push(format!("let {base} = {at};"));
        Ok(Place { array: Array::Arena(base), dtype })
    }

    /// Where something in the arena is that lies in turn at one of two places: at `other` if it is at `own` now.
    pub(super) fn in_turn(&mut self, now: Param, [own, other]: [Param; 2], dtype: DType) -> Result<Place, Reason> {
        word(dtype)?;
        let base = format!("b{}", self.places);
        self.places += 1;
        let [now, own, other] = [now, own, other].map(|param| self.param(param));
        self.head.push(format!("let {base} = select(state[{own}], state[{other}], state[{now}] == state[{own}]);"));
        Ok(Place { array: Array::Arena(base), dtype })
    }

    fn constant(&mut self, constant: u32) -> Array {
        let bound = self.shared.bound[constant as usize];
        let known = self.constants.iter().position(|c| *c == constant);
        let at = known.unwrap_or_else(|| {
            self.constants.push(constant);
            self.declare(self.constants.len() - 1, bound);
            self.constants.len() - 1
        });
        match bound {
            Bound { halves: false, pieces: 1 } => Array::Binding(format!("c{at}")),
            Bound { .. } => Array::Function(format!("c{at}")),
        }
    }

    /// Declares the bindings of a constant, and the function that reads them if it is not one of plain words.
    fn declare(&mut self, at: usize, Bound { halves, pieces }: Bound) {
        let word = if halves { "u32" } else { "f32" };
        let plain = !halves && pieces == 1;
        for piece in 0..pieces {
            let (name, binding) =
                (if plain { format!("c{at}") } else { format!("c{at}_{piece}") }, FIRST_CONSTANT + self.bound);
            self.bindings.push(format!("@group(0) @binding({binding}) var<storage, read> {name}: array<{word}>;"));
            self.bound += 1;
        }
        if plain {
            return;
        }
        let size = self.shared.piece;
        let mut lines = vec![format!("\nfn c{at}(at: i32) -> f32 {{")];
        lines.push(format!("let place = at{};", if halves { " / 2" } else { "" }));
        if pieces == 1 {
            lines.push(format!("let word = c{at}_0[place];"));
        } else {
            lines.push(format!("var word: {word};\nswitch place / {size} {{"));
            for piece in 0..pieces {
                let case = if piece + 1 == pieces { "default".into() } else { format!("case {piece}") };
                let first = u64::from(size) * piece as u64;
                lines.push(format!("{case}: {{ word = c{at}_{piece}[place - {first}]; }}"));
            }
            lines.push("}".into());
        }
        lines.push(match halves {
            true => "return half((word >> (16u * u32(at % 2))) & 0xffffu);".into(),
            false => "return word;".into(),
        });
        lines.push("}".into());
        if halves {
            self.helper(Helper::Half);
        }
        self.global(lines.join("\n"));
    }

    /// Notes a size that the shader computes.
    pub(super) fn computes(&mut self, size: &Dim) {
        if size.as_const().is_none() && size.as_symbol().is_none() && !self.sizes.contains(size) {
            self.sizes.push(size.clone());
        }
    }

    /// Declares a function of lanes together in both of its forms.
    pub(super) fn together(&mut self, through_memory: String, with_subgroups: String) {
        let forms = [through_memory, with_subgroups];
        if !self.together.contains(&forms) {
            self.together.push(forms);
        }
    }

    /// Where a view's buffer is, and the position of the element at `indices` in it.
    pub(super) fn view(&mut self, view: &View, indices: &[String]) -> Result<(Place, String), Reason> {
        let place = self.place(view.buffer)?;
        let position = self.linear(&view.offset, view.strides.iter().zip(indices.iter().map(String::as_str)))?;
        Ok((place, position))
    }

    /// A statement that reports a fault.
    pub(super) fn fail(&mut self, fault: Fault) -> String {
        self.fault();
        format!("fail({}u);", fault as u32)
    }

    /// Whether the run has failed so far.
    pub(super) fn failed(&mut self) -> String {
        format!("(atomicLoad(&counters[{}]) != 0u)", self.fault())
    }

    /// The position of the fault among the counters.
    fn fault(&mut self) -> String {
        match &self.fault {
            Some(at) => at.clone(),
            None => {
                let at = self.param(Param::Fault);
                self.fault.insert(at).clone()
            }
        }
    }

    /// Declares something beside `main`.
    pub(super) fn global(&mut self, declaration: impl Into<String>) {
        let declaration = declaration.into();
        if !self.globals.contains(&declaration) {
            self.globals.push(declaration);
        }
    }

    /// Declares a helper function.
    pub(super) fn helper(&mut self, helper: Helper) {
        helper.calls().iter().for_each(|h| self.helper(*h));
        self.helpers.insert(helper);
    }

    /// Under this condition, which reads symbols only, the dispatch does nothing.
    pub(super) fn unless(&mut self, condition: String) {
        self.unless = Some(condition);
    }

    /// Adds a line to `main`.
    pub(super) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// The shader, with workgroups of so many lanes.
    pub(super) fn finish(mut self, lanes: u32) -> Written {
        let (mut sums, mut counts) = (Vec::new(), Vec::new());
        let names = if self.keeps_sums { self.symbols.named() } else { Vec::new() };
        for (name, symbol) in names.into_iter().filter(|(_, symbol)| !self.shared.given.contains(symbol)) {
            counts.push((self.param(Param::Sum(sums.len() as u32)), name));
            sums.extend(self.shared.symbols.get(&symbol));
        }
        let words = self.params.len().next_multiple_of(4);
        self.params.resize(words, Param::Number(0));
        let text = |subgroups| indented(&self.assemble(lanes, words / 4, subgroups, &counts));
        let with_subgroups = (!self.together.is_empty()).then(|| text(true));
        let text = text(false);
        Written { text, with_subgroups, sizes: self.sizes, params: self.params, constants: self.constants, sums }
    }
}

/// The binding of the first constant.
const FIRST_CONSTANT: usize = 5;

/// Positions of the parameters that every shader has.
pub(super) const LIVE: usize = 0;
pub(super) const COUNTER: usize = 1;

/// The expression of a parameter.
pub(super) fn value_of(at: usize) -> String {
    format!("params[{}].{}", at / 4, ["x", "y", "z", "w"][at % 4])
}

/// The WGSL type of an element.
pub(super) fn word(dtype: DType) -> Result<&'static str, Reason> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::I64 | DType::I32 => Ok("i32"),
        DType::Bool => Ok("bool"),
        other => Err(format!("{other} values have no word on a GPU")),
    }
}

//! The text of one shader while it is written: its parameters and bindings, the symbols and buffers that it names,
//! and the lines of `main`.
//!
//! Nothing that differs between equal kernels of a model stands in the text: buffers, symbols, blocks and the number
//! of the dispatch come through parameters, so that equal layers share one shader.

use std::collections::{BTreeSet, HashMap};

use eec_ir::dim::Symbol;
use eec_ir::gpu::{ARENA, Fault, Param};
use eec_ir::program::{BlockId, Program, Source, View};
use eec_ir::{BufferId, DType, Dim};

use super::dims::SymbolNames;
use super::helpers::Helper;

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
    kind: Kind,
    params: Vec<Param>,
    constants: Vec<u32>,
    bindings: Vec<String>,
    /// Bindings that constants take.
    bound: usize,
    symbols: SymbolNames,
    /// Whether it adds up the values of symbols that are set on the device.
    keeps_sums: bool,
    sizes: Vec<Dim>,
    places: usize,
    /// What stands before the body: symbols and offsets.
    head: Vec<String>,
    globals: Vec<String>,
    /// Functions of lanes together: through the workgroup's memory alone, and with subgroup operations.
    together: Vec<[String; 2]>,
    helpers: BTreeSet<Helper>,
    fault: Option<String>,
    /// When it does not run although its block does.
    unless: Option<String>,
    lines: Vec<String>,
}

/// Where a buffer is.
#[derive(Clone)]
pub(super) struct Place {
    array: Array,
    pub(super) dtype: DType,
}

/// What holds a buffer's elements, by its name.
#[derive(Clone)]
enum Array {
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

    fn assemble(&self, lanes: u32, uniform: usize, subgroups: bool, counts: &[(String, String)]) -> String {
        let atomic = self.fault.is_some();
        let body = self.lines.join("\n");
        let mut text = format!("@group(0) @binding(0) var<uniform> params: array<vec4<i32>, {uniform}>;\n");
        let access = if self.kind == Kind::Control { "read_write" } else { "read" };
        text.push_str(&format!("@group(0) @binding(1) var<storage, {access}> state: array<i32>;\n"));
        let counter = if atomic { "atomic<u32>" } else { "u32" };
        text.push_str(&format!("@group(0) @binding(2) var<storage, read_write> counters: array<{counter}>;\n"));
        let uses = |name: &str| body.contains(name) || self.globals.iter().any(|g| g.contains(name));
        let arena = uses("arena_load(") || uses("arena_store(");
        match self.kind {
            Kind::Kernel => {}
            Kind::Control if uses("arguments[") => {
                text.push_str("@group(0) @binding(4) var<storage, read_write> arguments: array<u32>;\n");
            }
            Kind::Control => {}
        }
        if arena {
            text.push_str(ARENA);
        }
        self.bindings.iter().chain(&self.globals).for_each(|line| text.push_str(&format!("{line}\n")));
        if subgroups {
            text.push_str(SUBGROUP);
        }
        self.together.iter().for_each(|forms| text.push_str(&format!("{}\n", forms[usize::from(subgroups)])));
        for helper in &self.helpers {
            text.push_str(&format!("\n{}\n", helper.source()));
        }
        if let Some(at) = &self.fault {
            text.push_str(&format!(
                "\nfn fail(fault: u32) {{\nif atomicLoad(&counters[{at}]) == 0u {{\natomicStore(&counters[{at}], 1u + u32({}) * {}u + fault);\n}}\n}}\n",
                value_of(COUNTER), Fault::KINDS
            ));
        }
        text.push_str(&self.entry(lanes, atomic, subgroups, counts, &body));
        text
    }

    fn entry(&self, lanes: u32, atomic: bool, subgroups: bool, counts: &[(String, String)], body: &str) -> String {
        let live = value_of(LIVE);
        let guard = match self.kind {
            Kind::Kernel => format!("if state[{live}] == 0 {{ return; }}"),
            // What others write is uniform only if one lane reads it for all.
            Kind::Control => {
                format!("if lane == 0 {{ live = state[{live}]; }}\nif workgroupUniformLoad(&live) == 0 {{ return; }}")
            }
        };
        let add = |(at, value): (String, String)| match atomic {
            true => format!("atomicAdd(&counters[{at}], {value});"),
            false => format!("counters[{at}] += {value};"),
        };
        let sums = counts.iter().map(|(at, name)| (at.clone(), format!("u32({name})")));
        let counted: Vec<String> = std::iter::once((value_of(COUNTER), "1u".into())).chain(sums).map(add).collect();
        let mut main = vec![
            format!("\n@compute @workgroup_size({lanes})"),
            "fn main(".into(),
            "@builtin(workgroup_id) group_id: vec3<u32>,".into(),
            "@builtin(num_workgroups) group_count: vec3<u32>,".into(),
            "@builtin(local_invocation_index) lane_index: u32,".into(),
        ];
        if subgroups {
            main.extend(SUBGROUP_INPUTS.map(String::from));
        }
        main.push(") {".into());
        if subgroups {
            main.push(
                "subgroup = Subgroup(i32(subgroup_id), i32(num_subgroups), subgroup_lane, subgroup_size);".into(),
            );
        }
        main.extend([
            "let group = i32(group_id.x);".into(),
            "let groups = i32(group_count.x);".into(),
            "let lane = i32(lane_index);".into(),
            guard,
        ]);
        main.extend(self.head.iter().cloned());
        main.extend(self.unless.iter().map(|condition| format!("if {condition} {{ return; }}")));
        main.push(format!("if group == 0 && lane == 0 {{ {} }}", counted.join(" ")));
        main.push(body.to_string());
        main.push("}\n".into());
        let live = if self.kind == Kind::Control { "\nvar<workgroup> live: i32;\n" } else { "" };
        live.to_string() + &main.join("\n")
    }
}

/// What a shader with subgroup operations knows of its lane's subgroup.
const SUBGROUP: &str = "
struct Subgroup {
number: i32,
count: i32,
lane: u32,
size: u32,
}

var<private> subgroup: Subgroup;
";

const SUBGROUP_INPUTS: [&str; 4] = [
    "@builtin(subgroup_id) subgroup_id: u32,",
    "@builtin(num_subgroups) num_subgroups: u32,",
    "@builtin(subgroup_invocation_id) subgroup_lane: u32,",
    "@builtin(subgroup_size) subgroup_size: u32,",
];

/// The binding of the first constant.
const FIRST_CONSTANT: usize = 5;

/// Positions of the parameters that every shader has.
const LIVE: usize = 0;
const COUNTER: usize = 1;

/// The expression of a parameter.
fn value_of(at: usize) -> String {
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

/// Indents lines by the braces and parentheses around them.
fn indented(text: &str) -> String {
    let mut depth = 0usize;
    let mut out = String::with_capacity(text.len() * 2);
    for line in text.lines().map(str::trim) {
        let closes = line.chars().take_while(|c| matches!(c, '}' | ')')).count();
        let shown = depth.saturating_sub(closes);
        if !line.is_empty() {
            out.push_str(&"    ".repeat(shown));
            out.push_str(line);
        }
        out.push('\n');
        let opened = line.chars().filter(|c| matches!(c, '{' | '(')).count();
        let closed = line.chars().filter(|c| matches!(c, '}' | ')')).count();
        depth = (depth + opened).saturating_sub(closed);
    }
    out
}

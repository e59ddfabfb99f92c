//! The text of one shader while it is written: its parameters and bindings, the symbols and buffers that it names,
//! and the lines of `main`.
//!
//! Nothing that differs between equal kernels of a model stands in the text: buffers, symbols, blocks and the number
//! of the dispatch come through parameters, so that equal layers share one shader.

use std::collections::{BTreeSet, HashMap};

use eec_ir::dim::Symbol;
use eec_ir::gpu::Param;
use eec_ir::program::{BlockId, Program, Source, View};
use eec_ir::{BufferId, DType};

use super::dims::SymbolNames;
use super::helpers::Helper;

/// Why a kernel has no shader.
pub(super) type Reason = String;

/// What all shaders of a program share.
pub(super) struct Shared<'p> {
    pub(super) program: &'p Program,
    /// The position of every symbol in the state.
    pub(super) symbols: HashMap<Symbol, u32>,
    /// Constants that stand in the arena.
    pub(super) resident: BTreeSet<BufferId>,
}

/// What a shader is for, which decides how it sees the state and what its binding 4 is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Reads the state.
    Kernel,
    /// Writes the state and the arguments of dispatches.
    Control,
    /// Writes what is read back.
    Output,
}

/// A shader and what its dispatch binds.
pub(super) struct Written {
    pub(super) text: String,
    pub(super) params: Vec<Param>,
    pub(super) constants: Vec<u32>,
}

/// Writes one shader.
pub(super) struct Writer<'p> {
    pub(super) shared: &'p Shared<'p>,
    kind: Kind,
    params: Vec<Param>,
    constants: Vec<u32>,
    bindings: Vec<String>,
    symbols: SymbolNames,
    places: usize,
    /// What stands before the body: symbols and offsets.
    head: Vec<String>,
    globals: Vec<String>,
    helpers: BTreeSet<Helper>,
    fault: Option<String>,
    /// When it does not run although its block does.
    unless: Option<String>,
    lines: Vec<String>,
}

/// Where a buffer is: an array and the position of its first element.
#[derive(Clone)]
pub(super) struct Place {
    array: String,
    base: Option<String>,
    pub(super) dtype: DType,
}

impl Place {
    fn element(&self, at: &str) -> String {
        match &self.base {
            Some(base) if at == "0" => format!("{}[{base}]", self.array),
            Some(base) => format!("{}[{base} + {at}]", self.array),
            None => format!("{}[{at}]", self.array),
        }
    }

    /// The value of the element at a position.
    pub(super) fn load(&self, at: &str) -> String {
        let element = self.element(at);
        match self.dtype {
            DType::F32 => element,
            DType::Bool => format!("(bitcast<i32>({element}) != 0)"),
            _ => format!("bitcast<i32>({element})"),
        }
    }

    /// Stores a value.
    pub(super) fn store(&self, at: &str, value: &str) -> String {
        let element = self.element(at);
        match self.dtype {
            DType::F32 => format!("{element} = {value};"),
            DType::Bool => format!("{element} = bitcast<f32>(select(0, 1, {value}));"),
            _ => format!("{element} = bitcast<f32>({value});"),
        }
    }

    /// The bits of an element as they are, to copy them.
    pub(super) fn word(&self, at: &str) -> String {
        self.element(at)
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
            symbols: SymbolNames::default(),
            places: 0,
            head: Vec::new(),
            globals: Vec::new(),
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

    /// Where a buffer is.
    pub(super) fn place(&mut self, id: BufferId) -> Result<Place, Reason> {
        let dtype = self.shared.program.buffer(id).dtype;
        word(dtype)?;
        match self.shared.program.buffer(id).source {
            Source::Constant(constant) if !self.shared.resident.contains(&id) => {
                Ok(Place { array: self.constant(constant), base: None, dtype })
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
        Ok(Place { array: "arena".into(), base: Some(base), dtype })
    }

    fn constant(&mut self, constant: u32) -> String {
        let at = self.constants.iter().position(|c| *c == constant).unwrap_or_else(|| {
            self.constants.push(constant);
            let at = self.constants.len() - 1;
            let binding = 5 + at;
            self.bindings.push(format!("@group(0) @binding({binding}) var<storage, read> c{at}: array<f32>;"));
            at
        });
        format!("c{at}")
    }

    /// Where a view's buffer is, and the position of the element at `indices` in it.
    pub(super) fn view(&mut self, view: &View, indices: &[String]) -> Result<(Place, String), Reason> {
        let place = self.place(view.buffer)?;
        let position = self.linear(&view.offset, view.strides.iter().zip(indices.iter().map(String::as_str)))?;
        Ok((place, position))
    }

    /// A statement that reports a fault (`0` index, `1` division).
    pub(super) fn fail(&mut self, fault: eec_ir::gpu::Fault) -> String {
        if self.fault.is_none() {
            let at = self.param(Param::Fault);
            self.fault = Some(at);
        }
        format!("fail({}u);", fault as u32)
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
        let words = self.params.len().next_multiple_of(4);
        self.params.resize(words, Param::Number(0));
        let text = indented(&self.assemble(lanes, words / 4));
        Written { text, params: self.params, constants: self.constants }
    }

    fn assemble(&self, lanes: u32, uniform: usize) -> String {
        let atomic = self.fault.is_some();
        let body = self.lines.join("\n");
        let mut text = format!("@group(0) @binding(0) var<uniform> params: array<vec4<i32>, {uniform}>;\n");
        let access = if self.kind == Kind::Control { "read_write" } else { "read" };
        text.push_str(&format!("@group(0) @binding(1) var<storage, {access}> state: array<i32>;\n"));
        let counter = if atomic { "atomic<u32>" } else { "u32" };
        text.push_str(&format!("@group(0) @binding(2) var<storage, read_write> counters: array<{counter}>;\n"));
        let uses = |name: &str| body.contains(name) || self.globals.iter().any(|g| g.contains(name));
        if uses("arena[") {
            text.push_str("@group(0) @binding(3) var<storage, read_write> arena: array<f32>;\n");
        }
        match self.kind {
            Kind::Kernel => {}
            Kind::Control if uses("arguments[") => {
                text.push_str("@group(0) @binding(4) var<storage, read_write> arguments: array<u32>;\n");
            }
            Kind::Control => {}
            Kind::Output => text.push_str("@group(0) @binding(4) var<storage, read_write> result: array<u32>;\n"),
        }
        self.bindings.iter().chain(&self.globals).for_each(|line| text.push_str(&format!("{line}\n")));
        for helper in &self.helpers {
            text.push_str(&format!("\n{}\n", helper.source()));
        }
        if let Some(at) = &self.fault {
            text.push_str(&format!(
                "\nfn fail(fault: u32) {{\nif atomicLoad(&counters[{at}]) == 0u {{\natomicStore(&counters[{at}], 1u + u32({}) * 2u + fault);\n}}\n}}\n",
                value_of(COUNTER)
            ));
        }
        text.push_str(&self.entry(lanes, atomic, &body));
        text
    }

    fn entry(&self, lanes: u32, atomic: bool, body: &str) -> String {
        let (live, counter) = (value_of(LIVE), value_of(COUNTER));
        let guard = match self.kind {
            Kind::Kernel | Kind::Output => format!("if state[{live}] == 0 {{ return; }}"),
            // What others write is uniform only if one lane reads it for all.
            Kind::Control => {
                format!("if lane == 0 {{ live = state[{live}]; }}\nif workgroupUniformLoad(&live) == 0 {{ return; }}")
            }
        };
        let once = match atomic {
            true => format!("atomicAdd(&counters[{counter}], 1u);"),
            false => format!("counters[{counter}] += 1u;"),
        };
        let mut main = vec![
            format!("\n@compute @workgroup_size({lanes})"),
            "fn main(".into(),
            "@builtin(workgroup_id) group_id: vec3<u32>,".into(),
            "@builtin(num_workgroups) group_count: vec3<u32>,".into(),
            "@builtin(local_invocation_index) lane_index: u32,".into(),
            ") {".into(),
            "let group = i32(group_id.x);".into(),
            "let groups = i32(group_count.x);".into(),
            "let lane = i32(lane_index);".into(),
            guard,
        ];
        main.extend(self.head.iter().cloned());
        main.extend(self.unless.iter().map(|condition| format!("if {condition} {{ return; }}")));
        main.push(format!("if group == 0 && lane == 0 {{ {once} }}"));
        main.push(body.to_string());
        main.push("}\n".into());
        let live = if self.kind == Kind::Control { "\nvar<workgroup> live: i32;\n" } else { "" };
        live.to_string() + &main.join("\n")
    }
}

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

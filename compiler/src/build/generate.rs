//! The Rust module of a compiled model: its inputs as arguments, its outputs as fields, its exits as an
//! enum.

use std::fmt::Write;
use std::path::Path;

use eec_ir::program::{Port, Program};
use eec_ir::{DType, Type};
use eec_passes::exit_heads::EXIT_INDEX;

use super::names;

/// The text of the module of a program that was made of the file `model`. `embedded` is the artifact that becomes part
/// of the program that includes the module; `native` names the library that it links, and the code in it.
pub(super) fn module(
    model: &Path,
    program: &Program,
    embedded: Option<&Path>,
    native: Option<(&str, String)>,
) -> String {
    let source = model.file_name().map(|n| one_line(&n.to_string_lossy())).unwrap_or_default();
    Parts { program, source, embedded, native }.text()
}

struct Parts<'a> {
    program: &'a Program,
    source: String,
    embedded: Option<&'a Path>,
    native: Option<(&'a str, String)>,
}

/// An input or output in the generated code.
struct Place<'a> {
    port: &'a Port,
    /// The argument or field.
    name: String,
}

impl Place<'_> {
    /// `Array<f32, 4>`; `Tensor` where Rust has no type for the elements.
    fn ty(&self) -> String {
        match rust_type(self.port.dtype) {
            Some(element) => format!("::eec_runtime::Array<{element}, {}>", self.port.dims.len()),
            None => "::eec_runtime::Tensor".into(),
        }
    }

    fn doc(&self) -> String {
        let ty = Type::new(self.port.dtype, self.port.dims.iter().cloned());
        format!("`{}`: `{ty}`.", one_line(&self.port.name))
    }

    /// The value as the runtime takes it.
    fn tensor(&self) -> String {
        match rust_type(self.port.dtype) {
            Some(_) => format!("{}.tensor().clone()", self.name),
            None => format!("{}.clone()", self.name),
        }
    }
}

/// The element type of arrays.
fn rust_type(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("f32"),
        DType::I64 => Some("i64"),
        DType::I32 => Some("i32"),
        DType::Bool => Some("u8"),
        _ => None,
    }
}

fn places<'a>(ports: impl Iterator<Item = &'a Port> + Clone, taken: &[&str]) -> Vec<Place<'a>> {
    let names = names::fields(ports.clone().map(|p| p.name.as_str()), taken);
    ports.zip(names).map(|(port, name)| Place { port, name }).collect()
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

impl Parts<'_> {
    fn text(&self) -> String {
        let mut text = format!("// Made by eec {} from {}.\n", env!("CARGO_PKG_VERSION"), self.source);
        text.push_str(&self.native());
        text.push_str(&self.model());
        text.push_str(&self.output());
        text.push_str(&self.exit());
        text
    }

    fn has_exits(&self) -> bool {
        !self.program.exits.is_empty()
    }

    fn inputs(&self) -> Vec<Place<'_>> {
        places(self.program.inputs.iter(), &["control", "run"])
    }

    /// The outputs but the exits' numbers, which become [`Parts::exit`].
    fn outputs(&self) -> Vec<Place<'_>> {
        let shown = self.program.outputs.iter().filter(|p| !(self.has_exits() && p.name == EXIT_INDEX));
        places(shown, &["exits", "counters"])
    }

    fn model(&self) -> String {
        let inputs = self.inputs();
        let source = &self.source;
        let arguments: Vec<String> = inputs.iter().map(|p| format!("{}: &{}", p.name, p.ty())).collect();
        let passed: Vec<&str> = inputs.iter().map(|p| p.name.as_str()).collect();
        let named: Vec<String> = inputs.iter().map(|p| format!("({:?}, {})", p.port.name, p.tensor())).collect();
        let docs: String = inputs.iter().map(|p| format!("    /// - {}\n", p.doc())).collect();
        let (arguments, passed, named) = (arguments.join(", "), passed.join(", "), named.join(", "));
        let embedded = self.embedded.map(|path| self.embedded(path)).unwrap_or_default();
        let options = self.options();
        format!(
            "
/// The model of `{source}`, ready to run.
pub struct Model {{
    session: ::eec_runtime::Session,
}}

#[allow(dead_code)]
impl Model {{{embedded}
    /// Loads the artifact at `path`.
    pub fn load(path: &::std::path::Path, options: ::eec_runtime::Options) -> Result<Self, ::eec_runtime::Error> {{
        Ok(Model {{ session: ::eec_runtime::Session::load(path, {options})? }})
    }}

    /// Runs the model; exits and gates decide by their own rules.
    ///
{docs}    pub fn run(&mut self, {arguments}) -> Result<Output, ::eec_runtime::Error> {{
        self.run_with({passed}{comma}::eec_runtime::Control::Auto)
    }}

    /// The same under a control over exits and gates.
    pub fn run_with(&mut self, {arguments}{comma}control: ::eec_runtime::Control) -> Result<Output, ::eec_runtime::Error> {{
        Output::of(&self.session.run(&[{named}], control)?)
    }}

    /// The session, for what its program says of itself.
    pub fn session(&self) -> &::eec_runtime::Session {{
        &self.session
    }}
}}
",
            comma = if inputs.is_empty() { "" } else { ", " },
        )
    }

    /// The code that the program links.
    fn native(&self) -> String {
        let Some((library, symbol)) = &self.native else { return String::new() };
        format!(
            "
#[link(name = {library:?}, kind = \"static\")]
unsafe extern \"C\" {{
    /// The model's machine code.
    #[link_name = {symbol:?}]
    safe static CODE: ::eec_runtime::NativeCode;
}}
"
        )
    }

    /// What a session runs with, of the caller's `options`.
    fn options(&self) -> &str {
        match self.native {
            Some(_) => "::eec_runtime::Options { native: Some(&CODE), ..options }",
            None => "options",
        }
    }

    /// The function that makes a model of the embedded artifact.
    fn embedded(&self, artifact: &Path) -> String {
        let (path, options) = (artifact.display().to_string(), self.options());
        format!(
            "
    /// The model with the artifact that is part of this program.
    pub fn embedded(options: ::eec_runtime::Options) -> Result<Self, ::eec_runtime::Error> {{
        let artifact: &'static [u8] = ::eec_runtime::include_artifact!({path:?});
        Ok(Model {{ session: ::eec_runtime::Session::embedded(artifact, {options})? }})
    }}
"
        )
    }

    fn output(&self) -> String {
        let outputs = self.outputs();
        let mut fields: String =
            outputs.iter().map(|p| format!("    /// {}\n    pub {}: {},\n", p.doc(), p.name, p.ty())).collect();
        let take = |p: &Place| match rust_type(p.port.dtype) {
            Some(_) => format!("            {}: run.output({:?})?,\n", p.name, p.port.name),
            None => format!("            {}: run.tensor({:?})?.clone(),\n", p.name, p.port.name),
        };
        let mut taken: String = outputs.iter().map(take).collect();
        if self.has_exits() {
            fields.push_str("    /// Where every sample left.\n    pub exits: Vec<Exit>,\n");
            let numbers = format!("run.output::<i64, 1>({EXIT_INDEX:?})?.elements().iter()");
            let _ = writeln!(taken, "            exits: {numbers}.map(Exit::numbered).collect(),");
        }
        format!(
            "
/// What a run gives.
#[allow(dead_code)]
#[derive(Clone, Debug)]
pub struct Output {{
{fields}    /// What was executed.
    pub counters: ::eec_runtime::Counters,
}}

impl Output {{
    fn of(run: &::eec_runtime::Run) -> Result<Self, ::eec_runtime::Error> {{
        Ok(Output {{
{taken}            counters: run.counters.clone(),
        }})
    }}
}}
"
        )
    }

    fn exit(&self) -> String {
        if !self.has_exits() {
            return String::new();
        }
        let exits = || self.program.exits.iter().map(|e| e.name.as_str());
        let names = names::variants(exits(), &["End"]);
        let docs = exits().map(|e| format!("After {}.", one_line(e)));
        let variants: String = names.iter().zip(docs).map(|(n, doc)| format!("    /// {doc}\n    {n},\n")).collect();
        let all: Vec<String> = names.iter().map(String::as_str).chain(["End"]).map(|n| format!("Exit::{n}")).collect();
        format!(
            "
/// Where a sample left.
#[allow(dead_code)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Exit {{
{variants}    /// It ran to the model's end.
    End,
}}

#[allow(dead_code)]
impl Exit {{
    /// All of them, in order of depth.
    pub const ALL: [Exit; {count}] = [{all}];

    fn numbered(number: &i64) -> Exit {{
        usize::try_from(*number).ok().and_then(|k| Exit::ALL.get(k).copied()).unwrap_or(Exit::End)
    }}
}}
",
            count = all.len(),
            all = all.join(", "),
        )
    }
}

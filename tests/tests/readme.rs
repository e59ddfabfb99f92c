//! What the README says of operators and element types is what the code has. `EEC_UPDATE=1` writes it anew.

use std::path::Path;

use eec::cases::{Case, lowered, run_passes};
use eec::onnx::{Cpu, OPSETS, operators};
use eec::wgsl;
use eec_ir::program::{self, Form};
use eec_ir::{DType, KernelId};
use eec_passes::pass::Context;
use eec_tests::{files, has_gpu_form};

const BEGIN: &str = "<!-- operators, written by tests/tests/readme.rs -->";
const END: &str = "<!-- end of operators -->";

#[test]
fn the_operators_of_the_readme_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (before, rest) = text.split_once(BEGIN).expect("the README has the tables' begin");
    let (tables, after) = rest.split_once(END).expect("the README has the tables' end");
    let wanted = format!("\n\n{}\n\n{}\n\n", operator_table(), type_table());
    if std::env::var_os("EEC_UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).expect("the README can be written");
        return;
    }
    assert_eq!(tables, wanted, "EEC_UPDATE=1 writes the README's tables anew");
}

fn operator_table() -> String {
    let all = operators();
    let those = |wanted: fn(&Cpu) -> bool| {
        let names = all.iter().filter(|o| o.domain.is_empty() && wanted(&o.cpu)).map(|o| match o.cpu {
            Cpu::Partly(forms) => format!("{} ({forms})", o.name),
            Cpu::Compiled | Cpu::Host | Cpu::Late => o.name.to_string(),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    let of_domain = |domain: &str| {
        let names = all.iter().filter(|o| o.domain == domain).map(|o| o.name);
        names.collect::<Vec<_>>().join(", ")
    };
    let row = |how: &str, cpu: Cpu, names: String| format!("| {how} | {} | {names} |", on_a_gpu(cpu));
    let rows = [
        format!("| on the CPU | on a GPU | ONNX operators, opsets {} to {} |", OPSETS.start(), OPSETS.end()),
        "|---|---|---|".to_string(),
        row("compiled", Cpu::Compiled, those(|c| *c == Cpu::Compiled)),
        row("compiled, but for the forms in parentheses", Cpu::Partly(""), those(|c| matches!(c, Cpu::Partly(_)))),
        row("run by its evaluator, at least in part", Cpu::Host, those(|c| *c == Cpu::Host)),
        row("run by its evaluator; data decides how long results are", Cpu::Late, those(|c| *c == Cpu::Late)),
        row("compiled, of `com.microsoft`", Cpu::Compiled, of_domain("com.microsoft")),
        row("compiled, of `ai.onnx.preview`", Cpu::Compiled, of_domain("ai.onnx.preview")),
    ];
    rows.join("\n")
}

/// How a GPU runs what the CPU runs so. Every form of a kernel has a shader but for [`Form::Host`], as
/// the test below shows.
///
/// [`Form::Host`]: eec_ir::program::Form::Host
fn on_a_gpu(cpu: Cpu) -> &'static str {
    match cpu {
        Cpu::Compiled => "shader",
        Cpu::Partly(_) => "shader, but for these forms: the host",
        Cpu::Host => "the host, at least in part",
        Cpu::Late => "of constants alone",
    }
}

fn type_table() -> String {
    let names = |compiled: bool| {
        let types = DType::ALL.iter().filter(|d| d.is_compiled() == compiled).map(|d| d.name());
        types.collect::<Vec<_>>().join(", ")
    };
    let rows = [
        "| element types | on the CPU | on a GPU |".to_string(),
        "|---|---|---|".to_string(),
        format!("| {} | compiled | words of 32 bits |", names(true)),
        format!("| {} | moved by compiled code, computed by the evaluators | refused |", names(false)),
    ];
    rows.join("\n")
}

#[test]
fn every_form_of_a_kernel_has_a_shader_and_every_compiled_type_a_word() {
    for path in files::cases("ops") {
        let case = Case::new(&files::read(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut graph = case.graph().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        run_passes(&mut graph, &case.header.passes, &mut Context::default()).expect("passes");
        let program = lowered(&graph).expect("a program");
        let verified = program::verify(&program).expect("a valid program");
        let gpu = wgsl::lower(&verified);
        assert_eq!(gpu.is_ok(), has_gpu_form(&program), "{}: {:?}", path.display(), gpu.err());
        let Ok(gpu) = gpu else { continue };
        let host: Vec<KernelId> = gpu.host_kernels().collect();
        for (i, kernel) in program.kernels.iter().enumerate() {
            let is_host = matches!(kernel.form, Form::Host(_));
            assert_eq!(host.contains(&KernelId::new(i)), is_host, "{}: {}", path.display(), kernel.name);
        }
    }
}

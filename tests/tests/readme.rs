//! What the README says of operators and element types is what the code has. `EEC_UPDATE=1` writes it anew.

use std::path::Path;

use eec::onnx::{Cpu, OPSETS, operators};
use eec_ir::DType;

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
            Cpu::Compiled | Cpu::Host | Cpu::Import => o.name.to_string(),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    let of_domain = |domain: &str| {
        let names = all.iter().filter(|o| o.domain == domain).map(|o| o.name);
        names.collect::<Vec<_>>().join(", ")
    };
    let rows = [
        format!("| on the CPU | ONNX operators, opsets {} to {} |", OPSETS.start(), OPSETS.end()),
        "|---|---|".to_string(),
        format!("| compiled | {} |", those(|c| *c == Cpu::Compiled)),
        format!("| compiled, but for the forms in parentheses | {} |", those(|c| matches!(c, Cpu::Partly(_)))),
        format!("| run by its evaluator, at least in part | {} |", those(|c| *c == Cpu::Host)),
        format!("| computed when the model is read, of constants alone | {} |", those(|c| *c == Cpu::Import)),
        format!("| compiled, of `com.microsoft` | {} |", of_domain("com.microsoft")),
        format!("| compiled, of `ai.onnx.preview` | {} |", of_domain("ai.onnx.preview")),
    ];
    rows.join("\n")
}

fn type_table() -> String {
    let names = |compiled: bool| {
        let types = DType::ALL.iter().filter(|d| d.is_compiled() == compiled).map(|d| d.name());
        types.collect::<Vec<_>>().join(", ")
    };
    let rows = [
        "| element types | on the CPU |".to_string(),
        "|---|---|".to_string(),
        format!("| {} | compiled |", names(true)),
        format!("| {} | moved by compiled code, computed by the evaluators |", names(false)),
    ];
    rows.join("\n")
}

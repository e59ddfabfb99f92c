//! Rows that nobody reads are not computed, and those that are read keep their bits.

use std::path::Path;

use eec::model::{lowered, run_options, session_of, simplified};
use eec::npz::read_npz;
use eec::onnx::import;
use eec_ir::Tensor;
use eec_runtime::{Control, Run};

/// What a model gives with and without the rows that nobody reads.
fn both(rows: usize) -> [Run; 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/easy-vqa");
    let graph = simplified(import(&folder.join("model.onnx")).expect("a model")).expect("a simple graph");
    let data = read_npz(&folder.join("calib.npz")).expect("data");
    let inputs: Vec<(&str, Tensor)> =
        ["pixel_values", "input_ids"].map(|name| (name, data.get(name).expect("an array").rows(0, rows))).into();
    let run = |program| {
        let mut session = session_of(program, &graph, run_options(Some(2))).expect("a session");
        session.run(&inputs, Control::Auto).expect("a run")
    };
    let whole = eec::cases::lowered(&graph).expect("a program");
    [run(lowered(&graph, Default::default()).expect("a program")), run(whole)]
}

/// The decoder answers at its last token: of the eighth block it needs keys and values of all tokens, and one row
/// of the rest.
#[test]
fn a_model_read_at_one_token_gives_the_same_bits_for_less_work() {
    for rows in [1, 7] {
        let [read, whole] = both(rows);
        assert_eq!(read.outputs, whole.outputs, "{rows} rows");
        let share = read.counters.macs as f64 / whole.counters.macs as f64;
        assert!((0.88..0.92).contains(&share), "{rows} rows: {share} of the work");
    }
}

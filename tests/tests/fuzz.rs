//! The kept corpus and a fixed number of mutations of it. `cargo run -p eec-tests --bin fuzz` goes on from here.

use eec_tests::fuzz::{Target, corpus, seeds};

/// Mutated inputs per target: a few seconds of them.
const COUNT: [(Target, u64); 5] = [
    (Target::OnnxBytes, 1500),
    (Target::IrText, 1500),
    (Target::ArtifactBytes, 400),
    (Target::NpzBytes, 1000),
    (Target::Passes, 500),
];

#[test]
fn kept_inputs_are_no_findings() {
    for target in Target::ALL {
        for (file, bytes) in corpus(target) {
            target.feed(&bytes).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        }
    }
}

#[test]
fn mutated_inputs_are_no_findings() {
    for (target, count) in COUNT {
        let seeds = seeds(target);
        for number in 0..count {
            let input = target.input(&seeds, 0, number);
            let name = target.name();
            target.feed(&input).unwrap_or_else(|e| panic!("{name}, input {number} of sequence 0: {e}"));
        }
    }
}

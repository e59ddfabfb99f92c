//! Made-up exits for tests: ten heads on a small vision transformer, 83 % plain accuracy.

use super::samples::{Costs, Reference, Samples, Signal};
use crate::fit::random::Random;

/// Exits of the made-up model.
pub(crate) const EXITS: usize = 10;
/// Mean margin of the right class at each exit, and at the end: accuracies from about 40 % to 83 %.
const MARGINS: [f64; EXITS + 1] = [-0.35, -0.05, 0.20, 0.45, 0.68, 0.90, 1.08, 1.22, 1.31, 1.36, 1.37];

/// Draws `rows` samples. The margin of the right class is ease plus noise that neighbouring
/// exits share; the confidence grows with the size of the margin, blurred.
pub(crate) fn samples(rows: usize, seed: u64) -> Samples {
    let mut random = Random::new(seed);
    let mut confidence = vec![vec![0.0f32; rows]; EXITS];
    let mut correct = vec![vec![false; rows]; EXITS];
    let mut plain_correct = vec![false; rows];
    for row in 0..rows {
        let (ease, mut noise) = (1.25 * random.normal(), random.normal());
        for (k, mean) in MARGINS.into_iter().enumerate() {
            noise = 0.85 * noise + 0.527 * random.normal();
            let margin = mean + ease + 0.7 * noise;
            if k == EXITS {
                plain_correct[row] = margin > 0.0;
                continue;
            }
            correct[k][row] = margin > 0.0;
            let size = 1.6 * margin.abs() + 0.35 * random.normal();
            confidence[k][row] = (1.0 / (1.0 + 4.0 * (-size).exp())) as f32;
        }
    }
    Samples {
        exits: (0..EXITS).map(|k| format!("block {k}")).collect(),
        signal: Signal::Confidence(confidence),
        correct,
        plain_correct,
        reference: Reference::Labels,
    }
}

/// The same samples under patience. A wrong head mostly names the sample's own wrong class.
pub(crate) fn patient(rows: usize, seed: u64) -> Samples {
    let mut samples = samples(rows, seed);
    let mut random = Random::new(seed ^ 1);
    let mut named = |row: usize| match random.uniform() < 0.7 {
        true => 1 + row as u32 % 9,
        false => 1 + (random.bits() % 9) as u32,
    };
    let mut name = |(row, right): (usize, &bool)| if *right { 0 } else { named(row) };
    let class = samples.correct.iter().map(|c| c.iter().enumerate().map(&mut name).collect());
    samples.signal = Signal::Patience { class: class.collect(), patience: vec![2, 3, 4] };
    samples
}

/// Equal blocks; a head costs 0.3 % of the model.
pub(crate) fn costs() -> Costs {
    Costs::of_parts(vec![1_000_000; EXITS], vec![36_000; EXITS], 2_000_000)
}

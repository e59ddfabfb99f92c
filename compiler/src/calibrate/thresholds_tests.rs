//! The search against all possible thresholds on tiny data.

use super::super::samples::{Reference, Signal};
use super::*;
use crate::fit::random::Random;

const ROWS: usize = 10;

/// Tiny data with ties among the confidences.
fn tiny(exits: usize, seed: u64) -> (Samples, Vec<Vec<f32>>, Costs) {
    let mut random = Random::new(seed);
    let mut column = |good: f64| -> Vec<bool> { (0..ROWS).map(|_| random.uniform() < good).collect() };
    let correct: Vec<Vec<bool>> = (0..exits).map(|k| column(0.5 + 0.1 * k as f64)).collect();
    let plain_correct = column(0.85);
    let confidence: Vec<Vec<f32>> = (0..exits)
        .map(|k| {
            let noisy = |row: usize| {
                let sure = 0.4 * f64::from(u8::from(correct[k][row])) + 0.6 * random.uniform();
                (sure * 12.0).round() as f32 / 12.0
            };
            (0..ROWS).map(noisy).collect()
        })
        .collect();
    let samples = Samples {
        exits: (0..exits).map(|k| k.to_string()).collect(),
        signal: Signal::Confidence(confidence.clone()),
        correct,
        plain_correct,
        reference: Reference::Labels,
    };
    let head = (0..exits).map(|k| 3 + 4 * k as u64).collect();
    let segment = (0..exits).map(|k| 30 + 7 * k as u64).collect();
    (samples, confidence, Costs::of_parts(segment, head, 40))
}

/// The least objective over all choices of exits and cuts.
fn brute_force(search: &ThresholdSearch, lambda: f64) -> f64 {
    let cuts: Vec<Vec<Option<f32>>> = search
        .confidence
        .iter()
        .map(|c| [None, Some(ALWAYS)].into_iter().chain(c.iter().map(|&v| Some(v))).collect())
        .collect();
    let mut least = f64::INFINITY;
    for mut code in 0..cuts.iter().map(Vec::len).product() {
        let pick = |c: &Vec<Option<f32>>| {
            let chosen = c[code % c.len()];
            code /= c.len();
            chosen
        };
        let t: Thresholds = cuts.iter().map(pick).collect();
        least = least.min(search.objective(&t, lambda));
    }
    least
}

#[test]
fn the_search_finds_the_optimum_of_tiny_data() {
    let (mut cases, mut optimal, rows) = (0, 0, (0..ROWS).collect::<Vec<_>>());
    for exits in 1..=3 {
        for seed in 0..40 {
            let (samples, confidence, costs) = tiny(exits, seed);
            let search = ThresholdSearch::new(&samples, &confidence, &costs, &rows, 1.0);
            for lambda in [0.5, 1.5, 6.0] {
                let least = brute_force(&search, lambda);
                let Policy::Threshold { exits: kept } = search.solve(lambda, &Policy::plain()) else {
                    panic!("a threshold policy was asked for");
                };
                let mut t = vec![None; exits];
                kept.iter().for_each(|e| t[e.exit] = Some(e.threshold));
                let found = search.objective(&t, lambda);
                assert!(found >= least - 1e-9 && found <= least + 0.25 * least.abs(), "{found} {least}");
                cases += 1;
                optimal += usize::from(found <= least + 1e-9);
                assert!(exits > 1 || found <= least + 1e-9, "one exit is solved exactly");
            }
        }
    }
    assert!(optimal * 100 >= cases * 90, "{optimal} of {cases}");
}

#[test]
fn an_exit_that_costs_more_than_it_saves_is_left_out() {
    let (samples, confidence, mut costs) = tiny(2, 3);
    costs.head = vec![1000, 1000];
    let rows: Vec<usize> = (0..ROWS).collect();
    let search = ThresholdSearch::new(&samples, &confidence, &costs, &rows, 1.0);
    assert!(search.solve(1.0, &Policy::plain()).is_plain());
}

#[test]
fn thresholds_lie_strictly_between_neighbours() {
    assert_eq!(halfway(0.25, 0.75), 0.5);
    let next = f32::from_bits(0.5f32.to_bits() + 1);
    let t = halfway(0.5, next);
    assert!(next > t && 0.5 <= t);
    assert_eq!(halfway(f32::MIN, f32::MAX), 0.0);
}

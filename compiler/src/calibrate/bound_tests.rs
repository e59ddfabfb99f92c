//! Levels that the tests really keep, and what they allow.

use super::*;
use crate::fit::random::Random;

/// How often the bound lies below the true drop, by simulation.
fn misses(reference: Reference, rows: usize, lost: f64, gained: f64, runs: usize) -> f64 {
    let test = DropTest::new(reference, 0.1, rows);
    let mut random = Random::new(11);
    let (mut missed, mut known) = (0, std::collections::HashMap::new());
    for _ in 0..runs {
        let (mut a, mut b) = (0, 0);
        for _ in 0..rows {
            let u = random.uniform();
            a += usize::from(u < lost);
            b += usize::from(u >= lost && u < lost + gained);
        }
        let passes = || test.passes(a, b, lost - gained);
        missed += usize::from(*known.entry((a, b)).or_insert_with(passes));
    }
    missed as f64 / runs as f64
}

#[test]
fn the_level_is_kept_and_nearly_used_up() {
    // Simulation error at 1000 runs is 0.0095; three of them are allowed.
    for (lost, gained) in [(0.005, 0.0), (0.010, 0.005), (0.025, 0.020), (0.06, 0.055)] {
        let rate = misses(Reference::Labels, 600, lost, gained, 1000);
        assert!((0.04..0.128).contains(&rate), "{lost} {gained}: {rate}");
    }
    let rate = misses(Reference::PlainModel, 1000, 0.02, 0.0, 1000);
    assert!((0.04..0.128).contains(&rate), "{rate}");
}

#[test]
fn bound_and_test_agree_and_order_is_kept() {
    let test = DropTest::new(Reference::Labels, 0.1, 1500);
    let mut last = 0.0;
    for lost in 0..30 {
        let bound = test.bound(lost, 10, 0.005);
        assert_eq!(bound <= 0.005, test.passes(lost, 10, 0.005));
        assert!(bound >= last && bound > test.drop_of(lost, 10), "{lost}: {bound}");
        last = bound;
    }
}

impl DropTest {
    fn drop_of(&self, lost: usize, gained: usize) -> f64 {
        Paired { rows: self.rows, lost, gained }.drop()
    }
}

#[test]
fn unpaired_gains_reduce_to_the_binomial_when_none_are_possible() {
    // With nothing gained, the exact test can only be a little wider than Clopper and Pearson.
    let paired = DropTest::new(Reference::Labels, 0.1, 1500);
    let single = DropTest::new(Reference::PlainModel, 0.1, 1500);
    for lost in [0, 1, 3, 8] {
        let (wide, narrow) = (paired.bound(lost, 0, 0.005), single.bound(lost, 0, 0.005));
        assert!(wide < 1.5 * narrow + 1e-4, "{lost}: {wide} {narrow}");
    }
}

#[test]
fn score_is_the_mcnemar_statistic_at_margin_zero() {
    let z = score(500, 14, 6, 0.0);
    assert!((z - 8.0 / 20f64.sqrt()).abs() < 1e-12);
    assert_eq!(score(500, 0, 0, 0.0), 0.0);
}

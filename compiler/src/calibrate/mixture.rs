//! The best that fixed choices can do at a given work: each input takes one of them by chance, so the
//! means of work and quality lie on straight lines between the choices, and the best of these lines are
//! the upper concave hull of all choices.

use serde::{Deserialize, Serialize};

/// A choice that is the same for all inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Mean work per input, in any unit.
    pub work: f64,
    /// Mean quality, more is better.
    pub quality: f64,
}

/// A choice and how many inputs take it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The choice's index.
    pub choice: usize,
    /// The fraction of inputs.
    pub share: f64,
}

/// One of two choices per input, by chance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixture {
    /// Two choices in order of work, or one that all inputs take.
    pub shares: Vec<Share>,
    /// Expected work.
    pub work: f64,
    /// Expected quality.
    pub quality: f64,
}

/// Works that differ by less, relatively, are equal: sums of the same parts in another order.
pub(super) const ROUNDING: f64 = 1e-9;

/// The choices that no mixture of others beats at the same work, in order of work: the corners of the
/// upper concave hull, as far as it rises. Choices that are not finite are left out.
pub fn frontier(choices: &[Choice]) -> Vec<usize> {
    let finite = |i: &usize| choices[*i].work.is_finite() && choices[*i].quality.is_finite();
    let mut order: Vec<usize> = (0..choices.len()).filter(finite).collect();
    order.sort_by(|a, b| {
        let (a, b) = (choices[*a], choices[*b]);
        a.work.total_cmp(&b.work).then(b.quality.total_cmp(&a.quality))
    });
    let mut corners: Vec<usize> = Vec::new();
    let mut best = f64::NEG_INFINITY;
    for i in order {
        if choices[i].quality <= best {
            continue;
        }
        best = choices[i].quality;
        while let [.., a, b] = corners[..]
            && !bends(choices[a], choices[b], choices[i])
        {
            corners.pop();
        }
        corners.push(i);
    }
    corners
}

/// Whether `b` lies above the line from `a` to `c`.
fn bends(a: Choice, b: Choice, c: Choice) -> bool {
    (b.quality - a.quality) * (c.work - a.work) > (c.quality - a.quality) * (b.work - a.work)
}

/// The best mixture whose expected work is at most `most`; `None` if every choice costs more.
pub fn best_mixture(choices: &[Choice], most: f64) -> Option<Mixture> {
    let corners = frontier(choices);
    let affordable = corners.partition_point(|i| choices[*i].work <= most * (1.0 + ROUNDING));
    let low = *corners.get(affordable.checked_sub(1)?)?;
    let (from, high) = (choices[low], corners.get(affordable).map(|i| (*i, choices[*i])));
    Some(match high {
        Some((high, to)) if most > from.work * (1.0 + ROUNDING) => {
            let share = (most - from.work) / (to.work - from.work);
            let quality = from.quality + share * (to.quality - from.quality);
            let shares = vec![Share { choice: low, share: 1.0 - share }, Share { choice: high, share }];
            Mixture { shares, work: most, quality }
        }
        Some(_) | None => {
            let shares = vec![Share { choice: low, share: 1.0 }];
            Mixture { shares, work: from.work, quality: from.quality }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(points: &[(f64, f64)]) -> Vec<Choice> {
        points.iter().map(|&(work, quality)| Choice { work, quality }).collect()
    }

    #[test]
    fn corners_rise_and_bend() {
        // In order: under the line, a corner, one that costs more for less, the first, of equals the dearer,
        // not finite, the last.
        let all = choices(&[
            (0.4, 0.6),
            (0.5, 0.8),
            (0.6, 0.7),
            (0.2, 0.5),
            (0.7, 0.8),
            (0.1, f64::NAN),
            (1.0, 0.9),
            (0.2, 0.4),
        ]);
        assert_eq!(frontier(&all), [3, 1, 6]);
        assert_eq!(frontier(&choices(&[(0.5, 0.5), (1.0, 0.5)])), [0]);
        assert_eq!(frontier(&[]), [0usize; 0]);
    }

    #[test]
    fn a_mixture_does_the_given_work() {
        let all = choices(&[(1.0, 0.9), (0.5, 0.8), (0.2, 0.5)]);
        let mixed = best_mixture(&all, 0.625).unwrap();
        assert_eq!(mixed.shares, [Share { choice: 1, share: 0.75 }, Share { choice: 0, share: 0.25 }]);
        assert_eq!(mixed.work, 0.625);
        assert!((mixed.quality - 0.825).abs() < 1e-12);
    }

    #[test]
    fn a_choice_stands_alone_where_it_does_the_work_or_no_other_is_better() {
        let all = choices(&[(0.2, 0.5), (0.5, 0.8), (1.0, 0.7)]);
        let alone = |choice: usize| {
            let Choice { work, quality } = all[choice];
            Some(Mixture { shares: vec![Share { choice, share: 1.0 }], work, quality })
        };
        assert_eq!(best_mixture(&all, 0.2), alone(0));
        assert_eq!(best_mixture(&all, 0.2 - 1e-12), alone(0));
        assert_eq!(best_mixture(&all, 0.9), alone(1));
        assert_eq!(best_mixture(&all, 0.1), None);
    }
}

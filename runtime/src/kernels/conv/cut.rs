//! Things cut into parts as even as possible.

use std::ops::Range;

/// `total` things in `parts` parts, the first ones longer by one where they do not come out even.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub(super) parts: usize,
    each: usize,
    longer: usize,
}

impl Cut {
    /// The cut into `parts` parts; nothing has none.
    pub(super) fn into(total: usize, parts: usize) -> Cut {
        let (each, longer) = (total.checked_div(parts).unwrap_or(0), total.checked_rem(parts).unwrap_or(0));
        Cut { parts, each, longer }
    }

    /// The cut into parts of at most `most`, or of one if `most` is zero.
    pub(super) fn at_most(total: usize, most: usize) -> Cut {
        Cut::into(total, total.div_ceil(most.max(1)))
    }

    /// The length of the longest part.
    pub(super) fn longest(&self) -> usize {
        self.each + usize::from(self.longer > 0)
    }

    /// A part, without any division: tiles ask for theirs.
    pub(super) fn part(&self, index: usize) -> Range<usize> {
        let start = |index: usize| index * self.each + index.min(self.longer);
        start(index)..start(index + 1)
    }

    /// The parts in order.
    pub(super) fn iter(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.parts).map(move |index| self.part(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_even_and_cover_everything() {
        for (total, parts) in [(0, 0), (0, 1), (1, 1), (13, 5), (15, 5), (7, 9)] {
            let cut = Cut::into(total, parts);
            let covered: Vec<usize> = cut.iter().flatten().collect();
            assert_eq!(covered, (0..total).collect::<Vec<_>>());
            assert!(cut.iter().all(|part| (cut.longest().saturating_sub(1)..=cut.longest()).contains(&part.len())));
        }
        assert_eq!(Cut::at_most(13, 3).parts, 5);
        assert_eq!(Cut::at_most(13, 0).longest(), 1);
    }
}

//! The shortest epilogues: what joins finished sums one by one while they are in registers.

use super::Place;
use crate::kernels::Strided;

/// How many links a chain has at most: a residual, and a range that the sum is clipped to.
pub(crate) const MAX_LINKS: usize = 3;

/// How a value joins a sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Join {
    Add,
    /// The larger; NaN if either is NaN.
    Max,
    /// The smaller; NaN if either is NaN.
    Min,
}

/// A value per element, or per row, or one for all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) join: Join,
    /// Its column stride is 0 or 1.
    pub(crate) other: Strided,
}

/// A range that sums are clipped to: the larger of the sum and `lo`, then the smaller of that and `hi`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Clip {
    pub(crate) lo: f32,
    pub(crate) hi: f32,
}

impl Clip {
    /// The range, unless the two steps could not be made as one: `lo` is above `hi`, one of them is no number,
    /// or the sign of a zero would depend on the order.
    fn new(lo: f32, hi: f32) -> Option<Clip> {
        (lo <= hi && hi != 0.0).then_some(Clip { lo, hi })
    }

    /// What the last of `joins` do if they are known limits, and the joins before them.
    pub(super) fn split(joins: &[(Join, Place)]) -> (&[(Join, Place)], Option<Clip>) {
        let (before, clip) = match joins {
            [before @ .., (Join::Max, Place::Const(lo)), (Join::Min, Place::Const(hi))] => {
                (before, Clip::new(*lo, *hi))
            }
            [before @ .., (Join::Max, Place::Const(lo))] => (before, Clip::new(*lo, f32::INFINITY)),
            [before @ .., (Join::Min, Place::Const(hi))] => (before, Clip::new(f32::NEG_INFINITY, *hi)),
            _ => (joins, None),
        };
        (if clip.is_some() { before } else { joins }, clip)
    }
}

/// Links, in order, and a range after them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    links: [Link; MAX_LINKS],
    count: usize,
    pub(crate) clip: Option<Clip>,
}

impl Links {
    /// Nothing joins.
    pub(crate) const NONE: Links = {
        let other = Strided { ptr: std::ptr::null(), row: 0, column: 0 };
        Links { links: [Link { join: Join::Add, other }; MAX_LINKS], count: 0, clip: None }
    };

    /// These links, [`MAX_LINKS`] at most, and a range.
    pub(crate) fn of(links: impl IntoIterator<Item = Link>, clip: Option<Clip>) -> Links {
        let mut all = Links { clip, ..Links::NONE };
        for (to, link) in all.links.iter_mut().zip(links) {
            *to = link;
            all.count += 1;
        }
        all
    }

    /// The links of the part of C that starts at `row` and `column`.
    pub(crate) fn at(mut self, row: usize, column: usize) -> Links {
        self.links[..self.count].iter_mut().for_each(|link| link.other = link.other.at(row, column));
        self
    }

    /// The links.
    pub(crate) fn all(&self) -> &[Link] {
        &self.links[..self.count]
    }
}

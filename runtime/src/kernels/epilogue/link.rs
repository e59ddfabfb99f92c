//! The shortest epilogues: what joins finished sums one by one while they are in registers.

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

/// Links, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    links: [Link; MAX_LINKS],
    count: usize,
}

impl Links {
    /// Nothing joins.
    pub(crate) const NONE: Links = {
        let other = Strided { ptr: std::ptr::null(), row: 0, column: 0 };
        Links { links: [Link { join: Join::Add, other }; MAX_LINKS], count: 0 }
    };

    /// These links, [`MAX_LINKS`] at most.
    pub(crate) fn of(links: impl IntoIterator<Item = Link>) -> Links {
        let mut all = Links::NONE;
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

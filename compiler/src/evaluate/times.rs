//! Wall times of several forms of a model on the same rows, interleaved, so that noise hits them alike.

use std::time::Instant;

use eec_runtime::{Control, Runner};

use crate::Error;
use crate::capture::BATCH;
use crate::dataset::Dataset;
use crate::progress::Progress;

/// Mean wall times in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// One sample.
    pub(super) one: f64,
    /// A batch of [`BATCH`].
    pub(super) many: f64,
}

/// Samples timed one at a time; spread over the data, so that easy and hard ones have their share.
const TIMED: usize = 256;
/// Batches timed.
const TIMED_BATCHES: usize = 12;

/// Times all forms. The time of one sample is the mean over samples (a median would hide the hard
/// ones) of the least of three runs.
pub(super) fn time_forms(
    sessions: &mut [&mut dyn Runner],
    data: &Dataset,
    progress: &dyn Progress,
) -> Result<Vec<Times>, Error> {
    let singles = spread(data.rows, TIMED, 1);
    let batches = spread(data.rows, TIMED_BATCHES, BATCH.min(data.rows));
    progress.begin("timing", singles.len() + batches.len());
    let one = time_rows(sessions, data, &singles, 1, progress)?;
    let many = time_rows(sessions, data, &batches, BATCH.min(data.rows), progress)?;
    progress.end();
    Ok(one.into_iter().zip(many).map(|(one, many)| Times { one, many }).collect())
}

/// Up to `count` starts of `len` rows, evenly spread.
pub(super) fn spread(rows: usize, count: usize, len: usize) -> Vec<usize> {
    let room = rows + 1 - len.min(rows);
    let count = count.min(room);
    (0..count).map(|i| i * room / count).collect()
}

fn time_rows(
    sessions: &mut [&mut dyn Runner],
    data: &Dataset,
    starts: &[usize],
    len: usize,
    progress: &dyn Progress,
) -> Result<Vec<f64>, Error> {
    const REPEATS: usize = 3;
    let mut sums = vec![0.0; sessions.len()];
    for start in starts {
        let inputs = data.batch(*start, start + len);
        let mut best = vec![f64::INFINITY; sessions.len()];
        for _ in 0..REPEATS {
            for (session, best) in sessions.iter_mut().zip(&mut best) {
                let clock = Instant::now();
                session.run(&inputs, Control::Auto)?;
                *best = best.min(clock.elapsed().as_secs_f64() * 1e3);
            }
        }
        sums.iter_mut().zip(&best).for_each(|(sum, b)| *sum += b);
        progress.advance(1);
    }
    Ok(sums.into_iter().map(|s| s / starts.len().max(1) as f64).collect())
}

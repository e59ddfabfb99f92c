//! What this machine can do at most, measured: multiply-adds from registers, and reading memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::kernels::simd::Isa;
use crate::pool::Pool;
use crate::session::threads;

/// Limits of a number of threads together.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// Multiply-accumulates per second in float32.
    pub macs_per_second: f64,
    /// Bytes per second read from memory, beyond the caches.
    pub bytes_per_second: f64,
}

/// How long each limit is measured.
const WINDOW: Duration = Duration::from_millis(60);

/// Elements that all threads together read: more than caches hold on most machines.
const ELEMENTS: usize = 64 << 20;

/// The most elements that one thread reads.
const MAX_SHARE: usize = 16 << 20;

/// Steps between two looks at the clock.
const STEPS: usize = 1 << 14;

impl Limits {
    /// Measures the limits of `wanted` threads (0: all cores), which takes some 200 ms.
    pub fn measure(wanted: usize) -> Limits {
        let pool = Pool::new(threads(wanted));
        let isa = Isa::get();
        // SAFETY: the set was chosen for this CPU.
        let compute = rate(&pool, &|_| unsafe { (isa.compute)(STEPS) } * isa.lanes);
        // Not zeros: those the system may map to one page.
        let values = vec![1.0f32; (ELEMENTS / pool.threads()).min(MAX_SHARE) * pool.threads()];
        let share = values.len() / pool.threads();
        let read = rate(&pool, &|thread| {
            // SAFETY: as above.
            std::hint::black_box(unsafe { (isa.read)(&values[thread * share..][..share]) });
            share * size_of::<f32>()
        });
        Limits { macs_per_second: compute, bytes_per_second: read }
    }
}

/// What `work` gives per second when every thread does it over and over.
fn rate(pool: &Pool, work: &(dyn Fn(usize) -> usize + Sync)) -> f64 {
    let done = AtomicUsize::new(0);
    let start = Instant::now();
    pool.run(pool.threads(), 1, &|part| {
        for thread in part {
            let mut sum = 0;
            while start.elapsed() < WINDOW {
                sum += work(thread);
            }
            done.fetch_add(sum, Ordering::Relaxed);
        }
    });
    done.into_inner() as f64 / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_some_machine() {
        let limits = Limits::measure(1);
        for rate in [limits.macs_per_second, limits.bytes_per_second] {
            assert!(rate.is_finite() && rate > 0.0, "{limits:?}");
        }
    }
}

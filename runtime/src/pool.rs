//! A small thread pool for kernels: workers spin while a run lasts and briefly after it, then park;
//! the caller takes part in every job. Work is a range of items, claimed in chunks through one atomic
//! counter.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::seat::Seat;

/// How long an idle worker spins before it parks once no run lasts: longer than the gap between two
/// inferences of a loop, shorter than anything a user would see on a power meter.
const SPIN: Duration = Duration::from_micros(200);

/// Rounds of 64 looks at the state after which a spinning worker yields.
const YIELD: u32 = 64;

/// Chunks per thread that a job aims for, so that a late or slow thread costs little.
const CHUNKS_PER_THREAD: usize = 4;

/// Layout of [`Shared::state`]: the job number above `EPOCH`, whether workers may join it, and how
/// many are inside it.
const OPEN: u64 = 1 << 16;
const EPOCH: u64 = 1 << 17;
const INSIDE: u64 = OPEN - 1;

/// Threads of a pool at most: a system that is out of memory for stacks ends the process.
const MAX_THREADS: usize = 1024;

/// What a job runs on each claimed range of items.
type Body<'a> = dyn Fn(Range<usize>) + Sync + 'a;

/// A job as the workers see it; valid while its caller is inside [`Pool::run`].
#[derive(Clone, Copy)]
struct Job {
    body: *const Body<'static>,
    items: usize,
    chunk: usize,
}

struct Shared {
    state: AtomicU64,
    next: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    busy: AtomicBool,
    /// Runs that last: workers that are awake stay so, since waking one takes longer than many kernels.
    runs: AtomicUsize,
    stop: AtomicBool,
    parked: Box<[AtomicBool]>,
    seats: Box<[Seat]>,
}

// SAFETY: `job` is the only field that is not already shareable. It is written by the one caller
// that holds `busy`, while the state is closed with nobody inside, and read only from inside.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is never followed outside `Pool::run`, which owns what it points to.
unsafe impl Send for Shared {}

/// A fixed set of worker threads that run one job at a time.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads, of which the caller of [`Pool::run`] is one.
    ///
    /// The pool is smaller above [`MAX_THREADS`] and if the system refuses a thread; results do not
    /// depend on its size.
    pub(crate) fn new(threads: usize) -> Pool {
        let count = threads.min(MAX_THREADS).saturating_sub(1);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            busy: AtomicBool::new(false),
            runs: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            parked: (0..count).map(|_| AtomicBool::new(false)).collect(),
            seats: (0..count).map(|_| Seat::new()).collect(),
        });
        let spawn = |index| {
            let shared = Arc::clone(&shared);
            let builder = thread::Builder::new().name(format!("eec-worker-{index}"));
            builder.spawn(move || shared.work(index)).ok()
        };
        let workers = (0..count).map_while(spawn).collect();
        Pool { shared, workers }
    }

    /// The number of threads that take part in a job, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Keeps workers awake between jobs, from their first job on, until the result is dropped.
    pub(crate) fn keep_awake(&self) -> Awake<'_> {
        self.shared.runs.fetch_add(1, Ordering::Relaxed);
        Awake { shared: &self.shared }
    }

    /// Runs `body` on ranges that together cover `0..items`, each at least `grain` long except the
    /// last, and returns when all are done.
    ///
    /// Runs inline when there is one thread, when the items fit one grain, and when the pool is
    /// already in a job (a nested or a concurrent call). A panic in `body` is raised again here,
    /// after every thread has left the job.
    pub(crate) fn run(&self, items: usize, grain: usize, body: &Body<'_>) {
        if items == 0 {
            return;
        }
        let grain = grain.max(1);
        if items <= grain || self.workers.is_empty() || self.shared.busy.swap(true, Ordering::Acquire) {
            return body(0..items);
        }
        let chunk = grain.max(items.div_ceil(self.threads() * CHUNKS_PER_THREAD));
        // SAFETY: only the lifetime changes. `Running` closes the job and waits for everyone
        // inside before this function returns or unwinds, so nobody uses `body` after it.
        let body = unsafe { std::mem::transmute::<&Body<'_>, &'static Body<'static>>(body) };
        let job = Job { body, items, chunk };
        let running = self.start(job);
        self.shared.claim(job);
        drop(running);
    }

    /// Publishes a job and wakes as many parked workers as it has chunks for.
    fn start(&self, job: Job) -> Running<'_> {
        let shared = &*self.shared;
        // SAFETY: this thread holds `busy`, and the job before was closed and left by all.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.store(0, Ordering::Relaxed);
        shared.state.fetch_add(EPOCH | OPEN, Ordering::SeqCst);
        let helpers = (job.items.div_ceil(job.chunk) - 1).min(self.workers.len());
        let waiting = self.workers.iter().zip(&shared.parked).zip(&shared.seats);
        for ((worker, parked), seat) in waiting.take(helpers) {
            if parked.swap(false, Ordering::SeqCst) {
                seat.avoid_this_cpu();
                worker.thread().unpark();
            }
        }
        Running { shared }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its jobs, so there is nothing to report here.
            let _ = worker.join();
        }
    }
}

/// A run that lasts; see [`Pool::keep_awake`].
pub(crate) struct Awake<'a> {
    shared: &'a Shared,
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.shared.runs.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An open job; dropping it closes the job and waits for the workers inside, also on a panic.
struct Running<'a> {
    shared: &'a Shared,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let shared = self.shared;
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while shared.state.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins.is_multiple_of(1024) {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.busy.store(false, Ordering::Release);
        if let Some(panic) = panic
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// A worker's life: wait for a job, join it, help, leave.
    fn work(&self, index: usize) {
        self.seats[index].take();
        let mut seen = 0;
        while let Some(epoch) = self.wait(index, seen) {
            seen = epoch;
            if !self.join(epoch) {
                continue;
            }
            // SAFETY: this thread is inside the job, so the slot is not being written.
            let job = unsafe { *self.job.get() };
            let result = catch_unwind(AssertUnwindSafe(|| job.map(|job| self.claim(job))));
            if let Err(panic) = result {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// The number of the next open job after `seen`, or `None` when the pool stops.
    fn wait(&self, index: usize, seen: u64) -> Option<u64> {
        let (mut idle_since, mut rounds) = (None, 0u32);
        loop {
            for _ in 0..64 {
                if let Some(epoch) = self.open_after(seen) {
                    return Some(epoch);
                }
                std::hint::spin_loop();
            }
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            rounds += 1;
            if self.runs.load(Ordering::Relaxed) > 0 {
                idle_since = None;
                if rounds.is_multiple_of(YIELD) {
                    // Where there are more threads than cores, another one may have the work.
                    thread::yield_now();
                }
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() >= SPIN {
                self.park(index, seen);
                idle_since = None;
            }
        }
    }

    /// Parks until a caller clears the flag. The flag is set before the last look at the state and
    /// callers look at it after they change the state, so no wake-up is lost.
    fn park(&self, index: usize, seen: u64) {
        let parked = &self.parked[index];
        parked.store(true, Ordering::SeqCst);
        while parked.load(Ordering::SeqCst) {
            if self.stop.load(Ordering::SeqCst) || self.open_after(seen).is_some() {
                parked.store(false, Ordering::SeqCst);
                return;
            }
            thread::park();
        }
    }

    fn open_after(&self, seen: u64) -> Option<u64> {
        let state = self.state.load(Ordering::SeqCst);
        let epoch = state / EPOCH;
        (state & OPEN != 0 && epoch != seen).then_some(epoch)
    }

    /// Enters the job `epoch`, unless it is closed by now.
    fn join(&self, epoch: u64) -> bool {
        let enter = |state: u64| (state / EPOCH == epoch && state & OPEN != 0).then_some(state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, enter).is_ok()
    }

    /// Claims and runs chunks until none are left.
    fn claim(&self, job: Job) {
        // SAFETY: the caller is in `Pool::run` or inside the job, so what `body` points to lives.
        let body = unsafe { &*job.body };
        loop {
            let begin = self.next.fetch_add(job.chunk, Ordering::Relaxed);
            if begin >= job.items {
                return;
            }
            body(begin..job.items.min(begin.saturating_add(job.chunk)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers_once(pool: &Pool, items: usize, grain: usize) {
        let hits: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
        pool.run(items, grain, &|range| {
            for i in range {
                hits[i].fetch_add(1, Ordering::Relaxed);
            }
        });
        assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1), "{items} items, grain {grain}");
    }

    #[test]
    fn every_item_runs_exactly_once() {
        for threads in [0, 1, 2, 5] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for round in 0..200 {
                covers_once(&pool, round % 37, round % 5);
            }
            thread::sleep(Duration::from_millis(2));
            covers_once(&pool, 1000, 1);
        }
    }

    #[test]
    fn a_pool_has_a_size_that_systems_bear() {
        let pool = Pool::new(100_000);
        assert!((1..=MAX_THREADS).contains(&pool.threads()));
        covers_once(&pool, 5000, 1);
    }

    #[test]
    fn a_panic_is_raised_at_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for bad in [0, 57, 99] {
            let run = || pool.run(100, 1, &|range| assert!(!range.contains(&bad), "item {bad}"));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            covers_once(&pool, 100, 1);
        }
    }

    #[test]
    fn nested_and_concurrent_runs_fall_back_to_inline() {
        let pool = Pool::new(2);
        let count = AtomicUsize::new(0);
        let inner = |range: Range<usize>| {
            count.fetch_add(range.len(), Ordering::Relaxed);
        };
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(8, 1, &|range| range.for_each(|_| pool.run(10, 1, &inner)));
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 3 * 50 * 8 * 10);
    }
}

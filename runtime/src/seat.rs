//! Where a worker wakes up: not on the CPU of the caller that wakes it.
//!
//! Schedulers put a woken thread on a CPU that they take for idle. In a virtual machine, Linux does not take a
//! CPU that has slept for long for one, since its host may have taken it away, and leaves the thread on its
//! waker's CPU, where the two then take turns for some milliseconds: for as long as a small model runs.

#[cfg(target_os = "linux")]
pub(crate) use linux::Seat;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::Seat;

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// No CPU is avoided.
    const NONE: usize = usize::MAX;

    /// A worker's thread, the CPUs that it was given, and the one that it avoids.
    pub(crate) struct Seat {
        thread: OnceLock<(Pid, CpuSet)>,
        avoided: AtomicUsize,
    }

    impl Seat {
        /// The seat of a thread that is yet to come.
        pub(crate) fn new() -> Seat {
            Seat { thread: OnceLock::new(), avoided: AtomicUsize::new(NONE) }
        }

        /// The calling thread takes the seat.
        pub(crate) fn take(&self) {
            if let Ok(allowed) = sched_getaffinity(None) {
                self.thread.get_or_init(|| (gettid(), allowed));
            }
        }

        /// Keeps the thread off the calling thread's CPU, if it was given others, until another one is avoided.
        /// What the system refuses stays as it is.
        pub(crate) fn avoid_this_cpu(&self) {
            let Some((thread, allowed)) = self.thread.get() else { return };
            let cpu = sched_getcpu();
            if self.avoided.swap(cpu, Ordering::Relaxed) == cpu || cpu >= CpuSet::MAX_CPU {
                return;
            }
            let mut others = *allowed;
            others.unset(cpu);
            if others.count() > 0 {
                let _ = sched_setaffinity(Some(*thread), &others);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::sync::mpsc;

        use super::*;

        #[test]
        fn a_seated_thread_leaves_the_callers_cpu() {
            let (seat, (ready, is_ready), (stop, is_stopped)) = (Seat::new(), mpsc::channel(), mpsc::channel::<()>());
            std::thread::scope(|scope| {
                let seat = &seat;
                let worker = scope.spawn(move || {
                    seat.take();
                    ready.send(()).unwrap();
                    is_stopped.recv().unwrap();
                    sched_getaffinity(None).unwrap()
                });
                is_ready.recv().unwrap();
                let allowed = sched_getaffinity(None).unwrap();
                seat.avoid_this_cpu();
                let avoided = seat.avoided.load(Ordering::Relaxed);
                stop.send(()).unwrap();
                let mut expected = allowed;
                if allowed.count() > 1 {
                    expected.unset(avoided);
                }
                assert!(worker.join().unwrap() == expected, "CPU {avoided} of {}", allowed.count());
            });
        }

        #[test]
        fn an_empty_seat_changes_nothing() {
            let seat = Seat::new();
            seat.avoid_this_cpu();
            assert_eq!(seat.avoided.load(Ordering::Relaxed), NONE);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// Other schedulers are left to themselves.
    pub(crate) struct Seat;

    impl Seat {
        pub(crate) fn new() -> Seat {
            Seat
        }

        pub(crate) fn take(&self) {}

        pub(crate) fn avoid_this_cpu(&self) {}
    }
}

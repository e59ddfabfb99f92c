//! What generated code and the runtime share while a program runs: the tables that code reads, and
//! the functions that it calls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::call::{ALWAYS, NEVER};
use crate::host::Calls;
use crate::kernels::Strided;
use crate::kernels::attention::{AttentionArgs, attention};
use crate::kernels::conv::{ConvArgs, Filters, conv};
use crate::kernels::epilogue::{Finish, Operand, Steps};
use crate::kernels::image::{Image, Window};
use crate::kernels::math::Function;
use crate::kernels::pool2d::{PoolArgs, PoolKind, pool2d};
use crate::kernels::scratch::NoMemory;
use crate::kernels::simd::Isa;
use crate::pack::Packed;
use crate::pool::Pool;
use crate::products::{run_matmul, run_matmuls};

/// The tables of one run; generated code knows this layout.
#[repr(C)]
pub(crate) struct Context {
    /// First byte of every buffer.
    pub(crate) buffers: *mut *mut u8,
    /// The same before any of them stood for another one.
    pub(crate) homes: *const *mut u8,
    /// Values of the symbols.
    pub(crate) symbols: *mut i64,
    /// Per exit, then per gate: a control word.
    pub(crate) controls: *const i64,
    /// MACs, then rows per exit, then rows per gate, then runs per kernel, then the measures of each.
    pub(crate) counters: *mut u64,
    /// 0, or a [`Fault`] in the upper half and in the lower one the number of the kernel, of a loop's block or of a
    /// symbol.
    pub(crate) error: AtomicU64,
    /// Steps that loops may still make.
    pub(crate) steps: u64,
    /// What generated code calls.
    pub(crate) callees: &'static Callees,
    /// What the functions need besides.
    pub(crate) host: *const Host,
}

/// The functions that generated code calls, by their addresses; generated code knows this layout.
#[repr(C)]
pub(crate) struct Callees {
    pub(crate) run_loop: unsafe extern "C" fn(*const Context, LoopFn, *const i64, i64, i64),
    pub(crate) run_matmul: unsafe extern "C" fn(*const Context, *const i64),
    pub(crate) run_matmuls: unsafe extern "C" fn(*const Context, *const i64, i64),
    pub(crate) run_attention: unsafe extern "C" fn(*const Context, *const i64),
    pub(crate) run_conv: unsafe extern "C" fn(*const Context, *const i64),
    pub(crate) run_pool: unsafe extern "C" fn(*const Context, *const i64),
    pub(crate) run_scan: unsafe extern "C" fn(*const Context, *const i64),
    pub(crate) run_host: unsafe extern "C" fn(*const Context, *const i64),
    pub(crate) count_rows: unsafe extern "C" fn(*const u8, i64, i64) -> i64,
    pub(crate) gather_rows: unsafe extern "C" fn(*mut u8, *const u8, *const u8, i64, i64, i64),
    pub(crate) scatter_rows: unsafe extern "C" fn(*mut u8, *const u8, *const u8, i64, i64, i64),
    pub(crate) copy_bytes: unsafe extern "C" fn(*mut u8, *const u8, i64),
    pub(crate) zero_bytes: unsafe extern "C" fn(*mut u8, i64),
    pub(crate) clock: unsafe extern "C" fn(*const Context) -> i64,
    pub(crate) apply: unsafe extern "C" fn(i64, *mut f32, i64),
    pub(crate) sin: extern "C" fn(f32) -> f32,
    pub(crate) cos: extern "C" fn(f32) -> f32,
    pub(crate) pow: extern "C" fn(f32, f32) -> f32,
}

/// The runtime's own.
pub(crate) static CALLEES: Callees = Callees {
    run_loop,
    run_matmul,
    run_matmuls,
    run_attention,
    run_conv,
    run_pool,
    run_scan,
    run_host,
    count_rows,
    gather_rows,
    scatter_rows,
    copy_bytes,
    zero_bytes,
    clock,
    apply,
    sin,
    cos,
    pow,
};

/// Counters per measured kernel: nanoseconds, multiply-accumulates, bytes.
pub(crate) const MEASURES: usize = 3;

/// Byte offsets of the fields of [`Context`].
#[cfg(feature = "codegen")]
pub(crate) mod field {
    use super::Context;
    use std::mem::offset_of;

    pub(crate) const BUFFERS: i32 = offset_of!(Context, buffers) as i32;
    pub(crate) const HOMES: i32 = offset_of!(Context, homes) as i32;
    pub(crate) const SYMBOLS: i32 = offset_of!(Context, symbols) as i32;
    pub(crate) const CONTROLS: i32 = offset_of!(Context, controls) as i32;
    pub(crate) const COUNTERS: i32 = offset_of!(Context, counters) as i32;
    pub(crate) const CALLEES: i32 = offset_of!(Context, callees) as i32;
    pub(crate) const ERROR: i32 = offset_of!(Context, error) as i32;
    pub(crate) const STEPS: i32 = offset_of!(Context, steps) as i32;
}

/// What can go wrong during a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A computed index is out of range.
    Index = 1,
    /// An integer was divided by zero.
    Division = 2,
    /// A kernel panicked: a bug.
    Internal = 3,
    /// There was no memory for a kernel's scratch.
    Memory = 4,
    /// An operator that the host runs was given what it cannot compute with.
    Host = 5,
    /// The loops of a run take more steps than they may.
    Steps = 6,
    /// Data gives a number that is no size there.
    Size = 7,
    /// Sizes that must be equal are not.
    Unequal = 8,
}

impl Fault {
    /// The fault of a nonzero error slot, and the number of its kernel, block or symbol.
    pub(crate) fn decode(code: u64) -> (Fault, usize) {
        let fault = match code >> 32 {
            1 => Fault::Index,
            2 => Fault::Division,
            4 => Fault::Memory,
            5 => Fault::Host,
            6 => Fault::Steps,
            7 => Fault::Size,
            8 => Fault::Unequal,
            _ => Fault::Internal,
        };
        (fault, code as u32 as usize)
    }
}

/// What the functions that generated code calls need besides the tables.
pub(crate) struct Host {
    /// The threads.
    pub(crate) pool: Pool,
    /// Packed weights.
    pub(crate) packed: Packed,
    /// What follows the sums of every kernel.
    pub(crate) epilogues: Vec<Option<Steps>>,
    /// Operators that are run by their evaluators.
    pub(crate) calls: Calls,
    /// What [`clock`] counts from.
    pub(crate) start: Instant,
}

/// Operations that are worth handing to another thread.
const GRAIN: i64 = 1 << 15;

/// Runs `f` with the host; a panic or a want of scratch memory becomes a fault of kernel `kernel`,
/// since it must not unwind through generated code.
///
/// # Safety
///
/// `context` points to the tables of the current run.
pub(crate) unsafe fn guarded(context: *const Context, kernel: i64, f: impl FnOnce(&Host)) {
    // SAFETY: the caller's promise; the host outlives the run.
    let (error, host) = unsafe { (&(*context).error, &*(*context).host) };
    if let Err(why) = catch_unwind(AssertUnwindSafe(|| f(host))) {
        let fault = if why.is::<NoMemory>() { Fault::Memory } else { Fault::Internal };
        error.fetch_max((fault as u64) << 32 | kernel as u64, Ordering::Relaxed);
    }
}

pub(crate) type LoopFn = unsafe extern "C" fn(*const i64, i64, i64);

/// Addresses that cross threads inside a job; the pool's job ends before they do.
#[derive(Clone, Copy)]
struct Shared<T>(T);

// SAFETY: the job only calls generated code with these addresses, on disjoint ranges.
unsafe impl<T> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    fn get(&self) -> T {
        self.0
    }
}

/// Runs a loop over `0..total`; `work` is the operations per index.
pub(crate) unsafe extern "C" fn run_loop(
    context: *const Context,
    code: LoopFn,
    args: *const i64,
    total: i64,
    work: i64,
) {
    let grain = (GRAIN / work.max(1)).max(1);
    let Ok(items) = usize::try_from(total) else { return };
    let shared = Shared((code, args));
    // SAFETY: generated code passes its own context, a compiled loop and that loop's arguments.
    unsafe {
        guarded(context, *args.add(1), |host| {
            host.pool.run(items, grain as usize, &|range| {
                let (code, args) = shared.get();
                code(args, range.start as i64, range.end as i64);
            });
        });
    }
}

/// The steps of a kernel's epilogue.
pub(crate) fn steps_of(host: &Host, kernel: i64) -> Option<&Steps> {
    host.epilogues.get(kernel as usize)?.as_ref()
}

/// The operands of a kernel's epilogue.
pub(crate) fn operands_of(host: &Host, kernel: i64) -> usize {
    steps_of(host, kernel).map_or(0, |steps| steps.operands)
}

/// A matrix: address, row and column stride.
pub(crate) fn matrix(words: &[i64]) -> Strided {
    Strided { ptr: words[0] as *const f32, row: words[1] as isize, column: words[2] as isize }
}

/// The words of an attention: sizes and views, then size and strides of each of three batch axes.
pub(crate) const ATTENTION_WORDS: usize = 41;

/// Runs an attention. The words are: kernel, m, n, d, width, then address, row and column stride of q, k,
/// v, the mask (or zeros) and c, the bits of the scale, whether NaN is replaced and by what bits, then per
/// batch axis its size and the strides of q, k, v, the mask and c.
pub(crate) unsafe extern "C" fn run_attention(context: *const Context, words: *const i64) {
    // SAFETY: generated code passes its context and as many words.
    unsafe {
        let words = std::slice::from_raw_parts(words, ATTENTION_WORDS);
        let matrix = |at: usize| matrix(&words[at..]);
        let axes = [23, 29, 35];
        let strides = |operand: usize| axes.map(|at| words[at + 1 + operand] as isize);
        let args = AttentionArgs {
            batch: axes.map(|at| words[at] as usize),
            m: words[1] as usize,
            n: words[2] as usize,
            d: words[3] as usize,
            width: words[4] as usize,
            q: (matrix(5), strides(0)),
            k: (matrix(8), strides(1)),
            v: (matrix(11), strides(2)),
            mask: (words[14] != 0).then(|| (matrix(14), strides(3))),
            c: (words[17] as *mut f32, strides(4)),
            c_row: words[18] as isize,
            scale: f32::from_bits(words[20] as u32),
            instead_of_nan: (words[21] != 0).then_some(f32::from_bits(words[22] as u32)),
        };
        guarded(context, words[0], |host| attention(&host.pool, &args));
    }
}

fn pair(words: &[i64]) -> [usize; 2] {
    [words[0] as usize, words[1] as usize]
}

/// Images: an address and strides.
fn image(words: &[i64]) -> Image {
    let [image, channel, row, column] = [1, 2, 3, 4].map(|i| words[i] as isize);
    Image { ptr: words[0] as *const f32, image, channel, row, column }
}

/// The words of a convolution.
pub(crate) const CONV_WORDS: usize = 26;

/// Runs a convolution. The words are: kernel, x dims, w dims, y size, group, strides, dilations,
/// pads, then the address of x and its strides, the addresses of w, the bias and y; then for every operand of the
/// epilogue its address and the strides of positions, channels and images.
pub(crate) unsafe extern "C" fn run_conv(context: *const Context, words: *const i64) {
    // SAFETY: generated code passes its context and as many words as the kernel's epilogue needs.
    unsafe {
        guarded(context, *words, |host| {
            let words = std::slice::from_raw_parts(words, CONV_WORDS + 4 * operands_of(host, *words));
            conv_words(host, words);
        });
    }
}

/// # Safety
///
/// The words describe operands whose bounds were checked before the run.
unsafe fn conv_words(host: &Host, words: &[i64]) {
    let (words, operands) = words.split_at(CONV_WORDS);
    let operand = |w: &[i64]| Operand { matrix: matrix(w), batch: [0, 0, w[3] as isize] };
    let operands: Vec<Operand> = operands.chunks_exact(4).map(operand).collect();
    let window = Window {
        size: pair(&words[3..]),
        out_size: pair(&words[9..]),
        kernel: pair(&words[7..]),
        stride: pair(&words[12..]),
        dilation: pair(&words[14..]),
        pad: pair(&words[16..]),
    };
    let filters = Filters {
        in_channels: words[2] as usize,
        out_channels: words[5] as usize,
        groups: words[11] as usize,
        kernel: window.kernel,
    };
    let packed = host.packed.of_kernel(words[0]);
    let args = ConvArgs {
        x: image(&words[18..]),
        w: words[23] as *const f32,
        packed: packed.map_or(std::ptr::null(), |(packed, _)| packed.as_ptr()),
        bias: words[24] as *const f32,
        y: words[25] as *mut f32,
        images: words[1] as usize,
        filters,
        window,
        epilogue: steps_of(host, words[0]).map(|steps| Finish { steps, operands: &operands }),
    };
    // SAFETY: the caller's promise.
    unsafe { conv(&host.pool, &args) }
}

/// The words of a pooling.
pub(crate) const POOL_WORDS: usize = 24;

/// Runs a pooling. The words are: kernel, x dims, y size, window, strides, dilations, pads, kind, then the
/// address of x and its strides, and the address of y.
pub(crate) unsafe extern "C" fn run_pool(context: *const Context, words: *const i64) {
    // SAFETY: generated code passes its context and as many words.
    unsafe {
        let words = std::slice::from_raw_parts(words, POOL_WORDS);
        let kind = match words[17] {
            0 => PoolKind::Max,
            1 => PoolKind::Average,
            _ => PoolKind::AverageWithPad { pad_end: pair(&words[15..]) },
        };
        let args = PoolArgs {
            x: image(&words[18..]),
            y: words[23] as *mut f32,
            images: words[1] as usize,
            channels: words[2] as usize,
            window: Window {
                size: pair(&words[3..]),
                out_size: pair(&words[5..]),
                kernel: pair(&words[7..]),
                stride: pair(&words[9..]),
                dilation: pair(&words[11..]),
                pad: pair(&words[13..]),
            },
            kind,
        };
        guarded(context, words[0], |host| pool2d(&host.pool, &args));
    }
}

/// The words of a running sum.
pub(crate) const SCAN_WORDS: usize = 9;

/// Runs a running sum. The words are: kernel, element type (0 f32, 1 i64, 2 i32), outer, length,
/// inner, exclusive, reverse, then the addresses of x and y.
pub(crate) unsafe extern "C" fn run_scan(context: *const Context, words: *const i64) {
    // SAFETY: generated code passes its context and as many words; bounds are checked before the run.
    unsafe {
        let words = std::slice::from_raw_parts(words, SCAN_WORDS);
        guarded(context, words[0], |host| match words[1] {
            0 => scan::<f32>(&host.pool, words, |a, b| a + b),
            1 => scan::<i64>(&host.pool, words, i64::wrapping_add),
            _ => scan::<i32>(&host.pool, words, i32::wrapping_add),
        });
    }
}

/// # Safety
///
/// x and y hold `outer · len · inner` elements of type `T`.
unsafe fn scan<T: Copy + Default>(pool: &Pool, words: &[i64], add: impl Fn(T, T) -> T + Sync) {
    let (outer, len, inner) = (words[2] as usize, words[3] as usize, words[4] as usize);
    let (exclusive, reverse) = (words[5] != 0, words[6] != 0);
    let shared = Shared((words[7] as *const T, words[8] as *mut T));
    let chains = outer.saturating_mul(inner);
    pool.run(chains, (GRAIN as usize / len.max(1)).max(1), &|range| {
        let (x, y) = shared.get();
        for chain in range {
            let first = chain / inner * len * inner + chain % inner;
            let mut sum = T::default();
            for step in 0..len {
                let at = first + inner * if reverse { len - 1 - step } else { step };
                // SAFETY: `at` is inside both tensors, and no other chain touches it.
                unsafe {
                    let next = add(sum, *x.add(at));
                    *y.add(at) = if exclusive { sum } else { next };
                    sum = next;
                }
            }
        }
    });
}

/// Runs an operator by its evaluator. The words are: kernel, then the addresses of operands and results.
pub(crate) unsafe extern "C" fn run_host(context: *const Context, words: *const i64) {
    // SAFETY: generated code passes its context and as many words as the kernel has operands and results,
    // whose sizes were checked before the run.
    unsafe {
        let kernel = *words;
        let (error, symbols) = (&(*context).error, (*context).symbols);
        guarded(context, kernel, |host| {
            if !host.calls.run(kernel as usize, words.add(1), symbols) {
                error.fetch_max((Fault::Host as u64) << 32 | kernel as u64, Ordering::Relaxed);
            }
        });
    }
}

/// How many of `rows` rows go to the first block.
pub(crate) unsafe extern "C" fn count_rows(mask: *const u8, rows: i64, control: i64) -> i64 {
    match control {
        NEVER => 0,
        ALWAYS => rows,
        // SAFETY: the mask has at least `rows` bytes, checked before the run.
        _ => {
            unsafe { std::slice::from_raw_parts(mask, rows.max(0) as usize) }.iter().filter(|b| **b != 0).count() as i64
        }
    }
}

/// Copies the rows of `from` whose mask is `wanted` to `to`, one after the other.
pub(crate) unsafe extern "C" fn gather_rows(
    to: *mut u8,
    from: *const u8,
    mask: *const u8,
    rows: i64,
    bytes: i64,
    wanted: i64,
) {
    let (bytes, mut next) = (bytes as usize, 0);
    for row in 0..rows as usize {
        // SAFETY: both buffers hold `rows` rows, checked before the run.
        unsafe {
            if i64::from(*mask.add(row) != 0) == wanted {
                std::ptr::copy_nonoverlapping(from.add(row * bytes), to.add(next * bytes), bytes);
                next += 1;
            }
        }
    }
}

/// Copies the rows of `from`, one after the other, to the rows of `to` whose mask is `wanted`.
pub(crate) unsafe extern "C" fn scatter_rows(
    to: *mut u8,
    from: *const u8,
    mask: *const u8,
    rows: i64,
    bytes: i64,
    wanted: i64,
) {
    let (bytes, mut next) = (bytes as usize, 0);
    for row in 0..rows as usize {
        // SAFETY: both buffers hold `rows` rows, checked before the run.
        unsafe {
            if i64::from(*mask.add(row) != 0) == wanted {
                std::ptr::copy(from.add(next * bytes), to.add(row * bytes), bytes);
                next += 1;
            }
        }
    }
}

/// Copies bytes; where they come from may overlap with where they go to.
pub(crate) unsafe extern "C" fn copy_bytes(to: *mut u8, from: *const u8, bytes: i64) {
    // SAFETY: both buffers hold so many bytes, checked before the run.
    unsafe { std::ptr::copy(from, to, bytes as usize) }
}

/// Makes bytes zeros; none if their number is negative.
pub(crate) unsafe extern "C" fn zero_bytes(to: *mut u8, bytes: i64) {
    // SAFETY: the buffer holds so many bytes, checked before the run.
    unsafe { std::ptr::write_bytes(to, 0, bytes.max(0) as usize) }
}

/// Nanoseconds since the session was made.
pub(crate) unsafe extern "C" fn clock(context: *const Context) -> i64 {
    // SAFETY: generated code passes its own context; the host outlives the run.
    let host = unsafe { &*(*context).host };
    host.start.elapsed().as_nanos() as i64
}

/// Replaces `len` floats by the function with this number of them.
pub(crate) unsafe extern "C" fn apply(function: i64, values: *mut f32, len: i64) {
    // SAFETY: generated code passes a function's number and scratch of its own with that many elements;
    // the set of kernels is one that this CPU has.
    unsafe {
        let values = std::slice::from_raw_parts_mut(values, len as usize);
        (Isa::get().apply)(Function::ALL[function as usize], values)
    }
}

/// sin, for arguments beyond the reach of generated code.
pub(crate) extern "C" fn sin(x: f32) -> f32 {
    f64::from(x).sin() as f32
}

/// cos, for arguments beyond the reach of generated code.
pub(crate) extern "C" fn cos(x: f32) -> f32 {
    f64::from(x).cos() as f32
}

/// Power.
pub(crate) extern "C" fn pow(x: f32, y: f32) -> f32 {
    f64::from(x).powf(f64::from(y)) as f32
}

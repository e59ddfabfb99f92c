//! The matrix products that generated code calls for: their words become arguments of the kernels.

use eec_ir::Precision;

use crate::context::{Context, Host, guarded, matrix, operands_of, steps_of};
use crate::kernels::epilogue::{Finish, Operand};
use crate::kernels::matmul::{BatchMatMulArgs, MatMulArgs, batch_matmul, matmuls};
use crate::kernels::narrow;
use crate::kernels::{Bias, Strided};

/// The words of a matrix product before the batch axes.
pub(crate) const MATMUL_WORDS: usize = 16;

/// Runs a matrix product. The words are: kernel, batch axes, m, n, k, then address, row and column stride of a, of b, address and row stride of c, address and stride of the
/// bias, the bits of the scale; then address, row and column stride of every operand of the epilogue; then
/// per batch axis its size and the strides of a, b, c and these operands.
pub(crate) unsafe extern "C" fn run_matmul(context: *const Context, words: *const i64) {
    // SAFETY: generated code passes its context and as many words as it says.
    unsafe {
        guarded(context, *words, |host| {
            let (axes, operands) = (*words.add(1) as usize, operands_of(host, *words));
            let words = std::slice::from_raw_parts(words, MATMUL_WORDS + 3 * operands + axes * (4 + operands));
            matmul_words(host, words);
        });
    }
}

/// Runs the `count` products of a job, 2 to [`MAX_PRODUCTS`](crate::jobs::MAX_PRODUCTS). Each has the
/// words of [`run_matmul`], with no batch axes, a bias of stride 1 and no operands of an epilogue.
pub(crate) unsafe extern "C" fn run_matmuls(context: *const Context, words: *const i64, count: i64) {
    // SAFETY: generated code passes its context and as many words as it says, which describe operands
    // whose bounds were checked before the run; jobs are made so that none reads what another writes.
    unsafe {
        let words = std::slice::from_raw_parts(words, MATMUL_WORDS * count as usize);
        guarded(context, words[0], |host| {
            let products = words.as_chunks().0;
            let packed: Option<Vec<_>> = products.iter().map(|words| packed_product(host, words)).collect();
            match packed.as_deref() {
                Some([a, b]) => job(host, [*a, *b]),
                Some([a, b, c]) => job(host, [*a, *b, *c]),
                Some([a, b, c, d]) => job(host, [*a, *b, *c, *d]),
                _ => products.iter().for_each(|words| matmul_words(host, words)),
            }
        });
    }
}

/// A product of a job, and how its weights are stored, if they are packed.
fn packed_product<'a>(host: &'a Host, words: &[i64; MATMUL_WORDS]) -> Option<(MatMulArgs<'a>, Precision)> {
    let epilogue = steps_of(host, words[0]).map(|steps| Finish { steps, operands: &[] });
    let call = BatchMatMulArgs { epilogue, ..product_of(words, bias_at(words)) };
    let (packed, precision) = host.packed.of_kernel(words[0])?;
    Some((call.packed(packed), precision))
}

/// Runs products whose weights are stored alike.
///
/// # Safety
///
/// As for [`matmuls`] and [`narrow::matmuls`].
unsafe fn job<const N: usize>(host: &Host, products: [(MatMulArgs, Precision); N]) {
    let precision = products[0].1;
    let products = products.map(|(args, _)| args);
    // SAFETY: the caller's promise.
    unsafe {
        match precision {
            Precision::F32 | Precision::F16 => matmuls(&host.pool, &products),
            Precision::Bf16 | Precision::Int8 => narrow::matmuls(&host.pool, &products, precision),
        }
    }
}

/// The bias of a product's words, contiguous.
fn bias_at(words: &[i64]) -> Bias {
    if words[13] == 0 { Bias::None } else { Bias::PerColumn(words[13] as *const f32) }
}

/// A product without its batch and epilogue.
fn product_of<'a>(words: &[i64], bias: Bias) -> BatchMatMulArgs<'a> {
    BatchMatMulArgs {
        batch: [1; 3],
        a: matrix(&words[5..]),
        a_batch: [0; 3],
        b: matrix(&words[8..]),
        b_batch: [0; 3],
        c: words[11] as *mut f32,
        c_batch: [0; 3],
        c_row: words[12] as isize,
        m: words[2] as usize,
        k: words[4] as usize,
        n: words[3] as usize,
        scale: f32::from_bits(words[15] as u32),
        bias,
        epilogue: None,
    }
}

/// # Safety
///
/// The words describe operands whose bounds were checked before the run.
unsafe fn matmul_words(host: &Host, words: &[i64]) {
    let (operands, axes) = words[MATMUL_WORDS..].split_at(3 * operands_of(host, words[0]));
    let mut operands: Vec<Operand> =
        operands.chunks_exact(3).map(|w| Operand { matrix: matrix(w), batch: [0; 3] }).collect();
    let mut axes: Vec<Vec<i64>> = axes.chunks_exact(4 + operands.len()).map(<[i64]>::to_vec).collect();
    if words[2] == 0 || axes.iter().any(|axis| axis[0] == 0) {
        return;
    }
    // SAFETY: the bias of a result with rows has `n` elements at its stride.
    let bias_copy = (words[13] != 0 && words[14] != 1).then(|| {
        (0..words[3] as isize)
            .map(|i| unsafe { *(words[13] as *const f32).offset(i * words[14] as isize) })
            .collect::<Vec<f32>>()
    });
    let bias = bias_copy.as_ref().map_or_else(|| bias_at(words), |copy| Bias::PerColumn(copy.as_ptr()));
    let mut call = product_of(words, bias);
    let packed = host.packed.of_kernel(words[0]);
    if packed.is_some() {
        take_longest_axis(&mut call, &mut operands, &mut axes);
    }
    call.epilogue = steps_of(host, words[0]).map(|steps| Finish { steps, operands: &operands });
    // SAFETY: the caller's promise.
    unsafe { matmul_axes(host, call, &axes, packed) }
}

/// Makes the longest axis of the batch the rows of a product, where it is longer than they are: packed
/// weights, which all products share, are then read for many rows at once.
fn take_longest_axis(call: &mut BatchMatMulArgs, operands: &mut [Operand], axes: &mut [Vec<i64>]) {
    let longest = axes.iter_mut().max_by_key(|axis| axis[0]);
    let Some(axis) = longest.filter(|axis| axis[0] > call.m as i64) else { return };
    let swap = |word: &mut i64, stride: &mut isize| *stride = std::mem::replace(word, *stride as i64) as isize;
    call.m = std::mem::replace(&mut axis[0], call.m as i64) as usize;
    swap(&mut axis[1], &mut call.a.row);
    swap(&mut axis[3], &mut call.c_row);
    for (word, operand) in axis[4..].iter_mut().zip(operands) {
        swap(word, &mut operand.matrix.row);
    }
}

/// Runs the products over all batch axes: the last three inside the kernel, the others one by one.
///
/// # Safety
///
/// As for [`matmul_words`].
unsafe fn matmul_axes(
    host: &Host,
    mut call: BatchMatMulArgs<'_>,
    axes: &[Vec<i64>],
    packed: Option<(&[f32], Precision)>,
) {
    let inside = if packed.is_some() { 0 } else { 3 };
    if axes.len() > inside {
        let (axis, axes) = (&axes[0], &axes[1..]);
        for i in 0..axis[0] as isize {
            let offset = |operand: usize| i * axis[1 + operand] as isize;
            let moved = |(at, o): (usize, &Operand)| {
                let ptr = o.matrix.ptr.wrapping_offset(offset(3 + at));
                Operand { matrix: Strided { ptr, ..o.matrix }, ..*o }
            };
            let operands: Vec<Operand> = call.operands().iter().enumerate().map(moved).collect();
            let mut part = call;
            part.a.ptr = call.a.ptr.wrapping_offset(offset(0));
            part.b.ptr = call.b.ptr.wrapping_offset(offset(1));
            part.c = call.c.wrapping_offset(offset(2));
            part.epilogue = call.epilogue.map(|e| Finish { operands: &operands, ..e });
            // SAFETY: index `i` of the axis is inside the checked bounds.
            unsafe { matmul_axes(host, part, axes, packed) };
        }
        return;
    }
    if let Some((packed, precision)) = packed {
        // SAFETY: `packed` holds this b; the other operands are checked.
        return unsafe { narrow::matmul(&host.pool, &call.packed(packed), precision) };
    }
    let mut operands = call.operands().to_vec();
    for (i, axis) in axes.iter().rev().enumerate() {
        let (at, stride) = (2 - i, |operand: usize| axis[1 + operand] as isize);
        call.batch[at] = axis[0] as usize;
        (call.a_batch[at], call.b_batch[at], call.c_batch[at]) = (stride(0), stride(1), stride(2));
        operands.iter_mut().enumerate().for_each(|(o, operand)| operand.batch[at] = stride(3 + o));
    }
    let epilogue = call.epilogue.map(|e| Finish { operands: &operands, ..e });
    // SAFETY: the caller's promise.
    unsafe { batch_matmul(&host.pool, &BatchMatMulArgs { epilogue, ..call }) }
}

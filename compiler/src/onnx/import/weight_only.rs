//! `MatMulNBits`: a product whose weights are stored in few bits, as exporters of language models write it. The
//! weights become floats when the model is read.
//!
//! Specification: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.

use eec_ir::{DType, Op, Tensor};

use super::super::error::{NodeResult, Refusal, refuse};
use super::contrib::biased;
use super::node::{Cx, Results};

/// How the weights are stored: every column of the product in blocks along its `k`.
struct Layout {
    k: usize,
    n: usize,
    bits: usize,
    block: usize,
    /// Bytes of a column of the weights.
    column: usize,
}

impl Layout {
    fn read(cx: &mut Cx) -> NodeResult<Layout> {
        let mut number = |name: &str, default: Option<i64>| {
            let value = cx.int(name)?.or(default).and_then(|v| usize::try_from(v).ok()).filter(|v| *v > 0);
            value.ok_or_else(|| Refusal::new(format!("needs a positive number `{name}`")))
        };
        let (k, n, bits, block) =
            (number("K", None)?, number("N", None)?, number("bits", Some(4))?, number("block_size", None)?);
        // A hint of how precisely to compute.
        cx.int("accuracy_level")?;
        let of_block = block.checked_mul(bits).filter(|b| [2, 4, 8].contains(&bits) && b.is_multiple_of(8));
        match of_block.and_then(|b| k.div_ceil(block).checked_mul(b / 8)) {
            Some(column) => Ok(Layout { k, n, bits, block, column }),
            None => refuse(format!("{bits} bits in blocks of {block} are not supported")),
        }
    }

    fn blocks(&self) -> usize {
        self.k.div_ceil(self.block)
    }

    /// Number `i` of those that are packed into `bytes`, the lowest bits first.
    fn unpacked(&self, bytes: &[u8], i: usize) -> u8 {
        let at = i * self.bits;
        (bytes[at / 8] >> (at % 8)) & (u8::MAX >> (8 - self.bits))
    }
}

/// The zero points: one per column and block.
enum Zeros {
    /// All the same, in the middle of what the bits can hold.
    Middle(f32),
    /// Packed as the weights are, each column from a byte on.
    Packed(Tensor),
    Floats(Vec<f64>),
}

/// `A·B + bias`, where `B` holds packed numbers, scales and zero points.
pub(super) fn matmul_n_bits(cx: &mut Cx) -> Results {
    let layout = Layout::read(cx)?;
    if cx.optional(4).is_some() {
        return refuse("operand 4, the groups of the weights, is not supported");
    }
    let Layout { k, n, bits, block, column } = layout;
    let blocks = layout.blocks();
    let elements = k.checked_mul(n).and_then(|e| i64::try_from(e).ok());
    cx.may_compute(elements.ok_or_else(|| Refusal::new("the weights are too large"))?)?;
    let packed = stored(cx, 1, "weights")?;
    let scales = stored(cx, 2, "scales")?.to_f64s();
    let zeros = zeros(cx, &layout)?;
    let fits = n.checked_mul(column) == Some(packed.bytes().len()) && n.checked_mul(blocks) == Some(scales.len());
    if packed.dtype() != DType::U8 || !fits {
        return refuse(format!(
            "the weights {packed:?} and {} scales do not fit {n} columns of {k} in blocks of {block}, {bits} bits each",
            scales.len()
        ));
    }
    let mut weights = vec![0f32; k * n];
    let row = (blocks * bits).div_ceil(8);
    for (i, line) in weights.chunks_exact_mut(n).enumerate() {
        for (j, weight) in line.iter_mut().enumerate() {
            let at = j * blocks + i / block;
            let zero = match &zeros {
                Zeros::Middle(zero) => *zero,
                Zeros::Packed(packed) => f32::from(layout.unpacked(&packed.bytes()[j * row..], i / block)),
                Zeros::Floats(all) => all[at] as f32,
            };
            let number = f32::from(layout.unpacked(&packed.bytes()[j * column..], i));
            *weight = (number - zero) * scales[at] as f32;
        }
    }
    let weights = cx.constant(Tensor::new(&[k, n], weights)?);
    let x = cx.input(0)?;
    let (x, own) = cx.widened(x)?;
    let y = cx.emit(Op::MATMUL, &[x, weights])?;
    let y = cx.cast(y, own)?;
    Ok(vec![biased(cx, y, 5)?])
}

fn zeros(cx: &Cx, layout: &Layout) -> NodeResult<Zeros> {
    if cx.optional(3).is_none() {
        return Ok(Zeros::Middle(f32::from(1u8 << (layout.bits - 1))));
    }
    let tensor = stored(cx, 3, "zero points")?;
    let blocks = layout.blocks();
    let packed = (blocks * layout.bits).div_ceil(8).checked_mul(layout.n);
    match tensor.dtype() {
        DType::U8 if packed == Some(tensor.bytes().len()) => Ok(Zeros::Packed(tensor)),
        dtype if dtype.is_float() && Some(tensor.len()) == blocks.checked_mul(layout.n) => {
            Ok(Zeros::Floats(tensor.to_f64s()))
        }
        _ => refuse(format!("the zero points {tensor:?} do not fit")),
    }
}

/// The tensor of operand `i`, which must be a constant.
fn stored(cx: &Cx, i: usize, what: &str) -> NodeResult<Tensor> {
    let value = cx.input(i)?;
    let undecided = || Refusal::undecided(value, format!("the {what} depend on data"));
    cx.constant_of(value).cloned().ok_or_else(undecided)
}

//! Bit-exact comparison with the plain loops, which fixes correctness and invariance at once.

use super::*;
use crate::kernels::epilogue::Operand;
use crate::kernels::epilogue::tests::chain;

/// Index-dependent data whose products and sums do round.
fn data(len: usize, seed: u32) -> Vec<f32> {
    let value = |i: u32| (i.wrapping_mul(2246822519).wrapping_add(seed.wrapping_mul(40503)) >> 9) as f32;
    (0..len as u32).map(|i| value(i) / (1 << 22) as f32 - 1.0).collect()
}

/// The sizes of a case, the pads on both sides.
#[derive(Clone, Copy, Debug)]
struct Case {
    images: usize,
    channels: [usize; 2],
    groups: usize,
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pads: [[usize; 2]; 2],
}

const PLAIN: Case = Case {
    images: 2,
    channels: [5, 7],
    groups: 1,
    size: [9, 11],
    kernel: [3, 3],
    stride: [1, 1],
    dilation: [1, 1],
    pads: [[1, 1], [1, 1]],
};

impl Case {
    fn window(&self) -> Window {
        let out = |i: usize| {
            let padded = self.size[i] + self.pads[0][i] + self.pads[1][i];
            let reach = (self.kernel[i].max(1) - 1) * self.dilation[i] + 1;
            padded.checked_sub(reach).map_or(0, |rest| rest / self.stride[i] + 1)
        };
        Window {
            size: self.size,
            out_size: [out(0), out(1)],
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            pad: self.pads[0],
        }
    }

    /// The output at `i` by the plain loops: channels, then rows, then columns of the kernel.
    fn naive(&self, isa: &Isa, x: &[f32], w: &[f32], bias: Option<&[f32]>, i: usize) -> f32 {
        let window = self.window();
        let [inputs, outputs] = self.channels.map(|c| c / self.groups);
        let (plane, pixel) = (i / window.out_plane(), i % window.out_plane());
        let (image, channel) = (plane / self.channels[1], plane % self.channels[1]);
        let at = [pixel / window.out_size[1], pixel % window.out_size[1]];
        let mut sum = 0.0;
        for k in 0..inputs * window.taps() {
            let (input, tap) = (k / window.taps(), k % window.taps());
            let tap = [tap / self.kernel[1], tap % self.kernel[1]];
            let [y, x_] = [0, 1].map(|axis| window.input(axis, at[axis], tap[axis]));
            let inside = (0..self.size[0] as isize).contains(&y) && (0..self.size[1] as isize).contains(&x_);
            let plane = image * self.channels[0] + channel / outputs * inputs + input;
            let value = if inside { x[plane * window.plane() + y as usize * self.size[1] + x_ as usize] } else { 0.0 };
            sum = (isa.step)(w[channel * inputs * window.taps() + k], value, sum);
        }
        bias.map_or(sum, |bias| sum + bias[channel])
    }

    fn check(&self, isa: &Isa, pool: &Pool, with_bias: bool) {
        let window = self.window();
        let x = data(self.images * self.channels[0] * window.plane(), 1);
        let w = data(self.channels[1] * self.channels[0] / self.groups * window.taps(), 2);
        let bias = data(self.channels[1], 3);
        let len = self.images * self.channels[1] * window.out_plane();
        let sums: Vec<f32> = (0..len).map(|i| self.naive(isa, &x, &w, with_bias.then_some(&bias), i)).collect();
        let (residual, limit) = (data(len, 4), data(self.channels[1], 5));
        let (plane, image) = (window.out_plane() as isize, (self.channels[1] * window.out_plane()) as isize);
        let operands = [
            Operand { matrix: Strided { ptr: residual.as_ptr(), row: plane, column: 1 }, batch: [0, 0, image] },
            Operand { matrix: Strided { ptr: limit.as_ptr(), row: 1, column: 0 }, batch: [0; 3] },
        ];
        let channel = |i: usize| i / window.out_plane() % self.channels[1];
        let joined = |(i, sum): (usize, &f32)| (sum + residual[i]).max(-0.25).min(limit[channel(i)]);
        let joined: Vec<f32> = sums.iter().enumerate().map(joined).collect();
        let [links, passes] = chain();
        for (steps, want) in [(None, &sums), (Some(&links), &joined), (Some(&passes), &joined)] {
            let mut y = vec![f32::NAN; len];
            let args = ConvArgs {
                x: x.as_ptr(),
                w: w.as_ptr(),
                bias: if with_bias { bias.as_ptr() } else { std::ptr::null() },
                y: y.as_mut_ptr(),
                images: self.images,
                in_channels: self.channels[0],
                out_channels: self.channels[1],
                groups: self.groups,
                window,
                epilogue: steps.map(|steps| Finish { steps, operands: &operands }),
            };
            // SAFETY: all operands are valid for their sizes.
            unsafe { conv_for(isa, pool, &args) };
            for (i, (got, want)) in y.iter().zip(want).enumerate() {
                let (threads, epilogue) = (pool.threads(), steps.is_some());
                let what = format!("{} {threads} threads {self:?} epilogue {epilogue}", isa.name);
                assert_eq!(got.to_bits(), want.to_bits(), "{what}: {i} is {got}, not {want}");
            }
        }
    }
}

fn check_all(cases: &[Case]) {
    let pools = [Pool::new(1), Pool::new(2)];
    for isa in Isa::available() {
        for case in cases {
            for (pool, with_bias) in pools.iter().zip([false, true]) {
                case.check(isa, pool, with_bias);
            }
        }
    }
}

#[test]
fn windows_of_every_kind() {
    check_all(&[
        PLAIN,
        Case { size: [8, 40], stride: [1, 2], ..PLAIN },
        Case { size: [13, 70], stride: [2, 2], kernel: [5, 4], ..PLAIN },
        Case { stride: [3, 4], kernel: [2, 7], pads: [[0, 5], [1, 2]], ..PLAIN },
        Case { dilation: [2, 3], pads: [[2, 0], [1, 4]], ..PLAIN },
        Case { size: [1, 100], kernel: [1, 9], stride: [1, 3], dilation: [1, 2], pads: [[0, 8], [0, 3]], ..PLAIN },
        Case { kernel: [1, 1], pads: [[0; 2]; 2], ..PLAIN },
        Case { kernel: [1, 1], pads: [[0; 2]; 2], stride: [2, 2], ..PLAIN },
        Case { kernel: [1, 1], pads: [[1; 2]; 2], ..PLAIN },
        Case { size: [4, 4], kernel: [4, 4], pads: [[0; 2]; 2], channels: [40, 33], ..PLAIN },
        // A pad wider than the kernel: whole outputs see nothing but zeros.
        Case { kernel: [2, 2], pads: [[4, 6], [5, 3]], size: [3, 2], ..PLAIN },
    ]);
}

#[test]
fn groups_and_depths() {
    check_all(&[
        Case { channels: [6, 9], groups: 3, ..PLAIN },
        Case { channels: [4, 20], groups: 4, ..PLAIN },
        Case { channels: [64, 70], size: [8, 8], images: 1, ..PLAIN },
        Case { channels: [37, 150], size: [6, 13], ..PLAIN },
        Case { channels: [300, 5], kernel: [1, 1], pads: [[0; 2]; 2], ..PLAIN },
        Case { channels: [2, 3], kernel: [19, 17], size: [20, 23], pads: [[3, 0], [0, 2]], ..PLAIN },
    ]);
}

#[test]
fn depthwise_windows() {
    let depthwise = Case { channels: [6, 6], groups: 6, ..PLAIN };
    check_all(&[
        depthwise,
        Case { channels: [3, 6], groups: 3, size: [10, 140], ..depthwise },
        Case { stride: [2, 2], size: [14, 75], ..depthwise },
        Case { stride: [2, 3], kernel: [5, 4], pads: [[0, 3], [2, 1]], size: [17, 90], ..depthwise },
        Case { dilation: [2, 3], stride: [1, 2], size: [21, 33], ..depthwise },
        Case { size: [1, 300], kernel: [1, 31], pads: [[0, 15], [0, 15]], ..depthwise },
        Case { kernel: [2, 2], pads: [[4, 6], [5, 3]], size: [3, 2], ..depthwise },
        Case { channels: [1, 1], groups: 1, ..depthwise },
    ]);
}

/// Padded planes that no machine has memory for.
#[test]
fn depthwise_windows_far_wider_than_the_image() {
    let far = 1 << 23;
    let depthwise = Case { channels: [2, 2], groups: 2, size: [4, 4], ..PLAIN };
    check_all(&[
        Case { dilation: [far; 2], pads: [[far; 2]; 2], ..depthwise },
        Case { stride: [1, far], pads: [[1, 1], [1, far]], ..depthwise },
        Case { stride: [far; 2], ..depthwise },
    ]);
}

#[test]
fn empty_sizes() {
    let depthwise = Case { channels: [6, 6], groups: 6, ..PLAIN };
    for case in [PLAIN, depthwise] {
        check_all(&[
            Case { images: 0, ..case },
            Case { kernel: [0, 3], ..case },
            Case { size: [0, 5], ..case },
            Case { size: [1, 5], kernel: [7, 7], ..case },
        ]);
    }
    check_all(&[Case { channels: [0, 4], ..PLAIN }, Case { channels: [4, 0], ..PLAIN }]);
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    // The plain loops give each image of the batch the bits that they give it alone.
    for channels in [[16, 24], [8, 8]] {
        let groups = if channels[0] == 8 { 8 } else { 1 };
        check_all(&[Case { images: 5, channels, groups, ..PLAIN }, Case { images: 1, channels, groups, ..PLAIN }]);
    }
}

/// Prints the speed of a few shapes; run it in release with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn speed() {
    let base = Case { images: 1, channels: [64, 64], size: [8, 8], ..PLAIN };
    let cases = [
        base,
        Case { channels: [16, 16], size: [32, 32], ..base },
        Case { channels: [64, 128], size: [56, 56], stride: [2, 2], ..base },
        Case { channels: [64, 64], size: [56, 56], ..base },
        Case { channels: [512, 512], size: [7, 7], ..base },
        Case { channels: [256, 64], size: [56, 56], kernel: [1, 1], pads: [[0; 2]; 2], ..base },
        Case { channels: [3, 64], size: [224, 224], kernel: [7, 7], stride: [2, 2], pads: [[3; 2]; 2], ..base },
        Case { channels: [96, 96], groups: 96, size: [56, 56], ..base },
        Case { channels: [96, 96], groups: 96, size: [112, 112], stride: [2, 2], ..base },
        Case { channels: [576, 576], groups: 576, size: [14, 14], ..base },
    ];
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        for case in cases {
            let window = case.window();
            let x = data(case.channels[0] * window.plane(), 1);
            let w = data(case.channels[1] * case.channels[0] / case.groups * window.taps(), 2);
            let mut y = vec![0.0f32; case.channels[1] * window.out_plane()];
            let args = ConvArgs {
                x: x.as_ptr(),
                w: w.as_ptr(),
                bias: std::ptr::null(),
                y: y.as_mut_ptr(),
                images: 1,
                in_channels: case.channels[0],
                out_channels: case.channels[1],
                groups: case.groups,
                window,
                epilogue: None,
            };
            // SAFETY: all operands are valid for their sizes.
            let best = crate::kernels::best_seconds(|| unsafe { conv(&pool, &args) });
            let flops = 2.0 * (w.len() * window.out_plane()) as f64;
            println!(
                "{threads} threads, {:?} groups {} on {:?}, kernel {:?} stride {:?}: {:.1} us, {:.1} GFLOP/s",
                case.channels,
                case.groups,
                case.size,
                case.kernel,
                case.stride,
                best * 1e6,
                flops / best / 1e9
            );
        }
    }
}

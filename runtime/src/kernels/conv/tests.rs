//! Bit-exact comparison with the plain loops, which fixes correctness and invariance at once.

use super::*;
use crate::kernels::Strided;
use crate::kernels::epilogue::Operand;
use crate::kernels::epilogue::tests::{chain, clipped};

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

    fn filters(&self) -> Filters {
        let [in_channels, out_channels] = self.channels;
        Filters { in_channels, out_channels, groups: self.groups, kernel: self.kernel }
    }

    /// The strides of the input with its channels before the plane, after it, and with room between positions.
    fn orders(&self) -> [[usize; 4]; 3] {
        let ([height, width], channels) = (self.size, self.channels[0]);
        let last = |room: usize| [height * width * room, 1, width * room, room];
        [[channels * height * width, height * width, width, 1], last(channels), last(channels + 3)]
    }

    /// The output at `i`, channels last, by the plain loops: rows, columns, then channels of the kernel. The
    /// input is in planes.
    fn naive(&self, isa: &Isa, x: &[f32], w: &[f32], bias: Option<&[f32]>, i: usize) -> f32 {
        let window = self.window();
        let [inputs, outputs] = self.channels.map(|c| c / self.groups);
        let (position, channel) = (i / self.channels[1], i % self.channels[1]);
        let (image, pixel) = (position / window.out_plane(), position % window.out_plane());
        let at = [pixel / window.out_size[1], pixel % window.out_size[1]];
        let mut sum = 0.0;
        for k in 0..inputs * window.taps() {
            let (number, input) = (k / inputs, k % inputs);
            let tap = [number / self.kernel[1], number % self.kernel[1]];
            let [y, x_] = [0, 1].map(|axis| window.input(axis, at[axis], tap[axis]));
            let inside = (0..self.size[0] as isize).contains(&y) && (0..self.size[1] as isize).contains(&x_);
            let plane = image * self.channels[0] + channel / outputs * inputs + input;
            let value = if inside { x[(plane * self.size[0] + y as usize) * self.size[1] + x_ as usize] } else { 0.0 };
            sum = (isa.step)(w[(channel * inputs + input) * window.taps() + number], value, sum);
        }
        bias.map_or(sum, |bias| sum + bias[channel])
    }

    fn check(&self, isa: &Isa, pool: &Pool, with_bias: bool) {
        let (window, [inputs, outputs], plane) = (self.window(), self.channels, self.size[0] * self.size[1]);
        let x = data(self.images * inputs * plane, 1);
        let w = data(outputs * inputs / self.groups * window.taps(), 2);
        let bias = data(outputs, 3);
        let len = self.images * outputs * window.out_plane();
        let sums: Vec<f32> = (0..len).map(|i| self.naive(isa, &x, &w, with_bias.then_some(&bias), i)).collect();
        let (residual, limit) = (data(len, 4), data(outputs, 5));
        let (position, image) = (outputs as isize, (outputs * window.out_plane()) as isize);
        let operands = [
            Operand { matrix: Strided { ptr: residual.as_ptr(), row: position, column: 1 }, batch: [0, 0, image] },
            Operand { matrix: Strided { ptr: limit.as_ptr(), row: 0, column: 1 }, batch: [0; 3] },
        ];
        let joined = |(i, sum): (usize, &f32)| (sum + residual[i]).max(-0.25).min(limit[i % outputs]);
        let joined: Vec<f32> = sums.iter().enumerate().map(joined).collect();
        let within = |(i, sum): (usize, &f32)| sum.min(limit[i % outputs]).clamp(0.125, 0.75);
        let within: Vec<f32> = sums.iter().enumerate().map(within).collect();
        let [links, passes] = chain();
        let [by_channel, _] = clipped([0.125, 0.75]);
        let mut packed = vec![f32::NAN; packed_len_for(isa, &self.filters()).unwrap()];
        // SAFETY: these are the weights, and room for them.
        unsafe { pack_weights_for(isa, &self.filters(), w.as_ptr(), &mut packed) };
        for (strides, packed) in self.orders().into_iter().zip([std::ptr::null(), packed.as_ptr(), packed.as_ptr()]) {
            let placed = self.placed(&x, strides);
            let [image, channel, row, column] = strides.map(|s| s as isize);
            let args = ConvArgs {
                x: Image { ptr: placed.as_ptr(), image, channel, row, column },
                w: w.as_ptr(),
                packed,
                bias: if with_bias { bias.as_ptr() } else { std::ptr::null() },
                y: std::ptr::null_mut(),
                images: self.images,
                filters: self.filters(),
                window,
                epilogue: None,
            };
            let cases =
                [(None, &sums), (Some(&links), &joined), (Some(&passes), &joined), (Some(&by_channel), &within)];
            for (steps, want) in cases {
                let mut y = vec![f32::NAN; len];
                let epilogue = steps.map(|steps| Finish { steps, operands: &operands });
                // SAFETY: all operands are valid for their sizes.
                unsafe { conv_for(isa, pool, &ConvArgs { y: y.as_mut_ptr(), epilogue, ..args }) };
                for (i, (got, want)) in y.iter().zip(want).enumerate() {
                    let (threads, epilogue) = (pool.threads(), steps.is_some());
                    let what = format!("{} {threads} threads {self:?} {strides:?} epilogue {epilogue}", isa.name);
                    assert_eq!(got.to_bits(), want.to_bits(), "{what}: {i} is {got}, not {want}");
                }
            }
        }
    }

    /// The input with other strides, NaN between its elements.
    fn placed(&self, x: &[f32], strides: [usize; 4]) -> Vec<f32> {
        let dims = [self.images, self.channels[0], self.size[0], self.size[1]];
        let mut placed = vec![f32::NAN; dims[0] * strides[0]];
        for (i, &value) in x.iter().enumerate() {
            let (mut rest, mut at) = (i, 0);
            for (dim, stride) in dims.into_iter().zip(strides).rev() {
                (rest, at) = (rest / dim, at + rest % dim * stride);
            }
            placed[at] = value;
        }
        placed
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
        Case { channels: [20, 9], size: [37, 70], images: 1, ..PLAIN },
        Case { channels: [6, 10], groups: 2, size: [11, 30], dilation: [1, 3], pads: [[0, 2], [1, 5]], ..PLAIN },
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

/// Fewer outputs in a group than a vector has lanes.
#[test]
fn few_outputs() {
    let few = Case { channels: [8, 4], size: [6, 37], ..PLAIN };
    check_all(&[
        few,
        Case { channels: [24, 24], groups: 8, ..few },
        Case { channels: [40, 3], stride: [2, 3], kernel: [3, 5], pads: [[1, 4], [0, 2]], ..few },
        Case { channels: [33, 1], kernel: [1, 1], pads: [[0; 2]; 2], size: [2, 300], ..few },
        Case { channels: [1, 8], kernel: [5, 5], dilation: [1, 2], pads: [[2, 4], [2, 4]], ..few },
        Case { channels: [6, 12], groups: 6, stride: [1, 2], ..few },
    ]);
}

/// Signals longer than a band, whose windows reach from one into the next.
#[test]
fn long_signals() {
    let signal = Case { images: 1, channels: [40, 33], size: [1, 4500], kernel: [1, 3], pads: [[0, 1]; 2], ..PLAIN };
    check_all(&[
        signal,
        Case { channels: [24, 20], stride: [1, 5], kernel: [1, 10], pads: [[0; 2]; 2], ..signal },
        Case { channels: [80, 16], groups: 4, dilation: [1, 7], pads: [[0, 3], [0, 9]], ..signal },
    ]);
}

/// Images of a few positions.
#[test]
fn small_images() {
    let small = Case { channels: [20, 80], size: [7, 7], ..PLAIN };
    check_all(&[
        small,
        Case { channels: [150, 65], kernel: [1, 1], pads: [[0; 2]; 2], ..small },
        Case { channels: [40, 140], groups: 2, size: [5, 3], ..small },
        Case { channels: [33, 72], size: [13, 9], stride: [2, 2], ..small },
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

/// Padded copies that no machine has memory for.
#[test]
fn windows_far_wider_than_the_image() {
    let far = 1 << 23;
    let depthwise = Case { channels: [2, 2], groups: 2, size: [4, 4], ..PLAIN };
    for case in [depthwise, Case { groups: 1, ..depthwise }] {
        check_all(&[
            Case { dilation: [far; 2], pads: [[far; 2]; 2], ..case },
            Case { stride: [1, far], pads: [[1, 1], [1, far]], ..case },
            Case { stride: [far; 2], ..case },
        ]);
    }
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

/// A convolution of a known model for [`speed`]: how often it stands there, channels, groups, the side of
/// the image, of the kernel, and the stride.
type Layer = (usize, [usize; 2], usize, usize, usize, usize);

const RESNET50: [Layer; 23] = [
    (1, [3, 64], 1, 224, 7, 2),
    (1, [64, 64], 1, 56, 1, 1),
    (3, [64, 64], 1, 56, 3, 1),
    (4, [64, 256], 1, 56, 1, 1),
    (2, [256, 64], 1, 56, 1, 1),
    (1, [256, 128], 1, 56, 1, 1),
    (1, [128, 128], 1, 56, 3, 2),
    (4, [128, 512], 1, 28, 1, 1),
    (1, [256, 512], 1, 56, 1, 2),
    (3, [512, 128], 1, 28, 1, 1),
    (3, [128, 128], 1, 28, 3, 1),
    (1, [512, 256], 1, 28, 1, 1),
    (1, [256, 256], 1, 28, 3, 2),
    (6, [256, 1024], 1, 14, 1, 1),
    (1, [512, 1024], 1, 28, 1, 2),
    (5, [1024, 256], 1, 14, 1, 1),
    (5, [256, 256], 1, 14, 3, 1),
    (1, [1024, 512], 1, 14, 1, 1),
    (1, [512, 512], 1, 14, 3, 2),
    (3, [512, 2048], 1, 7, 1, 1),
    (1, [1024, 2048], 1, 14, 1, 2),
    (2, [2048, 512], 1, 7, 1, 1),
    (2, [512, 512], 1, 7, 3, 1),
];

const MOBILENETV2: [Layer; 31] = [
    (1, [3, 32], 1, 224, 3, 2),
    (1, [32, 32], 32, 112, 3, 1),
    (1, [32, 16], 1, 112, 1, 1),
    (1, [16, 96], 1, 112, 1, 1),
    (1, [96, 96], 96, 112, 3, 2),
    (1, [96, 24], 1, 56, 1, 1),
    (2, [24, 144], 1, 56, 1, 1),
    (1, [144, 144], 144, 56, 3, 1),
    (1, [144, 24], 1, 56, 1, 1),
    (1, [144, 144], 144, 56, 3, 2),
    (1, [144, 32], 1, 28, 1, 1),
    (3, [32, 192], 1, 28, 1, 1),
    (2, [192, 192], 192, 28, 3, 1),
    (2, [192, 32], 1, 28, 1, 1),
    (1, [192, 192], 192, 28, 3, 2),
    (1, [192, 64], 1, 14, 1, 1),
    (4, [64, 384], 1, 14, 1, 1),
    (4, [384, 384], 384, 14, 3, 1),
    (3, [384, 64], 1, 14, 1, 1),
    (1, [384, 96], 1, 14, 1, 1),
    (3, [96, 576], 1, 14, 1, 1),
    (2, [576, 576], 576, 14, 3, 1),
    (2, [576, 96], 1, 14, 1, 1),
    (1, [576, 576], 576, 14, 3, 2),
    (1, [576, 160], 1, 7, 1, 1),
    (3, [160, 960], 1, 7, 1, 1),
    (3, [960, 960], 960, 7, 3, 1),
    (2, [960, 160], 1, 7, 1, 1),
    (1, [960, 320], 1, 7, 1, 1),
    (1, [320, 1280], 1, 7, 1, 1),
    (1, [160, 320], 1, 7, 1, 1),
];

const RESNET56: [Layer; 6] = [
    (1, [3, 16], 1, 32, 3, 1),
    (18, [16, 16], 1, 32, 3, 1),
    (1, [16, 32], 1, 32, 3, 2),
    (17, [32, 32], 1, 16, 3, 1),
    (1, [32, 64], 1, 16, 3, 2),
    (17, [64, 64], 1, 8, 3, 1),
];

/// Grouped and narrow ones, as of ResNeXt, super-resolution and digits.
const NARROW: [Layer; 7] = [
    (1, [128, 128], 32, 56, 3, 1),
    (1, [256, 256], 32, 28, 3, 1),
    (1, [512, 512], 32, 14, 3, 1),
    (1, [64, 1], 1, 64, 3, 1),
    (1, [64, 3], 1, 64, 3, 1),
    (1, [64, 9], 1, 128, 3, 1),
    (1, [1, 8], 1, 28, 5, 1),
];

/// Bytes of weights of which every call takes the next ones, so that they are as cold as in a model.
const COLD: usize = 32 << 20;

/// Floats of a cache line.
const LINE: usize = 16;

/// What of a slice begins at a cache line, as the buffers of a program do.
fn aligned(x: &[f32]) -> &[f32] {
    &x[x.as_ptr().align_offset(LINE * size_of::<f32>())..]
}

/// Seconds and floating-point operations of a layer.
fn time_layer(pool: &Pool, layer: Layer) -> (f64, f64) {
    let (_, channels, groups, side, kernel, stride) = layer;
    let pad = [kernel / 2; 2];
    let case = Case {
        images: 1,
        channels,
        groups,
        size: [side; 2],
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        pads: [pad; 2],
    };
    let window = case.window();
    let x = data(channels[0] * side * side + LINE, 1);
    let x = aligned(&x);
    let count = channels[1] * channels[0] / groups * window.taps();
    let copies = (COLD / 4).div_ceil(count).min(64);
    let w = data(count * copies, 2);
    let filters = case.filters();
    let len = packed_len(&filters).unwrap();
    let step = len.next_multiple_of(LINE);
    let mut packed = vec![0.0; step * copies + LINE];
    let first = packed.as_ptr().align_offset(LINE * size_of::<f32>());
    for (w, packed) in w.chunks(count).zip(packed[first..].chunks_mut(step)) {
        let packed = &mut packed[..len];
        // SAFETY: these are the weights, and room for them.
        unsafe { pack_weights(&filters, w.as_ptr(), packed) };
    }
    let [planes, last, _] = case.orders();
    let [image, channel, row, column] = (if channels[0] == 3 { planes } else { last }).map(|s| s as isize);
    let mut y = vec![0.0f32; channels[1] * window.out_plane() + LINE];
    let start = y.as_ptr().align_offset(LINE * size_of::<f32>());
    let mut copy = 0;
    let best = crate::kernels::best_seconds(|| {
        copy = (copy + 1) % copies;
        let args = ConvArgs {
            x: Image { ptr: x.as_ptr(), image, channel, row, column },
            w: w[copy * count..].as_ptr(),
            packed: packed[first + copy * step..].as_ptr(),
            bias: std::ptr::null(),
            y: y[start..].as_mut_ptr(),
            images: 1,
            filters,
            window,
            epilogue: None,
        };
        // SAFETY: all operands are valid for their sizes.
        unsafe { conv(pool, &args) }
    });
    (best, 2.0 * (count * window.out_plane()) as f64)
}

/// Prints the speed of the layers of a few models; run it in release with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn speed() {
    let models =
        [("resnet50", &RESNET50[..]), ("mobilenetv2", &MOBILENETV2), ("resnet56", &RESNET56), ("narrow", &NARROW)];
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        for (name, layers) in models {
            let (mut seconds, mut work) = (0.0, 0.0);
            for &layer in layers {
                let (best, flops) = time_layer(&pool, layer);
                let times = layer.0 as f64;
                (seconds, work) = (seconds + times * best, work + times * flops);
                println!("{threads} {layer:?}: {:.1} us, {:.1} GFLOP/s", times * best * 1e6, flops / best / 1e9);
            }
            println!("{threads} {name}: {:.1} us, {:.1} GFLOP/s", seconds * 1e6, work / seconds / 1e9);
        }
    }
}

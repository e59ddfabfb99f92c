//! Convolution and pooling.

use super::*;

fn conv(group: i64, strides: &[i64], dilations: &[i64], pads: &[i64]) -> Op {
    Op::Conv { group, strides: strides.to_vec(), dilations: dilations.to_vec(), pads: pads.to_vec() }
}

fn max_pool(kernel: &[i64], strides: &[i64], dilations: &[i64], pads: &[i64], ceil_mode: bool) -> Op {
    let (kernel, strides, dilations, pads) = (kernel.to_vec(), strides.to_vec(), dilations.to_vec(), pads.to_vec());
    Op::MaxPool { kernel, strides, dilations, pads, ceil_mode }
}

fn average_pool(kernel: &[i64], pads: &[i64], ceil_mode: bool, count_include_pad: bool) -> Op {
    let (kernel, strides, pads) = (kernel.to_vec(), vec![2, 2], pads.to_vec());
    Op::AveragePool { kernel, strides, pads, ceil_mode, count_include_pad }
}

#[test]
fn grouped_strided_dilated_convolution() {
    let bias = tensor(&[6], &[0.0f32, 1., 2., 3., 4., 5.]);
    let expected = [
        -2.75, 1.5, 1.75, 7.25, -15.0, -2.0, -5.0, -1.5, 3.75, 12.5, -2.0, -1.0, 6.5, 9.25, -2.5, -7.0, 0.0, 16.5,
        -8.25, 4.5, 6.0, 7.75, 2.25, 4.0, 11.0, 11.25, -4.25, 3.75, 10.0, 10.75, 13.75, -4.0, 13.0, -3.0, 6.75, 3.75,
    ];
    let op = conv(2, &[2, 1], &[1, 2], &[1, 0, 0, 2]);
    assert_close(&op, &[ramp(&[1, 4, 3, 5]), ramp(&[6, 2, 2, 3]), bias], &[1, 6, 2, 3], &expected);
}

#[test]
fn one_dimensional_convolution() {
    let expected =
        [-2.5, -9.25, 3.0, -3.0, -5.75, 16.75, 2.0, 14.25, -5.25, 5.0, 1.0, -8.75, 7.0, -5.5, -5.0, -7.5, -6.5, 12.5];
    assert_close(&conv(1, &[2], &[1], &[1, 0]), &[ramp(&[2, 2, 6]), ramp(&[3, 2, 3])], &[2, 3, 3], &expected);
}

#[test]
fn convolution_infers_symbolic_images() {
    let op = conv(1, &[2, 2], &[1, 1], &[1, 1, 1, 1]);
    let image = float(&["batch", "3", "height", "224"]);
    let (ty, assumptions) = typed(&op, &[image, float(&["64", "3", "3", "3"])]);
    assert_eq!((ty.as_str(), assumptions.len()), ("f32[batch, 64, floordiv(height-1, 2)+1, 112]", 0));
}

#[test]
fn convolution_refuses_what_does_not_fit() {
    let (x, w) = (float(&["batch", "4", "8", "8"]), float(&["6", "2", "3", "3"]));
    let plain = |group| conv(group, &[1, 1], &[1, 1], &[0; 4]);
    assert!(refusal(&plain(1), &[x.clone(), w.clone()]).ends_with("in 1 groups: 4 is not 2"));
    assert_eq!(refusal(&plain(4), &[x.clone(), w.clone()]), "6 channels are not 4 groups");
    assert_eq!(refusal(&plain(0), &[x.clone(), w.clone()]), "6 channels are not 0 groups");
    let pair = [x.clone(), w.clone()];
    let strides = refusal(&conv(2, &[1, 0], &[1, 1], &[0; 4]), &pair);
    assert_eq!(strides, "`strides` must be 2 numbers of at least 1, found [1, 0]");
    let pads = refusal(&conv(2, &[1, 1], &[1, 1], &[0; 2]), &pair);
    assert_eq!(pads, "`pads` must be 4 numbers of at least 0, found [0, 0]");
    let wide = refusal(&conv(2, &[1, 1], &[4, 1], &[0; 4]), &pair);
    assert_eq!(wide, "a window of 9 does not fit into 8 with pads 0 and 0");
    let bias = refusal(&plain(2), &[x, w.clone(), float(&["5"])]);
    assert_eq!(bias, "a bias of f32[5] does not fit a weight of f32[6, 2, 3, 3]: 5 is not 6");
    assert!(refusal(&plain(2), &[float(&["4", "8"]), w]).contains("at least 3 dims"));
}

#[test]
fn max_pooling() {
    let op = max_pool(&[2, 3], &[3, 2], &[1, 1], &[0, 1, 1, 0], true);
    let expected = [2.0, 2.5, 2.5, 0.5, 2.0, 0.0, 2.5, 2.0, 2.0, 2.5, 2.5, 2.0];
    assert_close(&op, &[ramp(&[1, 2, 4, 5])], &[1, 2, 2, 3], &expected);
    let dilated = max_pool(&[2, 2], &[1, 2], &[2, 3], &[1, 0, 0, 1], false);
    let expected = [-1.5, 0.0, 2.5, 1.0, 0.5, 2.0, 2.5, -1.5, 1.5, -0.5, 2.5, 0.5];
    assert_close(&dilated, &[ramp(&[1, 2, 4, 5])], &[1, 2, 3, 2], &expected);
}

#[test]
fn average_pooling_counts_what_it_is_told_to() {
    let expected = [-0.75, 0.833333, 1.5, -0.625, -0.416667, 0.25, 0.5, -0.666667, 0.0, 0.625, -0.083333, 0.125];
    assert_close(&average_pool(&[2, 3], &[1, 1, 0, 1], false, false), &[ramp(&[1, 2, 4, 5])], &[1, 2, 2, 3], &expected);
    let padded =
        [-0.25, 0.416667, 0.5, -0.416667, -0.416667, 0.166667, 0.166667, -0.333333, 0.0, 0.416667, -0.083333, 0.083333];
    assert_close(&average_pool(&[2, 3], &[1, 1, 0, 1], false, true), &[ramp(&[1, 2, 4, 5])], &[1, 2, 2, 3], &padded);
}

#[test]
fn ceil_mode_counts_nothing_beyond_the_padding() {
    let x = [ramp(&[1, 1, 4, 5])];
    let padded = [-0.75, 0.083333, 0.666667, 0.0, -0.25, -0.125];
    assert_close(&average_pool(&[3, 2], &[0, 1, 0, 0], true, true), &x, &[1, 1, 2, 3], &padded);
    let inside = [-1.5, 0.083333, 0.666667, 0.0, -0.25, -0.125];
    assert_close(&average_pool(&[3, 2], &[0, 1, 0, 0], true, false), &x, &[1, 1, 2, 3], &inside);
}

#[test]
fn ceil_mode_leaves_out_windows_behind_the_input() {
    let op = max_pool(&[1, 2], &[1, 3], &[1, 1], &[0, 0, 0, 1], true);
    assert_eq!(floats(&op, &[tensor(&[1, 1, 1, 3], &[1.0f32, 3.0, 2.0])]), (vec![1, 1, 1, 1], vec![3.0]));
    let (ty, _) = typed(&op, &[float(&["1", "1", "1", "width"])]);
    let at = |text: &str, width: i64| {
        let dims = &inferred(&op, &[float(&["1", "1", "1", "width"])]).ty.dims;
        let size = dims[3].eval(&|_| Some(width));
        assert!(size.is_some(), "{text}");
        size
    };
    assert_eq!((at(&ty, 3), at(&ty, 4), at(&ty, 6)), (Some(1), Some(2), Some(2)));
}

#[test]
fn pooling_refuses_pads_that_hide_the_input() {
    let x = [float(&["batch", "3", "8", "8"])];
    let op = max_pool(&[2, 3], &[1, 1], &[1, 1], &[1, 1, 2, 1], false);
    assert_eq!(refusal(&op, &x), "pads [1, 1, 2, 1] must be smaller than the kernel [2, 3]");
    let op = max_pool(&[2], &[1, 1], &[1, 1], &[0; 4], false);
    assert_eq!(refusal(&op, &x), "`kernel` must be 2 numbers of at least 1, found [2]");
    assert!(refusal(&average_pool(&[2, 2], &[0; 4], false, false), &[float(&["8", "8"])]).contains("at least 3 dims"));
}

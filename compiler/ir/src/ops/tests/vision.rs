//! `RoiAlign`, `DeformConv` and `Det`.

use super::*;

fn roi_align(sampling_ratio: i64, max: bool, half_pixel: bool) -> Op {
    let (output_height, output_width, spatial_scale) = (2, 1, 0.5);
    Op::RoiAlign { output_height, output_width, sampling_ratio, spatial_scale, max, half_pixel }
}

/// Two images of one channel: 0 to 11, then 12 to 23.
fn images() -> Tensor {
    tensor(&[2, 1, 3, 4], &(0..24).map(|i| i as f32).collect::<Vec<f32>>())
}

fn boxes(corners: &[f32]) -> [Tensor; 3] {
    let count = corners.len() / 4;
    [images(), tensor(&[count, 4], corners), tensor(&[count], &vec![1i64; count])]
}

#[test]
fn boxes_are_sampled_in_the_middle_of_their_grid() {
    // Bins of 1 × 2 from (0, 0), or half an element before it; samples in their middle, then two along each axis.
    let inputs = boxes(&[0.0, 0.0, 4.0, 4.0]);
    assert_close(&roi_align(1, false, false), &inputs, &[1, 1, 2, 1], &[15.0, 19.0]);
    assert_close(&roi_align(1, false, true), &inputs, &[1, 1, 2, 1], &[12.5, 16.5]);
    assert_close(&roi_align(0, false, false), &inputs, &[1, 1, 2, 1], &[15.0, 19.0]);
    // Of the weighted neighbours the largest: half of 17, then of 21.
    assert_close(&roi_align(1, true, false), &inputs, &[1, 1, 2, 1], &[8.5, 10.5]);
}

#[test]
fn what_lies_outside_counts_as_zeros() {
    let inputs = boxes(&[-40.0, -40.0, -20.0, -20.0, 4.0, 4.0, 0.0, 0.0]);
    assert_close(&roi_align(2, false, true), &inputs, &[2, 1, 2, 1], &[0.0, 0.0, 16.5, 13.0]);
    // A box of negative size has no samples but where their number is given.
    assert_close(&roi_align(0, true, true), &inputs, &[2, 1, 2, 1], &[0.0; 4]);
}

#[test]
fn boxes_that_are_none_are_nan_or_refused() {
    let (_, found) =
        floats(&roi_align(0, false, true), &boxes(&[f32::NAN, 0.0, 1.0, 1.0, 0.0, 0.0, 4.0, f32::INFINITY]));
    assert!(found.iter().all(|x| x.is_nan()));
    assert!(failure(&roi_align(0, false, true), &boxes(&[0.0, 0.0, 1e30, 1e30])).contains("too large"));
    let [x, corners, _] = boxes(&[0.0; 4]);
    let elsewhere = [x, corners, tensor(&[1], &[-1i64])];
    assert!(failure(&roi_align(0, false, true), &elsewhere).contains("does not exist"));
    let empty = [tensor::<f32>(&[1, 1, 0, 4], &[]), tensor(&[1, 4], &[0f32, 0.0, 4.0, 4.0]), tensor(&[1], &[0i64])];
    assert_close(&roi_align(2, false, true), &empty, &[1, 1, 2, 1], &[0.0; 2]);
}

fn deform_conv(offset_group: i64) -> Op {
    Op::DeformConv { group: 1, offset_group, strides: vec![1, 2], dilations: vec![1, 1], pads: vec![1, 0, 0, 1] }
}

#[test]
fn taps_that_are_not_moved_are_those_of_a_convolution() {
    let (x, w, bias) = (ramp(&[2, 4, 5, 6]), ramp(&[3, 4, 2, 3]), ramp(&[3]));
    let offset = tensor(&[2, 24, 5, 3], &[0f32; 720]);
    let conv = Op::Conv { group: 1, strides: vec![1, 2], dilations: vec![1, 1], pads: vec![1, 0, 0, 1] };
    let plain = floats(&conv, &[x.clone(), w.clone(), bias.clone()]);
    assert_eq!(floats(&deform_conv(2), &[x, w, offset, bias]), plain);
}

#[test]
fn taps_are_moved_and_weighted() {
    let op = Op::DeformConv { group: 1, offset_group: 1, strides: vec![1; 2], dilations: vec![1; 2], pads: vec![0; 4] };
    let x = tensor(&[1, 1, 1, 3], &[1.0f32, 2.0, 4.0]);
    let (w, bias) = (tensor(&[1, 1, 1, 1], &[3.0f32]), tensor(&[1], &[1.0f32]));
    // Nothing is moved down; to the right by half an element, beyond the image, and to what is no place.
    let offset = tensor(&[1, 2, 1, 3], &[0.0f32, 0.0, 0.0, 0.5, 1.5, f32::NAN]);
    let mask = tensor(&[1, 1, 1, 3], &[2.0f32, 1.0, 1.0]);
    assert_close(&op, &[x, w, offset, bias, mask], &[1, 1, 1, 3], &[10.0, 7.0, 1.0]);
}

#[test]
fn offsets_must_fit_the_windows() {
    let operands =
        |planes: &str| [["n", "4", "5", "6"], ["3", "4", "2", "3"], ["n", planes, "5", "3"]].map(|d| float(&d));
    let bias = float(&["3"]);
    let with = |planes: &str| operands(planes).into_iter().chain([bias.clone()]).collect::<Vec<_>>();
    assert!(infer(&deform_conv(2), &with("24")).is_ok());
    assert!(refusal(&deform_conv(2), &with("12")).contains("dim 1 of operand 2"));
    assert!(refusal(&deform_conv(3), &with("36")).contains("4 channels are not 3 groups"));
    assert!(refusal(&deform_conv(0), &with("12")).contains("groups"));
}

#[test]
fn determinants_need_the_largest_element_first() {
    let x = tensor(&[3, 2, 2], &[0.0f32, 2.0, 3.0, 4.0, 1.0, 2.0, 2.0, 4.0, 1.5, 0.0, f32::NAN, 1.0]);
    let (dims, found) = floats(&Op::Det {}, std::slice::from_ref(&x));
    assert_eq!((dims, &found[..2]), (vec![3], &[-6.0, 0.0][..]));
    assert!(found[2].is_nan());
    let permuted = tensor(&[3, 3], &[0.0f32, 0.0, 2.0, 3.0, 0.0, 0.0, 0.0, 5.0, 7.0]);
    assert_close(&Op::Det {}, &[permuted], &[], &[30.0]);
    assert_close(&Op::Det {}, &[tensor::<f32>(&[2, 0, 0], &[])], &[2], &[1.0, 1.0]);
    assert!(refusal(&Op::Det {}, &[float(&["n", "2", "3"])]).contains("not square"));
}

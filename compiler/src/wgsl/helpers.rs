//! WGSL functions that shaders call: what the language leaves open (NaN, large arguments) or computes too coarsely.

/// A function that a shader may need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Helper {
    /// `param(i)`: a parameter by a number that is computed.
    Param,
    /// Division rounded towards negative infinity.
    FloorDiv,
    /// Whether a float is NaN, by its bits: compilers may assume that there is none.
    IsNan,
    /// A float from bits that no literal can say.
    FromBits,
    /// The larger of two floats, NaN if either is.
    Larger,
    /// The smaller of two floats, NaN if either is.
    Smaller,
    /// Float to integer: truncates and saturates, NaN gives 0.
    ToInteger,
    /// Hyperbolic tangent, to 3e-7 also where e^x overflows.
    Tanh,
    /// Error function, to 2e-7.
    Erf,
    /// Sine and cosine of `x + turn · π/2`, to 1e-6 for |x| up to 1e5.
    Sine,
    /// Power with the cases that WGSL leaves undefined.
    Power,
    /// To bfloat16 and back: nearest, ties to even.
    Bf16,
    /// The value of a finite 16-bit float's bits, to the last one on every adapter.
    Half,
}

impl Helper {
    /// The helpers that this one calls.
    pub(super) fn calls(self) -> &'static [Helper] {
        match self {
            Helper::Larger | Helper::Smaller | Helper::ToInteger | Helper::Bf16 => &[Helper::IsNan],
            Helper::Power => &[Helper::FromBits],
            Helper::Param | Helper::FloorDiv | Helper::IsNan | Helper::FromBits => &[],
            Helper::Tanh | Helper::Erf | Helper::Sine | Helper::Half => &[],
        }
    }

    /// WGSL.
    pub(super) fn source(self) -> &'static str {
        match self {
            Helper::Param => {
                "fn param(at: i32) -> i32 {
return params[at / 4][at % 4];
}"
            }
            Helper::FloorDiv => {
                "fn floor_div(a: i32, b: i32) -> i32 {
let towards_zero = a / b;
return towards_zero - select(0, 1, a % b != 0 && (a < 0) != (b < 0));
}"
            }
            Helper::IsNan => {
                "fn is_nan(x: f32) -> bool {
return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}"
            }
            Helper::FromBits => {
                "fn from_bits(bits: u32) -> f32 {
return bitcast<f32>(bits);
}"
            }
            Helper::Larger => {
                "fn larger(a: f32, b: f32) -> f32 {
return select(select(max(a, b), b, is_nan(b)), a, is_nan(a));
}"
            }
            Helper::Smaller => {
                "fn smaller(a: f32, b: f32) -> f32 {
return select(select(min(a, b), b, is_nan(b)), a, is_nan(a));
}"
            }
            Helper::ToInteger => {
                "fn to_integer(x: f32) -> i32 {
let inside = clamp(x, -2147483648.0, 2147483520.0);
return select(select(i32(inside), 2147483647, x > 2147483520.0), 0, is_nan(x));
}"
            }
            Helper::Tanh => {
                "fn tanh_of(x: f32) -> f32 {
let y = x * x;
let near = x * (1.0 + y * (-0.33333334 + y * (0.13333334 + y * (-0.053968254 + y * 0.021869488))));
let t = exp(-2.0 * abs(x));
let far = (1.0 - t) / (1.0 + t);
return select(select(far, -far, x < 0.0), near, abs(x) < 0.3);
}"
            }
            Helper::Erf => {
                "fn erf_of(x: f32) -> f32 {
let y = x * x;
let near = x + x * (0.12837915 + y * (-0.37612498 + y * (0.112818465 + y * (-0.026767727 + y * (0.0049948376 + y * -0.00059994374)))));
let z = min(abs(x), 3.95);
let g = -0.00015450185 + z * (1.1294156 + z * (0.633552 + z * (0.10804978 + z * (-0.024967695 + z * (0.004112452 + z * (-0.00042217792 + z * 0.000020017735))))));
let far = select(1.0 - exp(-g), x, (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u);
return select(select(far, -far, x < 0.0), near, abs(x) < 0.9);
}"
            }
            Helper::Sine => {
                "fn sine(x: f32, turn: i32) -> f32 {
let quarters = round(x * 0.63661975);
let r = fma(quarters, -7.5497894e-8, fma(quarters, -0.00048375129, fma(quarters, -1.5703125, x)));
let y = r * r;
let s = r + r * y * (-0.16666667 + y * (0.008333333 + y * (-0.00019841270 + y * 0.0000027557319)));
let c = 1.0 + y * (-0.5 + y * (0.041666668 + y * (-0.0013888889 + y * (0.000024801588 + y * -0.00000027557319))));
let quadrant = (i32(clamp(quarters, -1.0e9, 1.0e9)) + turn) & 3;
let value = select(s, c, (quadrant & 1) == 1);
return select(value, -value, quadrant >= 2);
}"
            }
            Helper::Power => {
                "fn power(x: f32, y: f32) -> f32 {
if y == 0.0 || x == 1.0 { return 1.0; }
if y == 1.0 { return x; }
if y == 2.0 { return x * x; }
if y == 0.5 && x >= 0.0 { return sqrt(x); }
let whole = floor(y) == y;
let odd = whole && abs(y) < 16777216.0 && (i32(y) & 1) == 1;
if x == 0.0 {
let zero = select(0.0, x, odd);
return select(zero, 1.0 / zero, y < 0.0);
}
let size = exp2(y * log2(abs(x)));
if x < 0.0 { return select(select(size, -size, odd), from_bits(0x7fc00000u), !whole); }
return size;
}"
            }
            Helper::Half => {
                "fn half(bits: u32) -> f32 {
let size = bits & 0x7fffu;
let normal = bitcast<f32>((size << 13u) + 0x38000000u);
let value = select(normal, f32(size) * 5.9604645e-8, size < 0x400u);
return select(value, -value, (bits & 0x8000u) != 0u);
}"
            }
            Helper::Bf16 => {
                "fn bf16(x: f32) -> f32 {
let bits = bitcast<u32>(x);
let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u;
return select(bitcast<f32>(rounded), x, is_nan(x));
}"
            }
        }
    }
}

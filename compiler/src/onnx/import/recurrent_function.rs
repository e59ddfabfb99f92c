//! The functions of recurrent layers' gates and states.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__LSTM.html>, of which GRU and RNN take the same.

use eec_ir::{Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::activation::{exponential, leaky, ramp, softplus, softsign, thresholded, where_negative};
use super::node::Cx;

/// A function of one element, with its parameters: alpha, then beta.
#[derive(Clone, Copy)]
pub(super) enum Function {
    Sigmoid,
    Tanh,
    Relu,
    Softsign,
    Softplus,
    LeakyRelu(f64),
    ThresholdedRelu(f64),
    Elu(f64),
    HardSigmoid(f64, f64),
    ScaledTanh(f64, f64),
    Affine(f64, f64),
}

impl Function {
    /// The functions that the attributes of a layer name, or these. Those that take parameters take the next ones that
    /// are listed, and their usual ones where none are left.
    pub(super) fn listed(cx: &mut Cx, usual: Vec<String>) -> NodeResult<Vec<Function>> {
        let names = cx.words("activations")?.unwrap_or(usual);
        let mut alphas = cx.floats("activation_alpha")?.unwrap_or_default().into_iter().map(f64::from);
        let mut betas = cx.floats("activation_beta")?.unwrap_or_default().into_iter().map(f64::from);
        let mut function = |name: &String| {
            let (mut alpha, mut beta) = (|usual| alphas.next().unwrap_or(usual), || betas.next());
            let mut both = || {
                let given = Some(alpha(f64::NAN)).filter(|alpha| !alpha.is_nan()).zip(beta());
                given.ok_or_else(|| Refusal::new(format!("activation `{name}` needs its alpha and beta")))
            };
            Ok(match name.to_ascii_lowercase().as_str() {
                "sigmoid" => Function::Sigmoid,
                "tanh" => Function::Tanh,
                "relu" => Function::Relu,
                "softsign" => Function::Softsign,
                "softplus" => Function::Softplus,
                "leakyrelu" => Function::LeakyRelu(alpha(0.01)),
                "thresholdedrelu" => Function::ThresholdedRelu(alpha(1.0)),
                "elu" => Function::Elu(alpha(1.0)),
                "hardsigmoid" => Function::HardSigmoid(alpha(0.2), beta().unwrap_or(0.5)),
                "scaledtanh" => both().map(|(alpha, beta)| Function::ScaledTanh(alpha, beta))?,
                "affine" => both().map(|(alpha, beta)| Function::Affine(alpha, beta))?,
                _ => return refuse(format!("activation `{name}` is not known")),
            })
        };
        names.iter().map(&mut function).collect()
    }

    pub(super) fn of(self, cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
        match self {
            Function::Sigmoid => cx.unary(Op::Sigmoid {}, x),
            Function::Tanh => cx.unary(Op::Tanh {}, x),
            Function::Relu => cx.unary(Op::Relu {}, x),
            Function::Softsign => softsign(cx, x),
            Function::Softplus => softplus(cx, x),
            Function::LeakyRelu(alpha) => leaky(cx, x, alpha),
            Function::ThresholdedRelu(alpha) => thresholded(cx, x, alpha),
            Function::Elu(alpha) => {
                let below = exponential(cx, x, alpha, 1.0)?;
                where_negative(cx, x, below)
            }
            Function::HardSigmoid(alpha, beta) => ramp(cx, x, alpha, beta),
            Function::ScaledTanh(alpha, beta) => {
                let inner = cx.times(x, beta)?;
                let tanh = cx.unary(Op::Tanh {}, inner)?;
                cx.times(tanh, alpha)
            }
            Function::Affine(alpha, beta) => {
                let scaled = cx.times(x, alpha)?;
                cx.plus(scaled, beta)
            }
        }
    }
}

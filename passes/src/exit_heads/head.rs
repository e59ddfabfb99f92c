//! The classifiers that stand at exits.

use eec_ir::{DType, Dim, Graph, Symbol, Tensor, Type, ValueId};

use crate::clone::{self, Changes, Substitution, ValueMap};
use crate::dense::{Activation, activate, dense};
use crate::emit::{Emit, EmitError};

/// A classifier at an exit.
#[derive(Clone, Debug)]
pub enum Head {
    /// `feature · weight + bias` on the model's own pooled feature.
    Linear {
        /// `[width, classes]`.
        weight: Tensor,
        /// `[classes]`.
        bias: Tensor,
    },
    /// Two dense layers on the model's own pooled feature.
    Mlp {
        /// `[width, hidden]`.
        hidden_weight: Tensor,
        /// `[hidden]`.
        hidden_bias: Tensor,
        /// The function between the layers.
        activation: Activation,
        /// `[hidden, classes]`.
        weight: Tensor,
        /// `[classes]`.
        bias: Tensor,
    },
    /// The model's own tail on the exit's value, weights shared.
    Final,
    /// A user's graph from the exit's value (its only input, batch first) to logits.
    Custom(Box<Graph>),
}

impl Head {
    /// The name in options and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Head::Linear { .. } => "linear",
            Head::Mlp { .. } => "mlp",
            Head::Final => "final",
            Head::Custom(_) => "custom",
        }
    }

    /// Whether it takes the pooled feature, not the exit's value itself.
    pub fn takes_feature(&self) -> bool {
        matches!(self, Head::Linear { .. } | Head::Mlp { .. })
    }

    /// The width of the feature it takes, if it takes one.
    pub fn width(&self) -> Option<usize> {
        match self {
            Head::Linear { weight, .. } => weight.dims().first().copied(),
            Head::Mlp { hidden_weight, .. } => hidden_weight.dims().first().copied(),
            Head::Final | Head::Custom(_) => None,
        }
    }
}

/// The logits of a head that takes the feature `[rows, width]`; `None` for other heads.
pub(crate) fn on_feature(emit: &mut Emit, head: &Head, feature: ValueId) -> Result<Option<ValueId>, EmitError> {
    match head {
        Head::Linear { weight, bias } => dense(emit, "logits", feature, weight, bias).map(Some),
        Head::Mlp { hidden_weight, hidden_bias, activation, weight, bias } => {
            let hidden = dense(emit, "hidden", feature, hidden_weight, hidden_bias)?;
            let bent = activate(emit, *activation, hidden)?;
            dense(emit, "logits", bent, weight, bias).map(Some)
        }
        Head::Final | Head::Custom(_) => Ok(None),
    }
}

/// The logits of a user's graph on `x`; an error names what does not fit.
pub(crate) fn custom(emit: &mut Emit, head: &Graph, x: ValueId) -> Result<ValueId, String> {
    let (&[input], &[output]) = (head.inputs(), head.outputs()) else {
        let (i, o) = (head.inputs().len(), head.outputs().len());
        return Err(format!("expected a graph with 1 input and 1 output, found {i} and {o}"));
    };
    let rows = head.ty(input).dims.first().and_then(Dim::as_symbol);
    let sizes: Vec<Substitution> =
        rows.map(|symbol| Substitution { from: symbol.clone(), to: emit.rows(x) }).into_iter().collect();
    let ty = head.ty(input);
    let expected = Type::new(ty.dtype, ty.dims.iter().map(|d| Substitution::apply_all(&sizes, d)));
    if expected != *emit.ty(x) {
        return Err(format!("its input has type {}, the exit's value {}", head.ty(input), emit.ty(x)));
    }
    let mut map = ValueMap::from([(input, x)]);
    let nodes = &head.region(Graph::ROOT).nodes;
    let origin = emit.origin("custom");
    let changes = Changes { sizes: &sizes, ops: None, origin: Some(&origin) };
    clone::clone_nodes(head, nodes, emit.graph, emit.region, &mut map, changes).map_err(|e| e.to_string())?;
    clone::counterpart(head, emit.graph, &mut map, output).ok_or_else(|| "its output is not computed".to_string())
}

/// A float matrix type of `rows` rows, named by a symbol.
pub(crate) fn matrix_type(rows: &Symbol, width: usize) -> Type {
    Type::new(DType::F32, [rows.clone().into(), Dim::from(width as i64)])
}

//! The same computation on inputs that arrive as views: transposed, sliced with steps, backwards,
//! broadcast. Kernels must read them strided.

use eec_ir::{Dim, Graph, Op, Origin, Type, ValueId};
use eec_passes::clone::{Changes, ValueMap, clone_nodes, counterpart};

/// How inputs arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// As they are.
    Dense,
    /// With the last two dims swapped in memory.
    Transposed,
    /// Every second element of the last dim, from the second on.
    Stepped,
    /// The first dim backwards.
    Backwards,
    /// One element along the last dim, repeated.
    Broadcast,
}

impl Layout {
    /// All of them.
    pub const ALL: [Layout; 5] =
        [Layout::Dense, Layout::Transposed, Layout::Stepped, Layout::Backwards, Layout::Broadcast];

    /// The input's own type, and the operator that gives one of type `ty`.
    fn of(self, ty: &Type) -> Option<(Type, Op)> {
        let rank = ty.rank();
        let last = ty.dims.last()?.clone();
        let with_last = |d: Dim| Type::new(ty.dtype, ty.dims[..rank - 1].iter().cloned().chain([d]));
        let fixed = last.as_const().is_some();
        let zero = Dim::default;
        match self {
            Layout::Dense => None,
            Layout::Transposed if rank >= 2 => {
                let mut perm: Vec<i64> = (0..rank as i64).collect();
                perm.swap(rank - 2, rank - 1);
                let dims = perm.iter().map(|a| ty.dims[*a as usize].clone());
                Some((Type::new(ty.dtype, dims), Op::Transpose { perm }))
            }
            Layout::Stepped if fixed => {
                let all = &(&last + &last) + &Dim::from(1);
                let slice = Op::Slice {
                    axes: vec![rank as i64 - 1],
                    starts: vec![1.into()],
                    ends: vec![all.clone()],
                    steps: vec![2],
                };
                Some((with_last(all), slice))
            }
            Layout::Backwards => {
                let start = &ty.dims[0] - &Dim::from(1);
                let slice = Op::Slice {
                    axes: vec![0],
                    starts: vec![start],
                    ends: vec![&zero() - &Dim::from(1)],
                    steps: vec![-1],
                };
                Some((ty.clone(), slice))
            }
            Layout::Broadcast if fixed => Some((with_last(1.into()), Op::Expand { dims: ty.dims.clone() })),
            Layout::Transposed | Layout::Stepped | Layout::Broadcast => None,
        }
    }
}

/// The graph with inputs of this layout; `None` if it is the same for all of them.
///
/// # Errors
/// The copy does not type-check.
pub fn with_layout(graph: &Graph, layout: Layout) -> Result<Option<Graph>, String> {
    let mut target = Graph::new(&graph.name);
    let mut map = ValueMap::new();
    let mut changed = false;
    for value in graph.inputs() {
        let (name, ty) = (graph.value(*value).name.as_deref().unwrap_or_default(), graph.ty(*value));
        let shown = match layout.of(ty) {
            Some((own, op)) => {
                changed = true;
                let input = target.add_input(name, own);
                target.append1(Graph::ROOT, op, &[input], Origin::default()).map_err(|e| e.to_string())?
            }
            None => target.add_input(name, ty.clone()),
        };
        map.insert(*value, shown);
    }
    if !changed {
        return Ok(None);
    }
    let nodes = graph.region(Graph::ROOT).nodes.clone();
    clone_nodes(graph, &nodes, &mut target, Graph::ROOT, &mut map, Changes::default()).map_err(|e| e.to_string())?;
    let value = |v: &ValueId, target: &mut Graph, map: &mut ValueMap| counterpart(graph, target, map, *v);
    let mut outputs = Vec::new();
    for (name, v) in graph.output_names().iter().zip(graph.outputs()) {
        let v = value(v, &mut target, &mut map).ok_or_else(|| format!("output {name} is not computed"))?;
        outputs.push((name.to_string(), v));
    }
    target.set_outputs(outputs);
    Ok(Some(target))
}

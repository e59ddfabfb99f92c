//! Random graphs: a list of numbers steers which operators are appended to which values.

use eec_ir::entity::{RegionId, ValueId};
use eec_ir::graph::Origin;
use eec_ir::{DType, Dim, Graph, Op, Precision, Symbol, Tensor, Type};

/// What one step does: the operator, and numbers that choose operands, attributes and names.
pub(crate) type Step = (u8, u16, u16, u8);

/// A graph made by `steps`; those that do not fit their operands are left out.
pub(crate) fn build(steps: &[Step]) -> Graph {
    let mut graph = Graph::new(if steps.len().is_multiple_of(2) { "random" } else { "a \"random\" graph" });
    let (batch, seq) = (Dim::symbol("batch"), Dim::symbol("seq len"));
    let mut scope = vec![
        graph.add_input("x", Type::new(DType::F32, [batch.clone(), 4.into()])),
        graph.add_input("a b%", Type::new(DType::F32, [batch.clone(), seq.clone(), 6.into()])),
        graph.add_input("mask", Type::new(DType::Bool, [batch.clone()])),
        graph.add_input("c", Type::new(DType::Bool, [])),
        graph.add_input("r0", Type::new(DType::I64, [&batch + &seq, Dim::symbol("r0")])),
    ];
    let mut builder = Builder { graph, budget: 60 };
    builder.run(Graph::ROOT, steps, &mut scope, &[]);
    let picks = steps.iter().map(|s| s.1 as usize).chain([0]);
    let outputs = picks.take(3).enumerate().map(|(i, p)| (format!("out {i}"), scope[p % scope.len()]));
    let outputs = outputs.collect();
    builder.graph.set_outputs(outputs);
    builder.graph
}

struct Builder {
    graph: Graph,
    /// Nodes that may still be made, so that nested regions end.
    budget: usize,
}

fn weights(rows: usize, columns: usize, seed: u16) -> Tensor {
    let data = (0..rows * columns).map(|i| (i as f32 + f32::from(seed)) / 7.0).collect();
    Tensor::new(&[rows, columns], data).expect("as many elements as the dims ask for")
}

/// Constants of all element types, with the values that are hard to print.
fn small_constant(choice: u16) -> Tensor {
    match choice % 8 {
        0 => Tensor::scalar(0.1f32),
        1 => Tensor::scalar(f32::from_bits(0xffc0_0001)),
        2 => Tensor::vector(vec![f32::NEG_INFINITY, -0.0, f32::NAN, 1e-42]),
        3 => Tensor::scalar(i64::MIN),
        4 => Tensor::vector(vec![i64::MAX, -1, 0]),
        5 => Tensor::vector(vec![i32::MIN, 7]),
        6 => Tensor::new(&[2, 1], vec![1u8, 0]).expect("two bools"),
        _ => Tensor::scalar(3i32),
    }
}

impl Builder {
    /// Runs `steps` in `region`; `hidden` are row symbols that may not be read from outside.
    fn run(&mut self, region: RegionId, steps: &[Step], scope: &mut Vec<ValueId>, hidden: &[Symbol]) {
        for (i, step) in steps.iter().enumerate() {
            if self.budget == 0 {
                return;
            }
            self.budget -= 1;
            let inner = &steps[i + 1..steps.len().min(i + 6)];
            let made = match step.0 % 20 {
                16 => self.repeat(region, *step, inner, scope, hidden),
                17 => self.branch(region, *step, inner, scope, hidden),
                18 | 19 => self.route(region, *step, inner, scope, hidden),
                _ => self.plain(region, *step, scope).into_iter().collect(),
            };
            scope.extend(made);
        }
    }

    fn origin((_, a, b, names): Step) -> Origin {
        let source = (names & 1 == 1).then(|| format!("block.{a}/\"fc\"\n").into());
        let pass = (names & 2 == 2).then(|| if b & 1 == 1 { "exit-heads".into() } else { "two words".into() });
        Origin { source, pass }
    }

    fn name(&mut self, value: ValueId, (_, a, _, names): Step) {
        match names >> 5 {
            0 => self.graph.set_name(value, "x"),
            1 => self.graph.set_name(value, &format!("h.{}", a % 3)),
            2 => self.graph.set_name(value, &format!("{}", a % 3)),
            _ => {}
        }
    }

    fn plain(&mut self, region: RegionId, step: Step, scope: &[ValueId]) -> Option<ValueId> {
        let (kind, a, b, c) = step;
        let pick = |n: u16| scope[n as usize % scope.len()];
        let x = pick(a);
        let ty = self.graph.ty(x).clone();
        let last = ty.dims.last().and_then(Dim::as_const).unwrap_or(4).clamp(1, 16) as usize;
        let rank = ty.rank() as i64;
        let (op, inputs) = match kind % 20 {
            0 => (Op::Add {}, vec![x, pick(b)]),
            1 => (Op::Mul {}, vec![x, x]),
            2 => (Op::Softmax { axis: i64::from(c % 2) - 1 }, vec![x]),
            3 | 4 => (Op::MATMUL, vec![x, self.graph.constant(weights(last, b as usize % 3 + 2, b))]),
            5 => (Op::Reshape { dims: vec![ty.elements()] }, vec![x]),
            6 => (Op::Reshape { dims: vec![1.into()].into_iter().chain(ty.dims.iter().cloned()).collect() }, vec![x]),
            7 => (Op::Transpose { perm: (0..rank).rev().collect() }, vec![x]),
            8 => (Op::ReduceMax { axes: vec![-1], keepdims: c & 1 == 1 }, vec![x]),
            9 => (Op::Concat { axis: 0 }, vec![x, pick(b), x]),
            10 => {
                let half = ty.dims.first().and_then(|d| d.floor_div(&2.into())).unwrap_or_default();
                (Op::Slice { axes: vec![0], starts: vec![0.into()], ends: vec![half], steps: vec![1] }, vec![x])
            }
            11 => {
                let (w, bias) = (weights(3, last, b), Tensor::vector(vec![0.5f32, -1.25, f32::INFINITY]));
                let gemm = Op::Gemm { alpha: 0.5, beta: 1.0, trans_a: false, trans_b: true, weights: Precision::F32 };
                (gemm, vec![x, self.graph.constant(w), self.graph.constant(bias)])
            }
            12 => (Op::Greater {}, vec![x, self.graph.constant(Tensor::scalar(f32::from(b) / 3.0))]),
            13 => (Op::Cast { to: DType::ALL[b as usize % 4] }, vec![x]),
            14 => (Op::Clip { min: -f32::from(c), max: f32::INFINITY }, vec![x]),
            15 => return Some(self.graph.constant(small_constant(b))),
            _ => (Op::Sizes { values: ty.dims.clone() }, vec![]),
        };
        let value = self.graph.append1(region, op, &inputs, Self::origin(step)).ok()?;
        self.name(value, step);
        Some(value)
    }

    /// The last truth value in scope.
    fn condition(&self, scope: &[ValueId]) -> Option<ValueId> {
        scope.iter().rfind(|v| self.graph.ty(**v) == &Type::new(DType::Bool, [])).copied()
    }

    /// Two values of one type in two regions: an `If` on the scalar input.
    fn branch(
        &mut self,
        at: RegionId,
        step: Step,
        inner: &[Step],
        scope: &[ValueId],
        hidden: &[Symbol],
    ) -> Vec<ValueId> {
        let Some(condition) = self.condition(scope) else { return Vec::new() };
        let x = scope[step.1 as usize % scope.len()];
        let regions: Vec<_> = (0..2)
            .map(|i| {
                let region = self.graph.new_region(None);
                let mut scope = scope.to_vec();
                self.run(region, inner, &mut scope, hidden);
                let y = if i == 0 { x } else { self.like(region, x) };
                self.graph.set_yields(region, vec![y]);
                region
            })
            .collect();
        let node =
            self.graph.append_control(at, Op::If { exit: -1, gate: -1 }, &[condition], regions, Self::origin(step));
        node.map(|n| self.graph.node(n).outputs.clone()).unwrap_or_default()
    }

    /// A `Loop` that carries one value: so often as a size says, with a row of every step, or while the scalar
    /// input holds.
    fn repeat(
        &mut self,
        at: RegionId,
        step: Step,
        inner: &[Step],
        scope: &[ValueId],
        hidden: &[Symbol],
    ) -> Vec<ValueId> {
        let condition = self.condition(scope).filter(|_| step.2 & 1 == 1);
        let holds = self.graph.constant(Tensor::scalar(1u8));
        let x = scope[step.1 as usize % scope.len()];
        let ty = self.graph.ty(x).clone();
        let trips = match (step.2 / 2 % 4, ty.dims.first()) {
            (0, Some(size)) => size.clone(),
            (steps, _) => Dim::from(i64::from(steps)),
        };
        let region = self.graph.new_region(None);
        let number = self.graph.add_param(region, Type::new(DType::I64, []));
        let carried = self.graph.add_param(region, ty);
        let mut inside: Vec<ValueId> = scope.iter().copied().chain([number, carried]).collect();
        self.run(region, inner, &mut inside, hidden);
        let next = self.like(region, carried);
        let mut yields = vec![condition.unwrap_or(holds), next];
        yields.extend(condition.is_none().then_some(carried));
        self.graph.set_yields(region, yields);
        let inputs = [condition.unwrap_or(holds), x];
        let node = self.graph.append_control(at, Op::Loop { trips }, &inputs, vec![region], Self::origin(step));
        node.map(|n| self.graph.node(n).outputs.clone()).unwrap_or_default()
    }

    /// A `Route` of one or two row-aligned values.
    fn route(
        &mut self,
        at: RegionId,
        step: Step,
        inner: &[Step],
        scope: &[ValueId],
        hidden: &[Symbol],
    ) -> Vec<ValueId> {
        let mask_rows = |v: &ValueId| match (self.graph.ty(*v).dtype, self.graph.ty(*v).dims.as_slice()) {
            (DType::Bool, [rows]) => rows.as_symbol().cloned().map(|s| (*v, s)),
            _ => None,
        };
        let Some((mask, symbol)) = scope.iter().rev().find_map(mask_rows) else { return Vec::new() };
        let rows = Dim::from(symbol.clone());
        let aligned = scope.iter().filter(|v| {
            let ty = self.graph.ty(**v);
            ty.dims.first() == Some(&rows) && ty.dims[1..].iter().all(|d| !d.mentions(&symbol))
        });
        let operands: Vec<ValueId> = aligned.rev().take(1 + step.1 as usize % 3).copied().collect();
        let hidden: Vec<Symbol> = hidden.iter().cloned().chain([symbol]).collect();
        let regions: Vec<RegionId> = (0..2).map(|_| self.routed(&operands, inner, scope, &hidden)).collect();
        let inputs: Vec<ValueId> = std::iter::once(mask).chain(operands).collect();
        let node =
            self.graph.append_control(at, Op::Route { exit: -1, gate: -1 }, &inputs, regions, Self::origin(step));
        let outputs = self.graph.node(node.expect("the regions yield what their parameters are like")).outputs.clone();
        self.name(outputs[0], step);
        outputs
    }

    fn routed(&mut self, operands: &[ValueId], inner: &[Step], scope: &[ValueId], hidden: &[Symbol]) -> RegionId {
        let rows = self.graph.fresh_symbol("r");
        let region = self.graph.new_region(Some(rows.clone()));
        let mut params = Vec::new();
        for v in operands {
            let mut ty = self.graph.ty(*v).clone();
            ty.dims[0] = rows.clone().into();
            params.push(self.graph.add_param(region, ty));
        }
        let shown = |v: &&ValueId| self.graph.ty(**v).dims.iter().all(|d| !hidden.iter().any(|s| d.mentions(s)));
        let mut scope: Vec<ValueId> = scope.iter().filter(shown).chain(&params).copied().collect();
        self.run(region, inner, &mut scope, hidden);
        let yields = params.iter().map(|p| self.like(region, *p)).collect();
        self.graph.set_yields(region, yields);
        region
    }

    /// Another value of the same type.
    fn like(&mut self, region: RegionId, value: ValueId) -> ValueId {
        let op = match self.graph.ty(value).dtype {
            DType::Bool => Op::Not {},
            _ => Op::Neg {},
        };
        self.graph.append1(region, op, &[value], Origin::default()).expect("takes any shape")
    }
}

//! Small models for tests, built by hand: every shape differs from its neighbours and every weight
//! depends on its index.

use eec_ir::{DType, Dim, Graph, Op, Origin, Tensor, Type, ValueId};

/// A number in `[-0.5, 0.5)` from a position and a seed.
pub(crate) fn noise(index: usize, seed: usize) -> f32 {
    let mixed = (index + 7919 * (seed + 1)).wrapping_mul(2654435761) % 1_000_003;
    mixed as f32 / 1_000_003.0 - 0.5
}

/// A tensor of [`noise`] times `scale`.
pub(crate) fn tensor(dims: &[usize], seed: usize, scale: f32) -> Tensor {
    let data = (0..dims.iter().product()).map(|i| noise(i, seed) * scale).collect();
    Tensor::new::<f32>(dims, data).unwrap()
}

/// A graph under construction.
pub(crate) struct Net {
    pub(crate) graph: Graph,
    seed: usize,
}

pub(crate) fn dims(list: &[&Dim]) -> Vec<Dim> {
    list.iter().map(|d| (*d).clone()).collect()
}

pub(crate) fn int(n: i64) -> Dim {
    Dim::from(n)
}

impl Net {
    pub(crate) fn new(name: &str) -> Net {
        Net { graph: Graph::new(name), seed: 0 }
    }

    pub(crate) fn op(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.graph.append1(Graph::ROOT, op, inputs, Origin::default()).unwrap()
    }

    pub(crate) fn input(&mut self, name: &str, dtype: DType, shape: &[&Dim]) -> ValueId {
        self.graph.add_input(name, Type::new(dtype, dims(shape)))
    }

    pub(crate) fn weight(&mut self, shape: &[usize]) -> ValueId {
        self.seed += 1;
        let fan_in = if shape.len() == 4 { shape[1..].iter().product() } else { shape[0] };
        let tensor = tensor(shape, self.seed, 3.0 / (fan_in as f32).sqrt());
        self.graph.constant(tensor)
    }

    pub(crate) fn scalar(&mut self, value: f32) -> ValueId {
        self.graph.constant(Tensor::scalar(value))
    }

    pub(crate) fn linear(&mut self, x: ValueId, from: usize, to: usize) -> ValueId {
        let (w, b) = (self.weight(&[from, to]), self.weight(&[to]));
        let product = self.op(Op::MATMUL, &[x, w]);
        self.op(Op::Add {}, &[product, b])
    }

    pub(crate) fn norm(&mut self, x: ValueId, width: usize) -> ValueId {
        let (scale, bias) = (self.weight(&[width]), self.weight(&[width]));
        self.op(Op::LayerNormalization { axis: -1, epsilon: 1e-5 }, &[x, scale, bias])
    }

    /// Attention of `heads` heads over `x` `[batch, tokens, heads*size]`, with an additive mask.
    pub(crate) fn attention(&mut self, x: ValueId, heads: usize, size: usize, mask: Option<ValueId>) -> ValueId {
        let shape = self.graph.ty(x).dims.clone();
        let (batch, tokens, width) = (&shape[0], &shape[1], heads * size);
        let split = dims(&[batch, tokens, &int(heads as i64), &int(size as i64)]);
        let mut part = |perm: [i64; 4]| {
            let y = self.linear(x, width, width);
            let y = self.op(Op::Reshape { dims: split.clone() }, &[y]);
            self.op(Op::Transpose { perm: perm.to_vec() }, &[y])
        };
        let (q, k, v) = (part([0, 2, 1, 3]), part([0, 2, 3, 1]), part([0, 2, 1, 3]));
        let mut scores = self.op(Op::MATMUL, &[q, k]);
        if let Some(mask) = mask {
            scores = self.op(Op::Add {}, &[scores, mask]);
        }
        let p = self.op(Op::Softmax { axis: -1 }, &[scores]);
        let y = self.op(Op::MATMUL, &[p, v]);
        let y = self.op(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[y]);
        let y = self.op(Op::Reshape { dims: dims(&[batch, tokens, &int(width as i64)]) }, &[y]);
        self.linear(y, width, width)
    }

    pub(crate) fn ffn(&mut self, x: ValueId, width: usize, hidden: usize) -> ValueId {
        let h = self.linear(x, width, hidden);
        let h = self.op(Op::Gelu { tanh: false }, &[h]);
        self.linear(h, hidden, width)
    }

    pub(crate) fn pre_norm_block(&mut self, x: ValueId, heads: usize, size: usize) -> ValueId {
        let width = heads * size;
        let n = self.norm(x, width);
        let a = self.attention(n, heads, size, None);
        let x = self.op(Op::Add {}, &[x, a]);
        let n = self.norm(x, width);
        let f = self.ffn(n, width, width + 5);
        self.op(Op::Add {}, &[x, f])
    }

    pub(crate) fn post_norm_block(&mut self, x: ValueId, heads: usize, size: usize, mask: ValueId) -> ValueId {
        let width = heads * size;
        let a = self.attention(x, heads, size, Some(mask));
        let x = self.op(Op::Add {}, &[a, x]);
        let x = self.norm(x, width);
        let f = self.ffn(x, width, width + 3);
        let x = self.op(Op::Add {}, &[f, x]);
        self.norm(x, width)
    }

    pub(crate) fn conv(&mut self, x: ValueId, from: usize, to: usize, kernel: usize, stride: i64) -> ValueId {
        let (w, b) = (self.weight(&[to, from, kernel, kernel]), self.weight(&[to]));
        let pad = (kernel / 2) as i64;
        let op = Op::Conv { group: 1, strides: vec![stride; 2], dilations: vec![1; 2], pads: vec![pad; 4] };
        self.op(op, &[x, w, b])
    }

    pub(crate) fn residual_conv(&mut self, x: ValueId, from: usize, to: usize, stride: i64) -> ValueId {
        let y = self.conv(x, from, to, 3, stride);
        let y = self.op(Op::Relu {}, &[y]);
        let y = self.conv(y, to, to, 3, 1);
        let skip = if stride == 1 { x } else { self.conv(x, from, to, 1, stride) };
        let sum = self.op(Op::Add {}, &[y, skip]);
        self.op(Op::Relu {}, &[sum])
    }

    /// Slice `index` along `axis`.
    pub(crate) fn select(&mut self, x: ValueId, axis: i64, index: i64) -> ValueId {
        let at = self.graph.constant(Tensor::scalar(index));
        self.op(Op::Gather { axis }, &[x, at])
    }

    pub(crate) fn finish(mut self, output: ValueId) -> Graph {
        self.graph.set_outputs(vec![("logits".to_string(), output)]);
        self.graph
    }
}

pub(crate) fn batch() -> Dim {
    Dim::symbol("batch")
}

/// Tokens f32 `[batch, 5, 6]`, three pre-norm blocks, class token, 4 classes.
pub(crate) fn vit(batch: &Dim) -> Graph {
    let mut net = Net::new("vit");
    let x = net.input("x", DType::F32, &[batch, &int(5), &int(7)]);
    let x = net.linear(x, 7, 6);
    let positions = net.weight(&[1, 5, 6]);
    let mut x = net.op(Op::Add {}, &[x, positions]);
    for _ in 0..3 {
        x = net.pre_norm_block(x, 2, 3);
    }
    let x = net.norm(x, 6);
    let x = net.select(x, 1, 0);
    let y = net.linear(x, 6, 4);
    net.finish(y)
}

/// Words i64 `[batch, seq]` and a mask, three post-norm blocks, pooler, 3 classes.
pub(crate) fn bert() -> Graph {
    let (batch, seq) = (batch(), Dim::symbol("seq"));
    let mut net = Net::new("bert");
    let ids = net.input("ids", DType::I64, &[&batch, &seq]);
    let mask = net.input("mask", DType::I64, &[&batch, &seq]);
    let table = net.weight(&[11, 6]);
    let x = net.op(Op::Gather { axis: 0 }, &[table, ids]);
    let mut x = net.norm(x, 6);
    let keep = net.op(Op::Cast { to: DType::Bool }, &[mask]);
    let keep = net.op(Op::Reshape { dims: dims(&[&batch, &int(1), &int(1), &seq]) }, &[keep]);
    let (zero, low) = (net.scalar(0.0), net.scalar(-1e9));
    let bias = net.op(Op::Where {}, &[keep, zero, low]);
    for _ in 0..3 {
        x = net.post_norm_block(x, 3, 2, bias);
    }
    let x = net.select(x, 1, 0);
    let x = net.linear(x, 6, 8);
    let x = net.op(Op::Tanh {}, &[x]);
    let y = net.linear(x, 8, 3);
    net.finish(y)
}

/// Images f32 `[batch, 3, 8, 6]`, four residual units in two stages, 5 classes.
pub(crate) fn resnet(batch: &Dim) -> Graph {
    let mut net = Net::new("resnet");
    let x = net.input("x", DType::F32, &[batch, &int(3), &int(8), &int(6)]);
    let x = net.conv(x, 3, 4, 3, 1);
    let x = net.op(Op::Relu {}, &[x]);
    let x = net.residual_conv(x, 4, 4, 1);
    let x = net.residual_conv(x, 4, 4, 1);
    let x = net.residual_conv(x, 4, 6, 2);
    let x = net.residual_conv(x, 6, 6, 1);
    let x = net.op(Op::ReduceMean { axes: vec![2, 3], keepdims: true }, &[x]);
    let x = net.op(Op::Reshape { dims: dims(&[batch, &int(6)]) }, &[x]);
    let y = net.linear(x, 6, 5);
    net.finish(y)
}

/// Rows f32 `[batch, 6]`, three hidden layers, 4 classes.
pub(crate) fn mlp(batch: &Dim) -> Graph {
    let mut net = Net::new("mlp");
    let mut x = net.input("x", DType::F32, &[batch, &int(6)]);
    for (from, to) in [(6, 7), (7, 7), (7, 9)] {
        x = net.linear(x, from, to);
        x = net.op(Op::Relu {}, &[x]);
    }
    let y = net.linear(x, 9, 4);
    net.finish(y)
}

/// Words and their number per sample: the tail takes each sample's last token by row number. The
/// blocks hold token-major values `[seq*batch, 6]` with a per-token scale.
pub(crate) fn last_token() -> Graph {
    let (batch, seq) = (batch(), Dim::symbol("seq"));
    let mut net = Net::new("last-token");
    let ids = net.input("ids", DType::I64, &[&batch, &seq]);
    let last = net.input("last", DType::I64, &[&batch]);
    let table = net.weight(&[13, 6]);
    let mut x = net.op(Op::Gather { axis: 0 }, &[table, ids]);
    let weights = net.op(Op::Cast { to: DType::F32 }, &[ids]);
    let tenth = net.scalar(0.1);
    let weights = net.op(Op::Mul {}, &[weights, tenth]);
    let weights = net.op(Op::Transpose { perm: vec![1, 0] }, &[weights]);
    let weights = net.op(Op::Reshape { dims: dims(&[&(&seq * &batch), &int(1)]) }, &[weights]);
    for _ in 0..3 {
        let y = net.op(Op::Transpose { perm: vec![1, 0, 2] }, &[x]);
        let y = net.op(Op::Reshape { dims: dims(&[&(&seq * &batch), &int(6)]) }, &[y]);
        let y = net.op(Op::Mul {}, &[y, weights]);
        let y = net.ffn(y, 6, 4);
        let y = net.op(Op::Reshape { dims: dims(&[&seq, &batch, &int(6)]) }, &[y]);
        let y = net.op(Op::Transpose { perm: vec![1, 0, 2] }, &[y]);
        x = net.op(Op::Add {}, &[x, y]);
    }
    let numbers = net.op(Op::Range { start: int(0), limit: batch.clone(), delta: 1 }, &[]);
    let numbers = net.op(Op::Reshape { dims: dims(&[&batch, &int(1)]) }, &[numbers]);
    let last = net.op(Op::Reshape { dims: dims(&[&batch, &int(1)]) }, &[last]);
    let at = net.op(Op::Concat { axis: 1 }, &[numbers, last]);
    let x = net.op(Op::GatherND { batch_dims: 0 }, &[x, at]);
    let y = net.linear(x, 6, 4);
    net.finish(y)
}

/// Decoder blocks whose keys are appended to a cache input; the output is per token or one row.
pub(crate) fn decoder(per_token: bool) -> Graph {
    let (batch, past, mut net) = (batch(), Dim::symbol("past"), Net::new("decoder"));
    let ids = net.input("ids", DType::I64, &[&batch, &int(2)]);
    let caches: Vec<ValueId> =
        (0..2).map(|i| net.input(&format!("past.{i}"), DType::F32, &[&batch, &past, &int(6)])).collect();
    let table = net.weight(&[9, 6]);
    let mut x = net.op(Op::Gather { axis: 0 }, &[table, ids]);
    let mut presents = Vec::new();
    for cache in caches {
        let new = net.linear(x, 6, 6);
        let keys = net.op(Op::Concat { axis: 1 }, &[cache, new]);
        presents.push(keys);
        let turned = net.op(Op::Transpose { perm: vec![0, 2, 1] }, &[keys]);
        let scores = net.op(Op::MATMUL, &[x, turned]);
        let p = net.op(Op::Softmax { axis: 2 }, &[scores]);
        let y = net.op(Op::MATMUL, &[p, keys]);
        let y = net.op(Op::Add {}, &[x, y]);
        let f = net.ffn(y, 6, 5);
        x = net.op(Op::Add {}, &[y, f]);
    }
    let x = if per_token { x } else { net.select(x, 1, 1) };
    let y = net.linear(x, 6, 3);
    let mut outputs = vec![("logits".to_string(), y)];
    outputs.extend(presents.into_iter().enumerate().map(|(i, v)| (format!("present.{i}"), v)));
    net.graph.set_outputs(outputs);
    net.graph
}

/// A vision-language classifier whose visual tokens stand between two texts.
#[derive(Clone)]
pub(crate) struct VisionLanguage {
    /// The lengths of the texts before and after the 4 visual tokens.
    pub(crate) text: [Dim; 2],
    /// Whether the tail takes the mean of all tokens, or else the last.
    pub(crate) mean: bool,
    /// Whether blocks mask by a condition, or else by a sum.
    pub(crate) select: bool,
    /// The block after which no token sees the visual ones any more, nor does the tail.
    pub(crate) blind_after: Option<usize>,
}

impl VisionLanguage {
    pub(crate) const VISUAL: i64 = 4;
    const WIDTH: usize = 8;

    fn sequence(&self) -> Dim {
        &(&self.text[0] + &self.text[1]) + &int(Self::VISUAL)
    }

    /// Images f32 `[batch, 2, 4, 4]`, words i64 `[batch, text]` where there is text, and which tokens
    /// count, i64 `[batch, tokens]`; four pre-norm blocks with rotary positions, 3 classes.
    pub(crate) fn graph(&self) -> Graph {
        let (mut net, n) = (Net::new("vision-language"), self.sequence());
        let image = net.input("image", DType::F32, &[&batch(), &int(2), &int(4), &int(4)]);
        let table = net.weight(&[11, Self::WIDTH]);
        let weight = net.weight(&[Self::WIDTH, 2, 2, 2]);
        let op = Op::Conv { group: 1, strides: vec![2; 2], dilations: vec![1; 2], pads: vec![0; 4] };
        let x = net.op(op, &[image, weight]);
        let x = net.op(Op::Reshape { dims: dims(&[&batch(), &int(8), &int(Self::VISUAL)]) }, &[x]);
        let visual = net.op(Op::Transpose { perm: vec![0, 2, 1] }, &[x]);
        let mut words = |name: &str, len: &Dim| {
            let ids = (len.as_const() != Some(0)).then(|| net.input(name, DType::I64, &[&batch(), len]))?;
            Some(net.op(Op::Gather { axis: 0 }, &[table, ids]))
        };
        let (before, after) = (words("before", &self.text[0]), words("after", &self.text[1]));
        let parts: Vec<ValueId> = before.into_iter().chain([visual]).chain(after).collect();
        let mut x = net.op(Op::Concat { axis: 1 }, &parts);
        let masks = self.masks(&mut net);
        let tables = [(); 2].map(|()| net.weight(&[1, 1, 16, 4]));
        let cut = Op::Slice { axes: vec![2], starts: vec![int(0)], ends: vec![n], steps: vec![1] };
        let tables = tables.map(|t| net.op(cut.clone(), &[t]));
        for block in 0..4 {
            let blind = self.blind_after.is_some_and(|k| block > k);
            x = self.block(&mut net, x, masks[usize::from(blind)], tables);
        }
        let x = net.norm(x, Self::WIDTH);
        let x = self.pooled(&mut net, x);
        let y = net.linear(x, Self::WIDTH, 3);
        net.finish(y)
    }

    /// Which tokens see which, bool `[batch, 1, tokens, tokens]`: causal, and without the visual ones.
    fn masks(&self, net: &mut Net) -> [ValueId; 2] {
        let n = self.sequence();
        let keep = net.input("mask", DType::I64, &[&batch(), &n]);
        let keep = net.op(Op::Cast { to: DType::Bool }, &[keep]);
        let keep = net.op(Op::Reshape { dims: dims(&[&batch(), &int(1), &int(1), &n]) }, &[keep]);
        let places = net.op(Op::Range { start: int(0), limit: n.clone(), delta: 1 }, &[]);
        let from = net.op(Op::Reshape { dims: dims(&[&int(1), &int(1), &n, &int(1)]) }, &[places]);
        let to = net.op(Op::Reshape { dims: dims(&[&int(1), &int(1), &int(1), &n]) }, &[places]);
        let causal = net.op(Op::LessOrEqual {}, &[to, from]);
        let all = net.op(Op::And {}, &[causal, keep]);
        let start = self.text[0].as_const().unwrap_or_default();
        let [start, end] = [start, start + Self::VISUAL].map(|p| net.graph.constant(Tensor::scalar(p)));
        let outside = [net.op(Op::Less {}, &[to, start]), net.op(Op::GreaterOrEqual {}, &[to, end])];
        let outside = net.op(Op::Or {}, &outside);
        [all, net.op(Op::And {}, &[all, outside])]
    }

    fn block(&self, net: &mut Net, x: ValueId, mask: ValueId, tables: [ValueId; 2]) -> ValueId {
        let n = net.norm(x, Self::WIDTH);
        let a = self.attention(net, n, mask, tables);
        let x = net.op(Op::Add {}, &[x, a]);
        let n = net.norm(x, Self::WIDTH);
        let f = net.ffn(n, Self::WIDTH, 13);
        net.op(Op::Add {}, &[x, f])
    }

    /// Attention of 2 heads with rotary positions.
    fn attention(&self, net: &mut Net, x: ValueId, mask: ValueId, [cos, sin]: [ValueId; 2]) -> ValueId {
        let split = dims(&[&batch(), &self.sequence(), &int(2), &int(4)]);
        let heads = |net: &mut Net| {
            let y = net.linear(x, Self::WIDTH, Self::WIDTH);
            let y = net.op(Op::Reshape { dims: split.clone() }, &[y]);
            net.op(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[y])
        };
        let [q, k, v] = [(); 3].map(|()| heads(net));
        let [q, k] = [q, k].map(|y| {
            let half =
                |from, to| Op::Slice { axes: vec![3], starts: vec![int(from)], ends: vec![int(to)], steps: vec![1] };
            let (low, high) = (net.op(half(0, 2), &[y]), net.op(half(2, 4), &[y]));
            let high = net.op(Op::Neg {}, &[high]);
            let turned = net.op(Op::Concat { axis: -1 }, &[high, low]);
            let (y, turned) = (net.op(Op::Mul {}, &[y, cos]), net.op(Op::Mul {}, &[turned, sin]));
            net.op(Op::Add {}, &[y, turned])
        });
        let k = net.op(Op::Transpose { perm: vec![0, 1, 3, 2] }, &[k]);
        let scores = net.op(Op::MATMUL, &[q, k]);
        let (zero, low) = (net.scalar(0.0), net.scalar(-1e9));
        let scores = if self.select {
            net.op(Op::Where {}, &[mask, scores, low])
        } else {
            let bias = net.op(Op::Where {}, &[mask, zero, low]);
            net.op(Op::Add {}, &[scores, bias])
        };
        let p = net.op(Op::Softmax { axis: -1 }, &[scores]);
        let y = net.op(Op::MATMUL, &[p, v]);
        let y = net.op(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[y]);
        let y = net.op(Op::Reshape { dims: dims(&[&batch(), &self.sequence(), &int(8)]) }, &[y]);
        net.linear(y, Self::WIDTH, Self::WIDTH)
    }

    fn pooled(&self, net: &mut Net, x: ValueId) -> ValueId {
        if !self.mean {
            return net.select(x, 1, -1);
        }
        let part = |start: &Dim, end: &Dim| Op::Slice {
            axes: vec![1],
            starts: vec![start.clone()],
            ends: vec![end.clone()],
            steps: vec![1],
        };
        let x = match self.blind_after {
            None => x,
            Some(_) => {
                let end = &self.text[0] + &int(Self::VISUAL);
                let parts = [part(&int(0), &self.text[0]), part(&end, &self.sequence())].map(|op| net.op(op, &[x]));
                net.op(Op::Concat { axis: 1 }, &parts)
            }
        };
        net.op(Op::ReduceMean { axes: vec![1], keepdims: false }, &[x])
    }
}

//! What weights count: of any width of float, and inside of regions.

use eec_ir::minifloat::Overflow;
use eec_ir::text::parse;
use eec_ir::{DType, Graph, Op, Origin, Tensor, cost};

#[test]
fn weights_count_inside_of_regions_and_in_any_float() {
    let source = "graph @g(%x: f32[n, 2], %h: f16[n, 2]) -> (%y: f32[n, 2]) {
       %y: f32[n, 2] = Loop{trips=3}(true; %x)
         do (%i: i64[], %v: f32[n, 2]) {
           %w: f32[n, 2] = MatMul(%v, const f32[2, 2] {1, 2, 3, 4})
           yield true, %w
         }
       return %y
     }";
    let mut graph = parse(source, &mut |_| None).expect("a graph");
    let half = Tensor::from_f64s(DType::F16, &[2], &[1.0, 2.0], Overflow::Special).expect("two elements");
    let (half, h) = (graph.constant(half), graph.inputs()[1]);
    graph.append1(Graph::ROOT, Op::Add {}, &[h, half], Origin::source("add")).expect("a sum");
    let nodes = &graph.region(Graph::ROOT).nodes;
    assert_eq!(cost::parameters(&graph), 6);
    assert_eq!([0, 1].map(|i| cost::weight_bytes(&graph, &nodes[i..=i])), [16, 4]);
}

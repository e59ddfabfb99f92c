//! The graph IR of eec and everything that needs nothing but it: types, tensors, symbolic sizes, the
//! table of operators with inference and reference evaluation, the text form, the verifier, and the
//! compiled form ([`program`]). It knows nothing of ONNX, of files or of devices.
//!
//! # A graph
//!
//! A [`Graph`] is one arena of values, nodes, regions and constants, in SSA form: every value has one
//! definition and, from that moment on, a type. [`Graph::append`](graph::Graph::append) infers it.
//!
//! ```text
//! ;! passes = "exit-heads"
//!
//! graph @tiny(%x: f32[batch, 4]) -> (%y: f32[batch, 3]) {
//!   %0: f32[batch, 4] = MatMul(%x, const f32[4, 4] #9f31c2)  @"block.0/fc"
//!   %h: f32[batch, 3] = MatMul(%0, const f32[4, 3] #77ab01)  @"exit.0" by exit-heads
//!   %1: f32[batch, 3] = Softmax(%h)  by exit-heads
//!   %2: f32[batch] = ReduceMax{axes=[-1], keepdims=0}(%1)  by exit-heads
//!   %3: bool[batch] = Greater(%2, 0.9)  by exit-heads
//!   %y: f32[batch, 3] = Route{exit=0}(%3; %h, %0)  by exit-heads
//!     then ^1[r0](%4: f32[r0, 3], %5: f32[r0, 4]) {
//!       yield %4
//!     }
//!     else ^2[r1](%6: f32[r1, 3], %7: f32[r1, 4]) {
//!       %8: f32[r1, 3] = MatMul(%7, const f32[4, 3] #c00b17)  @"block.1/fc"
//!       yield %8
//!     }
//!   return %y
//! }
//! ```
//!
//! - **Types** are an element type ([`DType`]) and [`Dim`]s: polynomials over named sizes with
//!   `floordiv`, `max` and `min`, in canonical form, so that equal expressions are equal dims. A
//!   symbol stands for a size that is known only at run time and is never negative. What inference
//!   takes to be equal without seeing it stands in the graph's assumptions.
//! - **Operators** are the closed enum [`Op`], made from one table. Names are ONNX's; shapes, axes and
//!   slice bounds are attributes, not operands.
//! - **Constants** are pooled by content ([`ConstPool`]): equal tensors are one value.
//! - **Regions** see the values of the regions around them. The root's parameters and yields are the
//!   graph's inputs and outputs. `If(%c)` runs one of two regions without parameters. `Route(%mask;
//!   %a, …)` splits the rows (axis 0) of its operands by the mask and runs each region once on its
//!   gathered rows, whose number is the region's own symbol (`[r0]`); what the regions yield is merged
//!   in the original order, and a region without rows does not run. A `Route` may own a third region,
//!   `join`: what goes on after either side. It takes what the side yielded and runs on each group, so
//!   that the rest of a model need not stand in both regions; where they yield different sizes, its
//!   length symbol stands for them (`join ^3[r2, t](%h: f32[r2, t, 96])`), and the merge is of what it
//!   yields.
//! - **Origin** says which node of the source model a node stands for (`@"path"`) and which pass made
//!   it (`by name`).
//!
//! # The text form
//!
//! `Display` prints a graph and [`text::parse`] reads it; printing what was read gives the same text.
//! A comment runs from `//`, or from a `;` that opens a line, to the line's end.
//!
//! ```text
//! graph     = "graph" "@" name params "->" params "{" assume* statement* "return" operands "}"
//! assume    = "assume" dim "==" dim
//! statement = [ results "=" ] op [ attrs ] "(" [ operands ] ")" [ "@" string ] [ "by" pass ] [ regions ]
//!           | value [ ":" type ] "=" constant
//! results   = value [ ":" type ] { "," value [ ":" type ] }
//! regions   = "then" region "else" region [ "join" region ]
//! region    = [ "^" digits ] [ "[" symbol [ "," symbol ] "]" ] params "{" statement* "yield" operands "}"
//! params    = "(" [ value ":" type { "," value ":" type } ] ")"
//! operands  = operand { "," operand }          -- a Route has ";" after its mask
//! operand   = value | constant | float | integer | "true" | "false"
//! constant  = "const" type ( "{" elements "}" | "#" hex )
//! attrs     = "{" name "=" attr { "," name "=" attr } "}"
//! attr      = dim | float | dtype | "true" | "false" | "[" [ dim { "," dim } ] "]"
//! type      = dtype "[" [ dim { "," dim } ] "]"
//! dtype     = "f32" | "i64" | "i32" | "bool" | the names of [`DType::ALL`]
//! dim       = [ "-" ] product { ( "+" | "-" ) product }
//! product   = factor { "*" factor }
//! factor    = digits | symbol | ( "floordiv" | "max" | "min" ) "(" dim "," dim ")"
//! value     = "%" ( digits | name | string )
//! name, symbol = letters, digits, "_" and "." ; a symbol may be a string
//! pass      = names joined by "-" | string
//! ```
//!
//! Values without a name print under numbers in order of appearance, and so do regions: the numbers
//! belong to the text, not to the arena, and an edit renumbers nothing before it. The header gives the
//! outputs' names, `return` their values. Attributes with their default value are left out. Scalars
//! print as literals (`0.9` is an f32, `3` an i64), constants of up to [`text::MAX_INLINE`] elements
//! with their values, larger ones by their hash, which the reader of the text has to resolve. Types of
//! results may be left out when a text is written by hand; where they stand, they must be what
//! inference gives.
//!
//! # Stages
//!
//! [`verify::verify`] checks a graph against the numbered invariants of the module [`verify`], by
//! [`Stage`](verify::Stage): `Imported` (well formed), `Typed` (sizes are symbolic), `Dynamic` (exits
//! and gates are well formed), `Lowerable`. It gives a [`Verified`](verify::Verified) token, which lowering asks
//! for, so that an unverified graph cannot reach a backend.

#![forbid(unsafe_code)]

pub mod attr;
pub mod bind;
pub mod constant;
pub mod cost;
pub mod dim;
pub mod entity;
pub mod eval;
pub mod gpu;
pub mod graph;
pub mod minifloat;
pub mod number;
pub mod op;
pub mod ops;
pub mod precision;
pub mod program;
pub mod tensor;
pub mod text;
pub mod types;
pub mod verify;

pub use constant::{ConstPool, ContentHash};
pub use dim::{Dim, Symbol};
pub use entity::{BufferId, ConstId, KernelId, NodeId, RegionId, ValueId};
pub use graph::{Graph, Origin};
pub use op::Op;
pub use precision::Precision;
pub use tensor::Tensor;
pub use types::{DType, Type};

//! The text form of a [`Program`], for snapshots and `--emit program`. It is not parsed.

use std::fmt::{self, Display, Formatter, Write as _};

use super::{
    Attention, Block, BlockId, Conv, Decision, Dense, Epilogue, Expr, Form, Host, IfStep, Kernel, Length, Loop, MatMul,
    Per, Pool, Program, RepeatStep, RouteStep, RowBuffer, Scan, SizeStep, Source, Step, View,
};
use crate::dim::Dim;
use crate::entity::BufferId;
use crate::precision::Precision;

struct List<'a, T>(&'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, x) in self.0.iter().enumerate() {
            write!(f, "{}{x}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl Display for View {
    /// `@3+off[s0, s1]`; a zero offset is left out.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.buffer)?;
        if self.offset != Dim::from(0) {
            write!(f, "+{}", self.offset)?;
        }
        write!(f, "[{}]", List(&self.strides))
    }
}

impl Display for RowBuffer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.buffer, self.row)
    }
}

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "program @{} {{", self.name)?;
        for (what, ports) in [("input", &self.inputs), ("output", &self.outputs)] {
            for p in ports {
                writeln!(f, "  {what} {}: {}[{}] = {}", p.name, p.dtype, List(&p.dims), p.buffer)?;
            }
        }
        for (a, b) in &self.assumptions {
            writeln!(f, "  assume {a} == {b}")?;
        }
        for (i, b) in self.buffers.iter().enumerate() {
            match b.source {
                Source::Constant(c) => match self.constants.get(c as usize) {
                    Some(c) => writeln!(f, "  @{i}: {}[{}] = const {:?} {}", b.dtype, b.len, c.dims, c.hash)?,
                    None => writeln!(f, "  @{i}: {}[{}] = const ?", b.dtype, b.len)?,
                },
                Source::Input(_) | Source::Temp | Source::Param | Source::Result => {
                    writeln!(f, "  @{i}: {}[{}] {}", b.dtype, b.len, word(b.source))?;
                }
            }
        }
        if let Some(body) = self.blocks.first() {
            self.write_block(f, body, 1)?;
        }
        writeln!(f, "}}")
    }
}

fn word(source: Source) -> &'static str {
    match source {
        Source::Input(_) => "input",
        Source::Constant(_) => "const",
        Source::Temp => "temp",
        Source::Param => "param",
        Source::Result => "result",
    }
}

impl Program {
    fn write_block(&self, f: &mut Formatter<'_>, block: &Block, depth: usize) -> fmt::Result {
        let pad = "  ".repeat(depth);
        for step in &block.steps {
            match step {
                Step::Run(id) => match self.kernels.get(id.index()) {
                    Some(kernel) => write_kernel(f, *id, kernel, &pad)?,
                    None => writeln!(f, "{pad}{id} ?")?,
                },
                Step::If(IfStep { decision, condition, then, other, results }) => {
                    writeln!(f, "{pad}{} = if{} {condition}", List(results), decision_text(*decision))?;
                    self.write_blocks(f, [("then", *then), ("else", *other)], depth)?;
                }
                Step::Route(RouteStep { decision, rows, mask, operands, then, other, join, results }) => {
                    let (r, o) = (List(results), List(operands));
                    writeln!(f, "{pad}{r} = route{} {mask} of {rows} rows ({o})", decision_text(*decision))?;
                    self.write_blocks(f, [("then", *then), ("else", *other)], depth)?;
                    if let Some(join) = join {
                        self.write_blocks(f, [(length_text(join.length.as_ref()).as_str(), join.block)], depth)?;
                    }
                }
                Step::Repeat(RepeatStep { name: _, trips, condition, body, carried, results, rows }) => {
                    let all: Vec<String> =
                        results.iter().map(BufferId::to_string).chain(rows.iter().map(RowBuffer::to_string)).collect();
                    let times = trips.as_ref().map_or_else(String::new, |trips| format!(" {trips} times"));
                    let check = condition.map_or_else(String::new, |condition| format!(" while {condition}"));
                    writeln!(f, "{pad}{} = repeat{times}{check} ({})", List(&all), List(carried))?;
                    self.write_blocks(f, [("do", *body)], depth)?;
                }
                Step::Size(SizeStep { name: _, value, symbol, most, equal }) => {
                    write!(f, "{pad}size {symbol} = {value} up to {most}")?;
                    equal.iter().try_for_each(|(a, b)| write!(f, ", {a} == {b}"))?;
                    writeln!(f)?;
                }
            }
        }
        Ok(())
    }

    fn write_blocks<const N: usize>(
        &self,
        f: &mut Formatter<'_>,
        blocks: [(&str, BlockId); N],
        depth: usize,
    ) -> fmt::Result {
        let pad = "  ".repeat(depth);
        for (name, id) in blocks {
            let Some(block) = self.blocks.get(id.0 as usize) else { continue };
            let rows = block.rows.as_ref().map_or_else(String::new, |r| format!("[{r}]"));
            let params: Vec<String> =
                block.params.iter().map(|p| p.map_or_else(|| "_".to_string(), |b| b.to_string())).collect();
            writeln!(f, "{pad}{name}{rows} ({}) {{", List(&params))?;
            self.write_block(f, block, depth + 1)?;
            writeln!(f, "{pad}}} yield {}", List(&block.yields))?;
        }
        Ok(())
    }
}

/// `join t = 10 else 74`.
fn length_text(length: Option<&Length>) -> String {
    let text = |l: &Length| format!("join {} = {} else {}", l.symbol, l.then, l.other);
    length.map_or_else(|| "join".to_string(), text)
}

fn decision_text(decision: Decision) -> String {
    match decision {
        Decision::None => String::new(),
        Decision::Exit(k) => format!(" exit {k}"),
        Decision::Gate(k) => format!(" gate {k}"),
    }
}

fn write_kernel(f: &mut Formatter<'_>, id: impl Display, kernel: &Kernel, pad: &str) -> fmt::Result {
    let mut tail = format!("  // {}", kernel.name);
    if !kernel.pass.is_empty() {
        write!(tail, " by {}", kernel.pass)?;
    }
    match &kernel.form {
        Form::Loop(l) => write_loop(f, id, l, pad, &tail),
        Form::MatMul(m) => {
            writeln!(f, "{pad}{id} {m}{tail}")?;
            write_epilogue(f, m.c.buffer, m.epilogue.as_ref(), pad)
        }
        Form::Attention(a) => writeln!(f, "{pad}{id} {a}{tail}"),
        Form::Conv(c) => {
            writeln!(f, "{pad}{id} {c}{tail}")?;
            write_epilogue(f, c.y, c.epilogue.as_ref(), pad)
        }
        Form::Pool(p) => writeln!(f, "{pad}{id} {p}{tail}"),
        Form::Scan(s) => writeln!(f, "{pad}{id} {s}{tail}"),
        Form::Host(h) => writeln!(f, "{pad}{id} {h}{tail}"),
    }
}

fn write_loop(f: &mut Formatter<'_>, id: impl Display, l: &Loop, pad: &str, tail: &str) -> fmt::Result {
    let inner = if l.inner.is_empty() { String::new() } else { format!(" x [{}]", List(&l.inner)) };
    writeln!(f, "{pad}{id} loop [{}]{inner}{tail}", List(&l.dims))?;
    write_exprs(f, &l.inputs, &l.exprs, pad)?;
    for (i, r) in l.reductions.iter().enumerate() {
        writeln!(f, "{pad}  r{i} = {:?} e{}", r.function, r.value.0)?;
    }
    for s in &l.stores {
        let per = if s.per == Per::Row { "row" } else { "element" };
        writeln!(f, "{pad}  {} = e{} per {per}", s.view, s.value.0)?;
    }
    Ok(())
}

fn write_epilogue(f: &mut Formatter<'_>, to: BufferId, epilogue: Option<&Epilogue>, pad: &str) -> fmt::Result {
    let Some(epilogue) = epilogue else { return Ok(()) };
    write_exprs(f, &epilogue.operands, &epilogue.exprs, pad)?;
    writeln!(f, "{pad}  {to} = e{}", epilogue.value.0)
}

fn write_exprs(f: &mut Formatter<'_>, inputs: &[View], exprs: &[Expr], pad: &str) -> fmt::Result {
    let mut numbered = exprs.iter().enumerate();
    numbered.try_for_each(|(i, e)| writeln!(f, "{pad}  e{i} = {}", expression(inputs, e)))
}

fn expression(inputs: &[View], e: &Expr) -> String {
    let input = |i: u32| inputs.get(i as usize).map_or_else(|| "?".to_string(), View::to_string);
    match e {
        Expr::Load(i) => input(*i),
        Expr::LoadAt { input: i, at } => {
            let at: Vec<String> =
                at.iter().map(|a| format!("e{} of {} by {}", a.index.0, a.extent, a.stride)).collect();
            format!("{} at ({})", input(*i), at.join(", "))
        }
        Expr::Index(axis) => format!("index {axis}"),
        Expr::Size(d) => format!("size {d}"),
        Expr::Const(s) => format!("{s:?}"),
        Expr::Unary(g, a) => format!("{g:?} e{}", a.0),
        Expr::Binary(g, a, b) => format!("{g:?} e{} e{}", a.0, b.0),
        Expr::Select(c, a, b) => format!("Select e{} e{} e{}", c.0, a.0, b.0),
        Expr::Cast(t, a) => format!("Cast {t} e{}", a.0),
        Expr::Reduced(r) => format!("r{r}"),
    }
}

fn optional<T: Display>(what: &str, x: Option<&T>) -> String {
    x.map_or_else(String::new, |x| format!(" {what} {x}"))
}

impl Display for MatMul {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (batch, bias) = (List(&self.batch), optional("+", self.bias.as_ref()));
        let Self { m, n, k, a, b, c, scale, weights, .. } = self;
        let kind = if *weights == Precision::F32 { String::new() } else { format!("{weights} ") };
        let scale = if *scale == 1.0 { String::new() } else { format!(" * {scale:?}") };
        write!(f, "{c} = matmul [{batch}] m={m} n={n} k={k} {a} · {kind}{b}{scale}{bias}")
    }
}

impl Display for Attention {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (batch, mask) = (List(&self.batch), optional("+", self.mask.as_ref()));
        let Self { m, n, d, width, q, k, v, c, scale, .. } = self;
        let scale = if *scale == 1.0 { String::new() } else { format!(" * {scale:?}") };
        let nan = self.instead_of_nan.map_or_else(String::new, |x| format!(" nan={x:?}"));
        write!(
            f,
            "{c} = attention [{batch}] m={m} n={n} d={d} width={width} softmax({q} · {k}{scale}{mask}){nan} · {v}"
        )
    }
}

impl Display for Conv {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (xd, wd, bias) = (List(&self.x_dims), List(&self.w_dims), optional("+", self.bias.as_ref()));
        let Self { x, w, y, group, strides, dilations, pads, .. } = self;
        write!(f, "{y}[{}] = conv {x}[{xd}] * {w}[{wd}]{bias} group={group}", List(&self.y_size))?;
        write!(f, " strides={strides:?} dilations={dilations:?} pads={pads:?}")
    }
}

impl Display for Pool {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { kind, x, y, kernel, strides, dilations, pads, .. } = self;
        write!(f, "{y}[{}] = pool {kind:?} {x}[{}]", List(&self.y_size), List(&self.x_dims))?;
        write!(f, " kernel={kernel:?} strides={strides:?} dilations={dilations:?} pads={pads:?}")
    }
}

impl Display for Scan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { outer, len, inner, x, y, exclusive, reverse, .. } = self;
        write!(f, "{y} = running sum of {x}[{outer}, {len}, {inner}] exclusive={exclusive} reverse={reverse}")
    }
}

impl Display for Dense {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.buffer, List(&self.dims))
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { op, inputs, outputs } = self;
        let attributes: Vec<String> = op.attributes().into_iter().map(|(name, v)| format!("{name}={v}")).collect();
        write!(f, "{} = host {op}{{{}}}({})", List(outputs), attributes.join(", "), List(inputs))
    }
}

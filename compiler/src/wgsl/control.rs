//! The shaders that decide: which blocks are live and on how many rows, where their parameters and results stand,
//! and how many workgroups their dispatches get. One workgroup each; of the state only lane 0 writes single words.

use std::ops::Range;

use eec_ir::BufferId;
use eec_ir::dim::Symbol;
use eec_ir::gpu::Param;
use eec_ir::program::{Block, BlockId, Decision, IfStep, Length, Program, RouteStep, Step};

use super::Body;
use super::rows::{Made, Side};
use super::text::{Kind, Reason, Shared, Writer};

/// Lanes of the workgroup.
const LANES: u32 = 256;

/// A block that a control step may run.
pub(super) struct Region {
    pub(super) block: BlockId,
    /// Its dispatches and those of blocks inside it.
    pub(super) dispatches: Range<usize>,
}

pub(super) fn body() -> Body {
    Body { lanes: LANES, groups: 1.into() }
}

/// The position of a decision among exits and then gates.
fn position(program: &Program, decision: Decision) -> Option<u32> {
    match decision {
        Decision::None => None,
        Decision::Exit(exit) => Some(exit),
        Decision::Gate(gate) => Some(program.exits.len() as u32 + gate),
    }
}

/// The blocks inside a block, at any depth.
fn nested(program: &Program, id: BlockId) -> Vec<BlockId> {
    let mut found = Vec::new();
    for step in &program.block(id).steps {
        let inside: Vec<BlockId> = match step {
            Step::Run(_) | Step::Size(_) => Vec::new(),
            Step::Repeat(step) => vec![step.body],
            Step::If(step) => vec![step.then, step.other],
            Step::Route(step) => [step.then, step.other].into_iter().chain(step.join.iter().map(|j| j.block)).collect(),
        };
        for id in inside {
            found.push(id);
            found.extend(nested(program, id));
        }
    }
    found
}

/// Whether where the block's results are is known before it ran: none of them is the result of a step of its own.
pub(super) fn yields_early(block: &Block) -> bool {
    let inner = |id: &BufferId| {
        block.steps.iter().any(|step| match step {
            Step::Run(_) | Step::Size(_) => false,
            Step::If(step) => step.results.contains(id),
            Step::Repeat(step) => step.results.contains(id),
            Step::Route(step) => step.results.iter().any(|r| r.buffer == *id),
        })
    };
    !block.yields.iter().any(inner)
}

/// Lines of `main` that control shaders share.
pub(super) trait Decide {
    fn run(&mut self, region: &Region, on: &str);
    fn dispatches(&mut self, range: Range<usize>, on: &str);
    fn copies(&mut self, list: &[Vec<Param>], line: &str);
    fn bind(&mut self, symbol: Option<&Symbol>, value: &str) -> Result<(), Reason>;
}

impl Decide for Writer<'_> {
    /// Makes a block live or not; if not, nothing inside it is either.
    fn run(&mut self, region: &Region, on: &str) {
        let live = self.param(Param::Live(region.block));
        self.line(format!("if lane == 0 {{ state[{live}] = select(0, 1, {on}); }}"));
        let inside = nested(self.shared.program, region.block);
        if !inside.is_empty() {
            let count = inside.len();
            let count = self.param(Param::Number(count as i32));
            let first = self.params(inside.into_iter().map(Param::Live));
            self.line(format!("if !({on}) {{"));
            self.line(format!("for (var i = lane; i < {count}; i += {LANES}) {{"));
            self.line(format!("state[param({first} + i)] = 0;"));
            self.line("}");
            self.line("}");
        }
        self.dispatches(region.dispatches.clone(), on);
    }

    /// Gives dispatches the workgroups that were planned for them, or none.
    fn dispatches(&mut self, range: Range<usize>, on: &str) {
        if range.is_empty() {
            return;
        }
        let [first, last] = [range.start, range.end].map(|n| self.param(Param::Number(n as i32)));
        let planned = self.param(Param::Planned);
        self.line(format!("for (var d = {first} + lane; d < {last}; d += {LANES}) {{"));
        self.line(format!("arguments[3 * d] = select(0u, u32(state[{planned} + d]), {on});"));
        self.line("}");
    }

    /// For every entry of a list of equally long lists of parameters, which start at `at`, a line.
    fn copies(&mut self, list: &[Vec<Param>], line: &str) {
        let Some(width) = list.first().map(Vec::len) else { return };
        let count = self.param(Param::Number(list.len() as i32));
        let first = self.params(list.iter().flatten().cloned());
        self.line(format!("for (var i = 0; i < {count}; i += 1) {{"));
        self.line(format!("let at = {first} + i * {width};"));
        self.line(line);
        self.line("}");
    }

    fn bind(&mut self, symbol: Option<&Symbol>, value: &str) -> Result<(), Reason> {
        let Some(symbol) = symbol else { return Ok(()) };
        let number = self.shared.symbols.get(symbol).ok_or_else(|| format!("symbol {symbol} has no place"))?;
        let at = self.param(Param::Symbol(*number));
        self.line(format!("state[{at}] = {value};"));
        Ok(())
    }
}

/// The control word of a decision, and the place of its count.
fn decision(w: &mut Writer, decision: Decision) -> (String, Option<String>) {
    match position(w.shared.program, decision) {
        Some(at) => {
            let (control, rows) = (w.param(Param::Control(at)), w.param(Param::Rows(at)));
            (format!("state[{control}]"), Some(rows))
        }
        None => ("0".into(), None),
    }
}

/// A result's own place, and what it may stand for after either block.
fn result_entries(results: &[BufferId], then: &[BufferId], other: &[BufferId]) -> Vec<Vec<Param>> {
    let entry = |((result, then), other): ((&BufferId, &BufferId), &BufferId)| {
        vec![Param::Offset(*result), Param::Home(*result), Param::Offset(*then), Param::Offset(*other)]
    };
    results.iter().zip(then).zip(other).map(entry).collect()
}

/// Lets results stand for what the one block that ran yielded, or for themselves if both did.
fn results(w: &mut Writer, list: &[Vec<Param>], then: &str, mixed: &str) {
    let given = format!("select(state[param(at + 3)], state[param(at + 2)], {then})");
    w.copies(list, &format!("state[param(at)] = select({given}, state[param(at + 1)], {mixed});"));
}

/// Before the blocks of an `If`.
pub(super) fn branch<'p>(shared: &'p Shared<'p>, owner: BlockId, step: &IfStep, regions: &[Region; 2]) -> Made<'p> {
    let mut w = Writer::new(shared, Kind::Control, owner);
    let condition = w.place(step.condition)?;
    let (control, rows) = decision(&mut w, step.decision);
    w.line(format!("let control = {control};"));
    w.line(format!("let taken = select({}, control == 2, control != 0);", condition.load("0")));
    if let Some(rows) = rows {
        w.line(format!("if lane == 0 && taken {{ state[{rows}] += 1; }}"));
    }
    let [then, other] = [step.then, step.other].map(|id| shared.program.block(id));
    if yields_early(then) && yields_early(other) {
        w.line("if lane == 0 {");
        results(&mut w, &result_entries(&step.results, &then.yields, &other.yields), "taken", "false");
        w.line("}");
    }
    w.run(&regions[0], "taken");
    w.run(&regions[1], "!taken");
    Ok((w, body()))
}

/// After the blocks of an `If` whose results were not known before.
pub(super) fn branch_results<'p>(shared: &'p Shared<'p>, owner: BlockId, step: &IfStep) -> Made<'p> {
    let mut w = Writer::new(shared, Kind::Control, owner);
    let [then, other] = [step.then, step.other].map(|id| shared.program.block(id));
    let live = w.param(Param::Live(step.then));
    w.line("if lane == 0 {");
    w.line(format!("let taken = state[{live}] != 0;"));
    results(&mut w, &result_entries(&step.results, &then.yields, &other.yields), "taken", "false");
    w.line("}");
    Ok((w, body()))
}

/// What a route's control needs to know of the dispatches that follow.
pub(super) struct Routed {
    /// The scratch with the numbers of the rows.
    pub(super) list: u32,
    pub(super) then: Region,
    pub(super) other: Region,
    /// Copies that are made only if both blocks run.
    pub(super) copies: Vec<Range<usize>>,
}

/// Before the blocks of a `Route`: counts rows and numbers those of either side.
pub(super) fn route<'p>(shared: &'p Shared<'p>, owner: BlockId, step: &RouteStep, routed: &Routed) -> Made<'p> {
    let mut w = Writer::new(shared, Kind::Control, owner);
    let program = shared.program;
    let [then, other] = [step.then, step.other].map(|id| program.block(id));
    let (mask, list) = (w.place(step.mask)?, w.arena(Param::Scratch(routed.list), eec_ir::DType::I32)?);
    let (rows, (control, count)) = (w.dim(&step.rows)?, decision(&mut w, step.decision));
    let holds = format!("select({}, control == 2, control != 0)", mask.load("r"));
    w.global(RANK);
    w.line(format!("let rows = {rows};"));
    w.line(format!("let control = {control};"));
    w.line(format!("let chunk = (rows + {}) / {LANES};", LANES - 1));
    w.line("let first = min(lane * chunk, rows);");
    w.line("let last = min(first + chunk, rows);");
    w.line("var count = 0;");
    w.line("for (var r = first; r < last; r += 1) {");
    w.line(format!("count += select(0, 1, {holds});"));
    w.line("}");
    w.line("let before = rank(lane, count);");
    w.line(format!("let taken = counts[{}];", LANES - 1));
    w.line("let rest = rows - taken;");
    w.line("let mixed = taken > 0 && rest > 0;");
    w.line("if mixed {");
    w.line("var yes = before;");
    w.line("var no = taken + first - before;");
    w.line("for (var r = first; r < last; r += 1) {");
    w.line(format!("if {holds} {{"));
    w.line(list.store("yes", "r"));
    w.line("yes += 1;");
    w.line("} else {");
    w.line(list.store("no", "r"));
    w.line("no += 1;");
    w.line("}");
    w.line("}");
    w.line("}");
    w.line("if lane == 0 {");
    if let Some(count) = count {
        w.line(format!("state[{count}] += taken;"));
    }
    w.bind(then.rows.as_ref(), "taken")?;
    w.bind(other.rows.as_ref(), "rest")?;
    for (block, all) in [(then, "rest == 0"), (other, "taken == 0")] {
        let params = block.params.iter().zip(&step.operands);
        let entry = |(param, operand): (&Option<BufferId>, &eec_ir::program::RowBuffer)| {
            let param = (*param)?;
            Some(vec![Param::Offset(param), Param::Home(param), Param::Offset(operand.buffer)])
        };
        let list: Vec<Vec<Param>> = params.filter_map(entry).collect();
        w.copies(&list, &format!("state[param(at)] = select(state[param(at + 1)], state[param(at + 2)], {all});"));
    }
    if step.join.is_none() && yields_early(then) && yields_early(other) {
        let buffers: Vec<BufferId> = step.results.iter().map(|r| r.buffer).collect();
        results(&mut w, &result_entries(&buffers, &then.yields, &other.yields), "taken > 0", "mixed");
    }
    w.line("}");
    w.run(&routed.then, "taken > 0");
    w.run(&routed.other, "rest > 0");
    for range in &routed.copies {
        w.dispatches(range.clone(), "mixed");
    }
    Ok((w, body()))
}

/// The counts of all lanes, summed up to each; gives what lies before a lane.
const RANK: &str = "var<workgroup> counts: array<i32, 256>;

fn rank(lane: i32, count: i32) -> i32 {
counts[lane] = count;
workgroupBarrier();
for (var reach = 1; reach < 256; reach *= 2) {
var more = 0;
if lane >= reach { more = counts[lane - reach]; }
workgroupBarrier();
counts[lane] += more;
workgroupBarrier();
}
return counts[lane] - count;
}";

/// Before a route's join, which continues the block of `side`.
pub(super) fn enter<'p>(
    shared: &'p Shared<'p>,
    owner: BlockId,
    step: &RouteStep,
    (side, length): (Side, Option<&Length>),
    join: &Region,
) -> Made<'p> {
    let mut w = Writer::new(shared, Kind::Control, owner);
    let from = if side == Side::Then { step.then } else { step.other };
    let (from, block) = (shared.program.block(from), shared.program.block(join.block));
    let rows = match &from.rows {
        Some(symbol) => w.symbol(symbol)?,
        None => return Err("a block of a route has no rows".into()),
    };
    let length = match length {
        Some(length) => {
            let value = if side == Side::Then { &length.then } else { &length.other };
            Some((&length.symbol, w.dim(value)?))
        }
        None => None,
    };
    w.line(format!("let rows = {rows};"));
    w.line("if lane == 0 && rows > 0 {");
    w.bind(block.rows.as_ref(), "rows")?;
    if let Some((symbol, value)) = length {
        w.bind(Some(symbol), &value)?;
    }
    let pairs = block.params.iter().zip(&from.yields);
    let list: Vec<Vec<Param>> =
        pairs.filter_map(|(p, y)| Some(vec![Param::Offset((*p)?), Param::Offset(*y)])).collect();
    w.copies(&list, "state[param(at)] = state[param(at + 1)];");
    w.line("}");
    w.run(join, "rows > 0");
    Ok((w, body()))
}

/// After the blocks of a `Route` whose results were not known before.
pub(super) fn route_results<'p>(shared: &'p Shared<'p>, owner: BlockId, step: &RouteStep) -> Made<'p> {
    let mut w = Writer::new(shared, Kind::Control, owner);
    let program = shared.program;
    let ends = match &step.join {
        Some(join) => [join.block, join.block],
        None => [step.then, step.other],
    };
    let [then, other] = ends.map(|id| &program.block(id).yields);
    let mut count = |id: BlockId| match &program.block(id).rows {
        Some(symbol) => w.symbol(symbol),
        None => Err(format!("block {} of a route has no rows", id.0)),
    };
    let (taken, rest) = (count(step.then)?, count(step.other)?);
    let buffers: Vec<BufferId> = step.results.iter().map(|r| r.buffer).collect();
    w.line("if lane == 0 {");
    let mixed = format!("{taken} > 0 && {rest} > 0");
    results(&mut w, &result_entries(&buffers, then, other), &format!("{taken} > 0"), &mixed);
    w.line("}");
    Ok((w, body()))
}

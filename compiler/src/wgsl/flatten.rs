//! The steps of all blocks as one list of dispatches.
//!
//! A control dispatch stands before the blocks of a step, since it decides about all dispatches that follow; its
//! place is kept until their numbers are known. The block of a join stands in the list twice, after each of the
//! blocks that it continues.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use eec_ir::gpu::{Dispatch, GpuProgram, Param, Repeat, Role, Shader};
use eec_ir::program::{BlockId, Form, Host, IfStep, Join, MatMul, Program, RepeatStep, RouteStep, Source, Step};
use eec_ir::{BufferId, Dim, KernelId, Symbol};

use super::control::{self, Region, Routed};
use super::repeat;
use super::rows::{self, Made, Side};
use super::text::{Bound, Kind, Reason, Shared, Writer, Written};
use super::{Body, LowerError, Problem, Unsupported, check, constants, kernel, matmul};

/// The GPU form of a verified program, whose constants are bound in pieces of so many words.
pub(super) fn flatten(program: &Program, piece: u32) -> Result<GpuProgram, LowerError> {
    let problems = sizes_of_data(program);
    if !problems.is_empty() {
        return Err(Unsupported { program: program.name.clone(), problems }.into());
    }
    let symbols = symbols(program);
    let numbers = symbols.iter().cloned().zip(0..).collect();
    let given = program.inputs.iter().flat_map(|p| &p.dims).filter_map(Dim::as_symbol).cloned().collect();
    let found = constants::resident(program);
    let (resident, halves) = (found.iter().copied().collect(), constants::halves(program, &found));
    let gpu = GpuProgram { symbols, resident, halves, piece, ..GpuProgram::default() };
    let all = 0..program.constants.len() as u32;
    let bound = all.map(|c| Bound { halves: gpu.halves.contains(&c), pieces: gpu.pieces(program, c) }).collect();
    let shared = Shared { program, symbols: numbers, given, resident: found, bound, piece };
    let mut flat = Flat {
        shared: &shared,
        gpu,
        shaders: HashMap::new(),
        problems: Vec::new(),
        failed: BTreeSet::new(),
        invalid: None,
    };
    flat.block(BlockId(0));
    flat.outputs();
    match (flat.invalid, flat.problems.is_empty()) {
        (Some(bug), _) => Err(bug),
        (None, true) => Ok(flat.gpu),
        (None, false) => Err(Unsupported { program: program.name.clone(), problems: flat.problems }.into()),
    }
}

/// The steps by which data decides sizes, which have no form.
fn sizes_of_data(program: &Program) -> Vec<Problem> {
    let steps = program.blocks.iter().flat_map(|b| &b.steps).filter_map(|step| match step {
        Step::Size(step) => Some(step.name.clone()),
        Step::Run(_) | Step::If(_) | Step::Route(_) | Step::Repeat(_) => None,
    });
    steps.map(|place| Problem { place, reason: "a size that data decides has no form on a GPU".into() }).collect()
}

/// The symbols of the inputs' dims, then those of blocks' rows and joins' lengths.
fn symbols(program: &Program) -> Vec<Symbol> {
    let inputs = program.inputs.iter().flat_map(|p| &p.dims).filter_map(Dim::as_symbol).cloned();
    let mut all: Vec<Symbol> = Vec::new();
    let rows = program.blocks.iter().filter_map(|b| b.rows.clone());
    let lengths = program.blocks.iter().flat_map(|b| &b.steps).filter_map(|step| match step {
        Step::Route(route) => Some(route.join.as_ref()?.length.as_ref()?.symbol.clone()),
        Step::Run(_) | Step::If(_) | Step::Repeat(_) | Step::Size(_) => None,
    });
    for symbol in inputs.chain(rows).chain(lengths) {
        if !all.contains(&symbol) {
            all.push(symbol);
        }
    }
    all
}

struct Flat<'p> {
    shared: &'p Shared<'p>,
    gpu: GpuProgram,
    /// The number of every text.
    shaders: HashMap<String, u32>,
    problems: Vec<Problem>,
    /// Places with a problem, each of which is reported once.
    failed: BTreeSet<String>,
    /// The first shader that is not valid.
    invalid: Option<LowerError>,
}

impl<'p> Flat<'p> {
    fn problem(&mut self, place: &str, reason: Reason) {
        if self.failed.insert(place.to_string()) {
            self.problems.push(Problem { place: place.to_string(), reason });
        }
    }

    fn program(&self) -> &'p Program {
        self.shared.program
    }

    /// Keeps a place in the list.
    fn reserve(&mut self, block: BlockId) -> usize {
        self.gpu.dispatches.push(Dispatch {
            shader: 0,
            role: Role::Control,
            with: Vec::new(),
            block,
            groups: Dim::from(1),
            params: Vec::new(),
            constants: Vec::new(),
            sizes: Vec::new(),
            sums: 0..0,
        });
        self.gpu.dispatches.len() - 1
    }

    /// Puts what was made at a place of the list, or notes why it was not.
    fn fill(&mut self, place: usize, role: Role, name: &str, made: Made<'p>) {
        let (writer, Body { lanes, groups }) = match made {
            Ok(made) => made,
            Err(reason) => return self.problem(name, reason),
        };
        let Written { text, with_subgroups, sizes, params, constants, sums } = writer.finish(lanes);
        let first = self.gpu.sums.len() as u32;
        self.gpu.sums.extend(sums);
        let sums = first..self.gpu.sums.len() as u32;
        let numbered = |param| match param {
            Param::Sum(i) => Param::Sum(first + i),
            other => other,
        };
        let params = params.into_iter().map(numbered).collect();
        match self.shader(text, with_subgroups) {
            Ok(shader) => {
                let dispatch = &mut self.gpu.dispatches[place];
                *dispatch = Dispatch { shader, role, groups, params, constants, sizes, sums, ..dispatch.clone() };
            }
            Err(why) => {
                self.invalid.get_or_insert(LowerError::Invalid { place: name.to_string(), why });
            }
        }
    }

    /// The number of a shader, which is checked where it is new.
    fn shader(&mut self, text: String, with_subgroups: Option<String>) -> Result<u32, String> {
        if let Some(number) = self.shaders.get(&text) {
            return Ok(*number);
        }
        check::check(&text, false)?;
        with_subgroups.iter().try_for_each(|text| check::check(text, true))?;
        let number = self.gpu.shaders.len() as u32;
        self.gpu.shaders.push(Shader { text: text.clone(), with_subgroups });
        self.shaders.insert(text, number);
        Ok(number)
    }

    fn next(&self) -> usize {
        self.gpu.dispatches.len()
    }

    fn block(&mut self, at: BlockId) {
        let steps = &self.program().block(at).steps;
        let mut next = 0;
        while let Some(step) = steps.get(next) {
            let place = format!("block {}, step {next}", at.0);
            next += 1;
            match step {
                Step::Run(id) => next += self.run(*id, &steps[next..], at),
                Step::If(step) => self.branch(step, at, &place),
                Step::Route(step) => self.route(step, at, &place),
                Step::Repeat(step) => self.repeat(step, at),
                // Programs with sizes of data were refused.
                Step::Size(_) => {}
            }
        }
    }

    /// A kernel, with as many of the steps after it as can run with it; gives their number.
    fn run(&mut self, id: KernelId, after: &[Step], at: BlockId) -> usize {
        let found = self.program().kernel(id);
        if let Form::Host(form) = &found.form {
            let name = format!("{id} ({})", found.name);
            if let Err(reason) = self.host(id, form, at, &name) {
                self.problem(&name, reason);
            }
            return 0;
        }
        let mut writer = Writer::new(self.shared, Kind::Kernel, at);
        let with = self.with(id, after);
        let made = match &found.form {
            Form::MatMul(first) if !with.is_empty() => {
                let forms: Vec<&MatMul> = std::iter::once(first).chain(with.iter().map(|(_, form)| *form)).collect();
                matmul::write(&mut writer, &forms)
            }
            form => kernel(&mut writer, form),
        };
        let mut work = std::iter::once(id).chain(with.iter().map(|(id, _)| *id));
        let summed = work.try_for_each(|id| writer.sum_symbols(&self.program().kernel(id).macs));
        let made = made.and_then(|body| summed.map(|()| (writer, body)));
        let place = self.reserve(at);
        self.fill(place, Role::Kernel(id), &format!("{id} ({})", found.name), made);
        self.gpu.dispatches[place].with = with.iter().map(|(id, _)| *id).collect();
        with.len()
    }

    /// A kernel that the host computes, after copies of its operands to where the host finds them.
    fn host(&mut self, id: KernelId, form: &Host, at: BlockId, name: &str) -> Result<(), Reason> {
        let program = self.program();
        let all = || form.inputs.iter().chain(&form.outputs).map(|t| t.buffer);
        all().try_for_each(|b| super::text::word(program.buffer(b).dtype).map(drop))?;
        if at.0 != 0 {
            let why = "is run by the host, which does not know whether it runs: that is decided on the device";
            return Err(format!("{} {why}", form.op));
        }
        let mut params = vec![Param::Live(at), Param::Counter];
        for operand in &form.inputs {
            if matches!(program.buffer(operand.buffer).source, Source::Constant(_)) {
                continue;
            }
            let scratch = self.gpu.scratch.len() as u32;
            self.gpu.scratch.push(Dim::product(&operand.dims));
            params.push(Param::Scratch(scratch));
            self.copy(at, name, rows::operand(self.shared, at, operand, scratch));
        }
        params.extend(form.outputs.iter().map(|t| Param::Home(t.buffer)));
        params.resize(params.len().next_multiple_of(4), Param::Number(0));
        let place = self.reserve(at);
        let dispatch = &mut self.gpu.dispatches[place];
        *dispatch = Dispatch { role: Role::Host(id), params, ..dispatch.clone() };
        Ok(())
    }

    /// The products right after the product `id` that one dispatch can compute with it.
    fn with(&self, id: KernelId, after: &[Step]) -> Vec<(KernelId, &'p MatMul)> {
        let Form::MatMul(first) = &self.program().kernel(id).form else { return Vec::new() };
        let mut forms = vec![first];
        let mut found = Vec::new();
        for step in after {
            let Step::Run(id) = step else { break };
            let Form::MatMul(form) = &self.program().kernel(*id).form else { break };
            if !matmul::go_together(&forms, form) {
                break;
            }
            forms.push(form);
            let read = forms.iter().flat_map(|form| matmul::reads(form));
            let bindings = constants::bindings(&self.gpu, self.program(), read);
            if forms.len() > matmul::TOGETHER || bindings > constants::BINDINGS {
                break;
            }
            found.push((*id, form));
        }
        found
    }

    /// The dispatches of a block, and where they stand.
    fn region(&mut self, block: BlockId) -> Region {
        let first = self.next();
        self.block(block);
        Region { block, dispatches: first..self.next() }
    }

    fn branch(&mut self, step: &IfStep, at: BlockId, name: &str) {
        let place = self.reserve(at);
        let regions = [step.then, step.other].map(|id| self.region(id));
        let made = control::branch(self.shared, at, step, &regions);
        self.fill(place, Role::Control, name, made);
        let program = self.program();
        let early = [step.then, step.other].iter().all(|id| control::yields_early(program.block(*id)));
        if !early && !step.results.is_empty() {
            let place = self.reserve(at);
            self.fill(place, Role::Control, name, control::branch_results(self.shared, at, step));
        }
    }

    fn route(&mut self, step: &RouteStep, at: BlockId, name: &str) {
        let place = self.reserve(at);
        let list = self.gpu.scratch.len() as u32;
        self.gpu.scratch.push(step.rows.clone());
        let mut copies = Vec::new();
        match rows::gather(self.shared, at, step, list) {
            Ok(None) => {}
            Ok(Some(made)) => copies.push(self.copy(at, name, Ok(made))),
            Err(reason) => self.problem(name, reason),
        }
        let then = self.region(step.then);
        let other = match &step.join {
            None => self.region(step.other),
            Some(join) => {
                copies.extend(self.join(step, join, Side::Then, at, list, name));
                let other = self.region(step.other);
                copies.extend(self.join(step, join, Side::Other, at, list, name));
                other
            }
        };
        if step.join.is_none() && !step.results.is_empty() {
            let [a, b]: [&[BufferId]; 2] = [step.then, step.other].map(|id| &*self.program().block(id).yields);
            let made = rows::merge(self.shared, at, step, list, &[(Side::Then, a), (Side::Other, b)]);
            copies.push(self.copy(at, name, made));
        }
        let program = self.program();
        let early = [step.then, step.other].iter().all(|id| control::yields_early(program.block(*id)));
        if !step.results.is_empty() && (step.join.is_some() || !early) {
            let place = self.reserve(at);
            self.fill(place, Role::Control, name, control::route_results(self.shared, at, step));
        }
        let routed = Routed { list, then, other, copies };
        self.fill(place, Role::Control, name, control::route(self.shared, at, step, &routed));
    }

    /// A loop: what decides about its first step, the dispatches of a step, copies of what it carries on, and what
    /// decides about the next step.
    fn repeat(&mut self, step: &RepeatStep, at: BlockId) {
        let place = self.reserve(at);
        let number = self.gpu.repeats.len() as u32;
        self.gpu.repeats.push(Repeat { body: step.body, dispatches: 0..0 });
        let first = self.next();
        self.block(step.body);
        match repeat::carry(self.shared, step, number) {
            Ok(None) => {}
            Ok(Some(made)) => drop(self.copy(step.body, &step.name, Ok(made))),
            Err(reason) => self.problem(&step.name, reason),
        }
        let last = self.reserve(step.body);
        let region = Region { block: step.body, dispatches: first..self.next() };
        self.gpu.repeats[number as usize].dispatches = first as u32..self.next() as u32;
        let turn = repeat::turn(self.shared, step, number, &region);
        self.fill(last, Role::Control, &step.name, turn);
        let begin = repeat::begin(self.shared, at, step, number, &region);
        self.fill(place, Role::Control, &step.name, begin);
    }

    fn copy(&mut self, at: BlockId, name: &str, made: Made<'p>) -> Range<usize> {
        let place = self.reserve(at);
        self.fill(place, Role::Rows, name, made);
        place..place + 1
    }

    /// A join after one side: it takes what the block of a side yielded, and its results go to that side's rows.
    /// Gives the copies that are made only if both sides have rows.
    fn join(
        &mut self,
        step: &RouteStep,
        join: &Join,
        side: Side,
        at: BlockId,
        list: u32,
        name: &str,
    ) -> Option<Range<usize>> {
        let place = self.reserve(at);
        let region = self.region(join.block);
        let from = (side, join.length.as_ref());
        let made = control::enter(self.shared, at, step, from, &region);
        self.fill(place, Role::Control, name, made);
        if step.results.is_empty() {
            return None;
        }
        let yields: &[BufferId] = &self.program().block(join.block).yields;
        let made = rows::merge(self.shared, at, step, list, &[(side, yields)]);
        Some(self.copy(at, name, made))
    }

    fn outputs(&mut self) {
        for (number, port) in self.program().outputs.iter().enumerate() {
            let place = self.reserve(BlockId(0));
            let role = Role::Output(number as u32);
            let name = format!("output {:?}", port.name);
            self.fill(place, role, &name, rows::output(self.shared, number));
        }
        for port in &self.program().inputs {
            if let Err(reason) = super::text::word(port.dtype) {
                self.problem(&format!("input {:?}", port.name), reason);
            }
        }
    }
}

//! The steps of all blocks as one list of dispatches.
//!
//! A control dispatch stands before the blocks of a step, since it decides about all dispatches that follow; its
//! place is kept until their numbers are known. The block of a join stands in the list twice, after each of the
//! blocks that it continues; every time is an instance of its own.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use eec_ir::gpu::{Dispatch, GpuProgram, Param, Role, Shader};
use eec_ir::program::{BlockId, Form, Host, IfStep, Join, MatMul, Program, RouteStep, Source, Step};
use eec_ir::{BufferId, Dim, KernelId, Symbol};

use super::control::{self, Region, Routed};
use super::rows::{self, Made, Side};
use super::text::{Bound, Kind, Reason, Shared, Writer, Written};
use super::{Body, LowerError, Problem, Unsupported, check, constants, kernel, matmul};

/// The GPU form of a verified program, whose constants are bound in pieces of so many words.
pub(super) fn flatten(program: &Program, piece: u32) -> Result<GpuProgram, LowerError> {
    let symbols = symbols(program);
    let numbers = symbols.iter().cloned().zip(0..).collect();
    let found = constants::resident(program);
    let (resident, halves) = (found.iter().copied().collect(), constants::halves(program, &found));
    let gpu = GpuProgram { symbols, resident, halves, piece, ..GpuProgram::default() };
    let all = 0..program.constants.len() as u32;
    let bound = all.map(|c| Bound { halves: gpu.halves.contains(&c), pieces: gpu.pieces(program, c) }).collect();
    let shared = Shared { program, symbols: numbers, resident: found, bound, piece };
    let mut flat = Flat {
        shared: &shared,
        gpu,
        shaders: HashMap::new(),
        problems: Vec::new(),
        failed: BTreeSet::new(),
        invalid: None,
        instances: 1,
    };
    flat.block(BlockId(0), 0);
    flat.outputs();
    match (flat.invalid, flat.problems.is_empty()) {
        (Some(bug), _) => Err(bug),
        (None, true) => Ok(flat.gpu),
        (None, false) => Err(Unsupported { program: program.name.clone(), problems: flat.problems }.into()),
    }
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
    instances: u32,
}

/// Where a dispatch stands.
#[derive(Clone, Copy)]
struct At {
    block: BlockId,
    instance: u32,
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
    fn reserve(&mut self, At { block, instance }: At) -> usize {
        self.gpu.dispatches.push(Dispatch {
            shader: 0,
            role: Role::Control,
            with: Vec::new(),
            block,
            instance,
            groups: Dim::from(1),
            params: Vec::new(),
            constants: Vec::new(),
            sizes: Vec::new(),
        });
        self.gpu.dispatches.len() - 1
    }

    /// Puts what was made at a place of the list, or notes why it was not.
    fn fill(&mut self, place: usize, role: Role, name: &str, made: Made<'p>) {
        let (writer, Body { lanes, groups }) = match made {
            Ok(made) => made,
            Err(reason) => return self.problem(name, reason),
        };
        let Written { text, with_subgroups, sizes, params, constants } = writer.finish(lanes);
        match self.shader(text, with_subgroups) {
            Ok(shader) => {
                let dispatch = &mut self.gpu.dispatches[place];
                *dispatch = Dispatch { shader, role, groups, params, constants, sizes, ..dispatch.clone() };
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

    fn block(&mut self, block: BlockId, instance: u32) {
        let at = At { block, instance };
        let steps = &self.program().block(block).steps;
        let mut next = 0;
        while let Some(step) = steps.get(next) {
            let place = format!("block {}, step {next}", block.0);
            next += 1;
            match step {
                Step::Run(id) => next += self.run(*id, &steps[next..], at),
                Step::If(step) => self.branch(step, at, &place),
                Step::Route(step) => self.route(step, at, &place),
                Step::Repeat(step) => {
                    self.problem(
                        &step.name,
                        "a loop whose steps are counted while it runs has no form on a GPU".into(),
                    );
                }
                Step::Size(step) => {
                    self.problem(&step.name, "a size that data decides has no form on a GPU".into());
                }
            }
        }
    }

    /// A kernel, with as many of the steps after it as can run with it; gives their number.
    fn run(&mut self, id: KernelId, after: &[Step], at: At) -> usize {
        let found = self.program().kernel(id);
        if let Form::Host(form) = &found.form {
            let name = format!("{id} ({})", found.name);
            if let Err(reason) = self.host(id, form, at, &name) {
                self.problem(&name, reason);
            }
            return 0;
        }
        let mut writer = Writer::new(self.shared, Kind::Kernel, at.block);
        let with = self.with(id, after);
        let made = match &found.form {
            Form::MatMul(first) if !with.is_empty() => {
                let forms: Vec<&MatMul> = std::iter::once(first).chain(with.iter().map(|(_, form)| *form)).collect();
                matmul::write(&mut writer, &forms)
            }
            form => kernel(&mut writer, form),
        };
        let place = self.reserve(at);
        self.fill(place, Role::Kernel(id), &format!("{id} ({})", found.name), made.map(|body| (writer, body)));
        self.gpu.dispatches[place].with = with.iter().map(|(id, _)| *id).collect();
        with.len()
    }

    /// A kernel that the host computes, after copies of its operands to where the host finds them.
    fn host(&mut self, id: KernelId, form: &Host, at: At, name: &str) -> Result<(), Reason> {
        let program = self.program();
        let all = || form.inputs.iter().chain(&form.outputs).map(|t| t.buffer);
        all().try_for_each(|b| super::text::word(program.buffer(b).dtype).map(drop))?;
        if at.block.0 != 0 {
            let why = "is run by the host, which does not know whether it runs: that is decided on the device";
            return Err(format!("{} {why}", form.op));
        }
        let mut params = vec![Param::Live(at.block), Param::Counter];
        for operand in &form.inputs {
            if matches!(program.buffer(operand.buffer).source, Source::Constant(_)) {
                continue;
            }
            let scratch = self.gpu.scratch.len() as u32;
            self.gpu.scratch.push(Dim::product(&operand.dims));
            params.push(Param::Scratch(scratch));
            self.copy(at, name, rows::operand(self.shared, at.block, operand, scratch));
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
    fn region(&mut self, block: BlockId, instance: u32) -> Region {
        let first = self.next();
        self.block(block, instance);
        Region { block, dispatches: first..self.next() }
    }

    fn branch(&mut self, step: &IfStep, at: At, name: &str) {
        let place = self.reserve(at);
        let regions = [step.then, step.other].map(|id| self.region(id, at.instance));
        let made = control::branch(self.shared, at.block, step, &regions);
        self.fill(place, Role::Control, name, made);
        let program = self.program();
        let early = [step.then, step.other].iter().all(|id| control::yields_early(program.block(*id)));
        if !early && !step.results.is_empty() {
            let place = self.reserve(at);
            self.fill(place, Role::Control, name, control::branch_results(self.shared, at.block, step));
        }
    }

    fn route(&mut self, step: &RouteStep, at: At, name: &str) {
        let place = self.reserve(at);
        let list = self.gpu.scratch.len() as u32;
        self.gpu.scratch.push(step.rows.clone());
        let mut copies = Vec::new();
        match rows::gather(self.shared, at.block, step, list) {
            Ok(None) => {}
            Ok(Some(made)) => copies.push(self.copy(at, name, Ok(made))),
            Err(reason) => self.problem(name, reason),
        }
        let then = self.region(step.then, at.instance);
        let other = match &step.join {
            None => self.region(step.other, at.instance),
            Some(join) => {
                copies.extend(self.join(step, join, Side::Then, at, list, name));
                let other = self.region(step.other, at.instance);
                copies.extend(self.join(step, join, Side::Other, at, list, name));
                other
            }
        };
        if step.join.is_none() && !step.results.is_empty() {
            let [a, b]: [&[BufferId]; 2] = [step.then, step.other].map(|id| &*self.program().block(id).yields);
            let made = rows::merge(self.shared, at.block, step, list, &[(Side::Then, a), (Side::Other, b)]);
            copies.push(self.copy(at, name, made));
        }
        let program = self.program();
        let early = [step.then, step.other].iter().all(|id| control::yields_early(program.block(*id)));
        if !step.results.is_empty() && (step.join.is_some() || !early) {
            let place = self.reserve(at);
            self.fill(place, Role::Control, name, control::route_results(self.shared, at.block, step));
        }
        let routed = Routed { list, then, other, copies, instance: at.instance };
        self.fill(place, Role::Control, name, control::route(self.shared, at.block, step, &routed));
    }

    fn copy(&mut self, at: At, name: &str, made: Made<'p>) -> Range<usize> {
        let place = self.reserve(at);
        self.fill(place, Role::Rows, name, made);
        place..place + 1
    }

    /// One instance of a join: it takes what the block of a side yielded, and its results go to that side's rows.
    /// Gives the copies that are made only if both sides have rows.
    fn join(
        &mut self,
        step: &RouteStep,
        join: &Join,
        side: Side,
        at: At,
        list: u32,
        name: &str,
    ) -> Option<Range<usize>> {
        let place = self.reserve(at);
        // An instance without dispatches has no log.
        let instance = self.instances;
        let has_steps = !self.program().block(join.block).steps.is_empty();
        self.instances += u32::from(has_steps);
        let region = self.region(join.block, if has_steps { instance } else { at.instance });
        let from = (side, join.length.as_ref());
        let made = control::enter(self.shared, at.block, step, from, &region, has_steps.then_some(instance));
        self.fill(place, Role::Control, name, made);
        if step.results.is_empty() {
            return None;
        }
        let yields: &[BufferId] = &self.program().block(join.block).yields;
        let made = rows::merge(self.shared, at.block, step, list, &[(side, yields)]);
        Some(self.copy(at, name, made))
    }

    fn outputs(&mut self) {
        for (number, port) in self.program().outputs.iter().enumerate() {
            let place = self.reserve(At { block: BlockId(0), instance: 0 });
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

//! The steps of all blocks as one list of dispatches.
//!
//! A control dispatch stands before the blocks of a step, since it decides about all dispatches that follow; its
//! place is kept until their numbers are known. The block of a join stands in the list twice, after each of the
//! blocks that it continues; every time is an instance of its own.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use eec_ir::gpu::{Dispatch, GpuProgram, Needs, Param, Role, Shader};
use eec_ir::program::{BlockId, Form, IfStep, Join, MatMul, Program, RouteStep, Source, Step};
use eec_ir::{BufferId, Dim, KernelId, Symbol};

use super::control::{self, Region, Routed};
use super::rows::{self, Made, Side};
use super::text::{Kind, Reason, Shared, Writer};
use super::{Body, Problem, Unsupported, check, constants, kernel, matmul};

/// The GPU form of a verified program.
pub(super) fn flatten(program: &Program) -> Result<GpuProgram, Unsupported> {
    let symbols = symbols(program);
    let numbers = symbols.iter().cloned().zip(0..).collect();
    let shared = Shared { program, symbols: numbers, resident: constants::resident(program) };
    let gpu = GpuProgram { symbols, resident: shared.resident.iter().copied().collect(), ..GpuProgram::default() };
    let mut flat = Flat {
        shared: &shared,
        gpu,
        shaders: HashMap::new(),
        problems: Vec::new(),
        failed: BTreeSet::new(),
        instances: 1,
    };
    flat.block(BlockId(0), 0);
    flat.outputs();
    match flat.problems.is_empty() {
        true => Ok(flat.gpu),
        false => Err(Unsupported { program: program.name.clone(), problems: flat.problems }),
    }
}

/// The symbols of the inputs' dims, then those of blocks' rows and joins' lengths.
fn symbols(program: &Program) -> Vec<Symbol> {
    let inputs = program.inputs.iter().flat_map(|p| &p.dims).filter_map(Dim::as_symbol).cloned();
    let mut all: Vec<Symbol> = Vec::new();
    let rows = program.blocks.iter().filter_map(|b| b.rows.clone());
    let lengths = program.blocks.iter().flat_map(|b| &b.steps).filter_map(|step| match step {
        Step::Route(route) => Some(route.join.as_ref()?.length.as_ref()?.symbol.clone()),
        Step::Run(_) | Step::If(_) | Step::Repeat(_) => None,
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
        });
        self.gpu.dispatches.len() - 1
    }

    /// Puts what was made at a place of the list, or notes why it was not.
    fn fill(&mut self, place: usize, role: Role, name: &str, made: Made<'p>) {
        let shader = made.and_then(|(writer, body)| self.shader(writer, body));
        match shader {
            Ok((shader, groups, params, constants)) => {
                let dispatch = &mut self.gpu.dispatches[place];
                *dispatch = Dispatch { shader, role, groups, params, constants, ..dispatch.clone() };
            }
            Err(reason) => self.problem(name, reason),
        }
    }

    fn shader(&mut self, writer: Writer, body: Body) -> Result<(u32, Dim, Vec<Param>, Vec<u32>), Reason> {
        let written = writer.finish(body.lanes);
        let next = self.gpu.shaders.len() as u32;
        let number = match self.shaders.get(&written.text) {
            Some(number) => *number,
            None => {
                check::check(&written.text)?;
                self.gpu.shaders.push(Shader { text: written.text.clone(), needs: Needs::default() });
                self.shaders.insert(written.text, next);
                next
            }
        };
        Ok((number, body.groups, written.params, written.constants))
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
                Step::Repeat(_) => {
                    self.problem(&place, "a loop whose steps are counted while it runs has no form on a GPU".into());
                }
            }
        }
    }

    /// A kernel, with as many of the steps after it as can run with it; gives their number.
    fn run(&mut self, id: KernelId, after: &[Step], at: At) -> usize {
        let found = self.program().kernel(id);
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
            if forms.len() > matmul::TOGETHER || self.bound_constants(&forms) > constants::BINDINGS {
                break;
            }
            found.push((*id, form));
        }
        found
    }

    /// How many constants a dispatch of these products binds.
    fn bound_constants(&self, forms: &[&MatMul]) -> usize {
        let program = self.program();
        let is_bound = |id: &BufferId| {
            matches!(program.buffer(*id).source, Source::Constant(_)) && !self.shared.resident.contains(id)
        };
        forms.iter().flat_map(|form| matmul::reads(form)).filter(is_bound).collect::<BTreeSet<_>>().len()
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

//! Where buffers live: lifetimes over the order of the jobs, and offsets in one arena.

use eec_ir::BufferId;
use eec_ir::program::{BlockId, Join, Program, RepeatStep, RouteStep, Source, Step};

use crate::jobs::jobs;
use crate::pages::Pages;
use crate::placing::{Life, extend_aliased, place};

/// Buffers start at multiples of this.
const ALIGN: usize = 64;

/// The lifetimes of a program's buffers, in jobs; they do not depend on sizes.
pub(crate) struct Lifetimes(Vec<Option<Life>>);

impl Lifetimes {
    /// The lifetimes of a verified program's buffers.
    pub(crate) fn of(program: &Program) -> Lifetimes {
        let mut walk = Walk { program, now: 0, lives: vec![None; program.buffers.len()] };
        walk.block(BlockId(0));
        walk.now += 1;
        program.outputs.iter().for_each(|p| walk.touch(p.buffer));
        extend_aliased(&mut walk.lives, program);
        Lifetimes(walk.lives)
    }
}

struct Walk<'a> {
    program: &'a Program,
    now: u32,
    lives: Vec<Option<Life>>,
}

impl Walk<'_> {
    fn touch(&mut self, id: BufferId) {
        let now = self.now;
        let life = self.lives[id.index()].get_or_insert((now, now));
        life.1 = now;
    }

    fn block(&mut self, id: BlockId) {
        let program = self.program;
        for job in jobs(program, &program.block(id).steps) {
            self.now += 1;
            job.iter().for_each(|step| self.step(step));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Run(kernel) => {
                let form = &self.program.kernel(*kernel).form;
                form.reads().into_iter().chain(form.writes()).for_each(|b| self.touch(b));
            }
            Step::If(step) => {
                self.touch(step.condition);
                self.block(step.then);
                self.block(step.other);
                self.now += 1;
                self.results(&step.results, &[step.then, step.other]);
            }
            Step::Route(step) => self.route(step),
            Step::Repeat(step) => self.repeat(step),
            Step::Size(step) => self.touch(step.value),
        }
    }

    /// What a step carries on goes in turn to the parameter's memory and the result's, so both are kept, as
    /// is what steps read from before.
    fn repeat(&mut self, step: &RepeatStep) {
        let (program, start) = (self.program, self.now);
        let block = program.block(step.body);
        let rows = step.rows.iter().map(|row| row.buffer);
        let own = block.params.iter().flatten().chain(&step.results).copied().chain(rows);
        let kept: Vec<BufferId> = own.collect();
        step.condition.iter().chain(&step.carried).chain(&kept).for_each(|id| self.touch(*id));
        self.block(step.body);
        self.now += 1;
        block.yields.iter().chain(&kept).for_each(|id| self.touch(*id));
        self.keep_from(start);
    }

    fn route(&mut self, step: &RouteStep) {
        let start = self.now;
        let sides = [step.then, step.other];
        let operands: Vec<BufferId> = step.operands.iter().map(|o| o.buffer).collect();
        let results: Vec<BufferId> = step.results.iter().map(|r| r.buffer).collect();
        self.rows(&operands, step.mask, sides);
        if step.join.is_some() {
            // The first group's results wait here while the second group runs.
            results.iter().for_each(|r| self.touch(*r));
        }
        self.block(step.then);
        self.block(step.other);
        if let Some(join) = &step.join {
            self.join(sides, join);
        }
        self.now += 1;
        self.rows(&operands, step.mask, sides);
        match &step.join {
            Some(join) => {
                self.results(&results, &[join.block]);
                self.keep_from(start);
            }
            None => self.results(&results, &sides),
        }
    }

    /// A join runs after `then`, and again after `else`: in this order of steps it stands after both.
    fn join(&mut self, sides: [BlockId; 2], join: &Join) {
        let program = self.program;
        self.now += 1;
        for id in sides {
            for (param, given) in program.block(join.block).params.iter().zip(&program.block(id).yields) {
                let Some(param) = param else { continue };
                self.touch(*param);
                self.touch(*given);
            }
        }
        self.block(join.block);
    }

    /// Keeps what was made before `start` and used since until now. `else` and the second run of a
    /// join come after the first run, whose own buffers must not take the place of what they read.
    fn keep_from(&mut self, start: u32) {
        let now = self.now;
        for (first, last) in self.lives.iter_mut().flatten() {
            if *first < start && *last >= start {
                *last = now;
            }
        }
    }

    /// A route needs its mask, operands and parameters until both blocks are done.
    fn rows(&mut self, operands: &[BufferId], mask: BufferId, blocks: [BlockId; 2]) {
        let program = self.program;
        self.touch(mask);
        for id in blocks {
            for (param, operand) in program.block(id).params.iter().zip(operands) {
                let Some(param) = param else { continue };
                self.touch(*param);
                self.touch(*operand);
            }
        }
    }

    fn results(&mut self, results: &[BufferId], blocks: &[BlockId]) {
        let program = self.program;
        results.iter().for_each(|r| self.touch(*r));
        for id in blocks {
            program.block(*id).yields.iter().take(results.len()).for_each(|given| self.touch(*given));
        }
    }
}

/// Offsets of the buffers that live in the arena.
pub(crate) struct Layout {
    /// Bytes from the start, for buffers that are no inputs and no constants.
    pub(crate) offsets: Vec<Option<usize>>,
    /// Bytes in all.
    pub(crate) total: usize,
    /// Bytes that each buffer has room for.
    room: Vec<usize>,
}

impl Layout {
    /// Places buffers of these sizes in bytes where no living one is; `None` on overflow.
    pub(crate) fn new(program: &Program, lifetimes: &Lifetimes, sizes: &[usize]) -> Option<Layout> {
        let in_arena = |i: &usize| match program.buffers[*i].source {
            Source::Temp | Source::Param | Source::Result => true,
            Source::Input(_) | Source::Constant(_) => false,
        };
        let placed: Vec<usize> = (0..sizes.len()).filter(in_arena).collect();
        let things: Vec<(usize, Life)> =
            placed.iter().map(|i| (sizes[*i], lifetimes.0[*i].unwrap_or((0, u32::MAX)))).collect();
        let (found, total) = place(&things, ALIGN)?;
        let mut offsets = vec![None; sizes.len()];
        placed.iter().zip(found).for_each(|(i, offset)| offsets[*i] = Some(offset));
        Some(Layout { offsets, total, room: sizes.to_vec() })
    }

    /// Whether buffers of these sizes have room.
    pub(crate) fn fits(&self, sizes: &[usize]) -> bool {
        sizes.iter().zip(&self.room).all(|(size, room)| size <= room)
    }
}

/// The memory that all temporary buffers share; it only grows.
#[derive(Default)]
pub(crate) struct Arena(Pages);

impl Arena {
    /// Its first byte, with at least `bytes` bytes behind it; `None` if the system has no such memory.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Option<*mut u8> {
        if bytes > self.0.len() {
            self.0 = Pages::default();
            self.0 = Pages::new(bytes)?;
        }
        Some(self.0.as_mut_ptr())
    }

    /// Bytes that it holds.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

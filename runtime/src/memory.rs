//! Where buffers live: lifetimes over the order of the steps, and offsets in one arena.

use eec_ir::BufferId;
use eec_ir::program::{BlockId, Program, RouteStep, Source, Step};

/// Buffers start at multiples of this.
const ALIGN: usize = 64;

/// When a buffer is touched first and last, in steps.
type Life = (u32, u32);

/// The lifetimes of a program's buffers; they do not depend on sizes.
pub(crate) struct Lifetimes(Vec<Option<Life>>);

impl Lifetimes {
    /// The lifetimes of a verified program's buffers.
    pub(crate) fn of(program: &Program) -> Lifetimes {
        let mut walk = Walk { program, now: 0, lives: vec![None; program.buffers.len()], aliases: Vec::new() };
        walk.block(BlockId(0));
        walk.now += 1;
        program.outputs.iter().for_each(|p| walk.touch(p.buffer));
        walk.extend_aliased();
        Lifetimes(walk.lives)
    }
}

struct Walk<'a> {
    program: &'a Program,
    now: u32,
    lives: Vec<Option<Life>>,
    /// Buffers that may stand for another one: (name, target).
    aliases: Vec<(BufferId, BufferId)>,
}

impl Walk<'_> {
    fn touch(&mut self, id: BufferId) {
        let now = self.now;
        let life = self.lives[id.index()].get_or_insert((now, now));
        life.1 = now;
    }

    fn block(&mut self, id: BlockId) {
        let program = self.program;
        for step in &program.block(id).steps {
            self.now += 1;
            match step {
                Step::Run(kernel) => {
                    let form = &program.kernel(*kernel).form;
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
            }
        }
    }

    fn route(&mut self, step: &RouteStep) {
        let (operands, start): (Vec<BufferId>, u32) = (step.operands.iter().map(|o| o.buffer).collect(), self.now);
        let results: Vec<BufferId> = step.results.iter().map(|r| r.buffer).collect();
        self.rows(&operands, step.mask, [step.then, step.other]);
        self.block(step.then);
        self.block(step.other);
        if let Some(join) = &step.join {
            results.iter().for_each(|r| self.touch_from(*r, start));
            self.now += 1;
            let sides = [step.then, step.other];
            self.join_params(join.block, sides);
            self.block(join.block);
            self.now += 1;
            self.join_params(join.block, sides);
            self.keep_outer(start);
        }
        self.now += 1;
        self.rows(&operands, step.mask, [step.then, step.other]);
        for block in step.last_blocks() {
            self.results(&results, &[block]);
        }
    }

    fn touch_from(&mut self, id: BufferId, start: u32) {
        self.touch(id);
        if let Some(life) = &mut self.lives[id.index()] {
            life.0 = life.0.min(start);
        }
    }

    /// A join's parameters stand for what either block before it yields, until its second run is done.
    fn join_params(&mut self, join: BlockId, sides: [BlockId; 2]) {
        let program = self.program;
        for side in sides {
            for (param, given) in program.block(join).params.iter().zip(&program.block(side).yields) {
                self.touch(*given);
                let Some(param) = param else { continue };
                self.touch(*param);
                self.aliases.push((*param, *given));
            }
        }
    }

    /// A join runs between the two blocks as well as after them, and twice: what was there before the
    /// step and is read in it must outlive all of that.
    fn keep_outer(&mut self, start: u32) {
        let now = self.now;
        for life in self.lives.iter_mut().flatten().filter(|l| l.0 < start && l.1 >= start) {
            life.1 = now;
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
                self.aliases.push((*param, *operand));
            }
        }
    }

    fn results(&mut self, results: &[BufferId], blocks: &[BlockId]) {
        let program = self.program;
        results.iter().for_each(|r| self.touch(*r));
        for id in blocks {
            for (result, given) in results.iter().zip(&program.block(*id).yields) {
                self.touch(*given);
                self.aliases.push((*result, *given));
            }
        }
    }

    /// What a name may stand for lives as long as the name.
    fn extend_aliased(&mut self) {
        let mut changed = true;
        while changed {
            changed = false;
            for (name, target) in self.aliases.iter().rev() {
                let Some((_, until)) = self.lives[name.index()] else { continue };
                if let Some(life) = &mut self.lives[target.index()]
                    && life.1 < until
                {
                    life.1 = until;
                    changed = true;
                }
            }
        }
    }
}

/// Offsets of the buffers that live in the arena.
pub(crate) struct Layout {
    /// Bytes from the start, for buffers that are no inputs and no constants.
    pub(crate) offsets: Vec<Option<usize>>,
    /// Bytes in all.
    pub(crate) total: usize,
}

impl Layout {
    /// Places buffers of these sizes in bytes, large ones first, where no living one is; `None` on overflow.
    pub(crate) fn new(program: &Program, lifetimes: &Lifetimes, sizes: &[usize]) -> Option<Layout> {
        let in_arena = |i: &usize| match program.buffers[*i].source {
            Source::Temp | Source::Param | Source::Result => true,
            Source::Input(_) | Source::Constant(_) => false,
        };
        let mut order: Vec<usize> = (0..sizes.len()).filter(in_arena).collect();
        order.sort_by_key(|i| (std::cmp::Reverse(sizes[*i]), *i));
        let mut offsets = vec![None; sizes.len()];
        let mut placed: Vec<(usize, usize, Life)> = Vec::new();
        let mut total = 0;
        for i in order {
            let size = sizes[i].max(1).checked_next_multiple_of(ALIGN)?;
            let life = lifetimes.0[i].unwrap_or((0, u32::MAX));
            let offset = first_gap(&placed, size, life);
            let end = offset.checked_add(size)?;
            offsets[i] = Some(offset);
            total = total.max(end);
            let at = placed.partition_point(|p| p.0 < offset);
            placed.insert(at, (offset, end, life));
        }
        Some(Layout { offsets, total })
    }
}

/// The lowest offset where `size` bytes are free during `life`; `placed` is sorted by offset.
fn first_gap(placed: &[(usize, usize, Life)], size: usize, life: Life) -> usize {
    let mut offset = 0usize;
    for (start, end, other) in placed {
        let together = life.0 <= other.1 && other.0 <= life.1;
        if !together {
            continue;
        }
        if offset.saturating_add(size) <= *start {
            break;
        }
        offset = offset.max(*end);
    }
    offset
}

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGN]);

/// The memory that all temporary buffers share; it only grows.
#[derive(Default)]
pub(crate) struct Arena(Vec<Line>);

impl Arena {
    /// Its first byte, with at least `bytes` bytes behind it; `None` if the system has no such memory.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Option<*mut u8> {
        let lines = bytes.div_ceil(ALIGN).max(1);
        if lines > self.0.len() {
            self.0.try_reserve_exact(lines - self.0.len()).ok()?;
            self.0.resize(lines, Line([0; ALIGN]));
        }
        Some(self.0.as_mut_ptr().cast())
    }

    /// Bytes that it holds.
    pub(crate) fn len(&self) -> usize {
        self.0.len() * ALIGN
    }
}

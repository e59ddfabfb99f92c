//! Where buffers get their content: each once, and before everything that reads it.
//!
//! The runtime rests on this for memory safety. A parameter or result is a name that stands for
//! other memory where no rows are copied; given a second content, it would be written through.

use std::fmt;

use super::{BlockId, Program, Source, Step};
use crate::entity::BufferId;

/// What the walk knows of a buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Undefined,
    /// Kernels of this block write it, and nothing has read it.
    Written(BlockId),
    /// Its content is final, and the rest of this block may read it.
    Defined(BlockId),
    /// Its block is done.
    Gone,
}

struct Walk<'a> {
    program: &'a Program,
    states: Vec<State>,
    problems: Vec<String>,
}

/// What is wrong with the definitions of a program whose ids exist and whose blocks form a tree.
pub(super) fn check(program: &Program) -> Vec<String> {
    let state = |b: &super::Buffer| match b.source {
        Source::Input(_) | Source::Constant(_) => State::Defined(BlockId(0)),
        Source::Temp | Source::Param | Source::Result => State::Undefined,
    };
    let states = program.buffers.iter().map(state).collect();
    let mut walk = Walk { program, states, problems: Vec::new() };
    walk.block(BlockId(0));
    walk.problems
}

impl Walk<'_> {
    fn report(&mut self, place: &str, id: BufferId, problem: impl fmt::Display) {
        self.problems.push(format!("{place}: buffer {id} {problem}"));
    }

    /// The steps of a block in the order in which they run.
    fn block(&mut self, id: BlockId) {
        let block = self.program.block(id);
        let place = format!("block {}", id.0);
        block.params.iter().flatten().for_each(|param| self.define(&place, id, *param));
        for (i, step) in block.steps.iter().enumerate() {
            self.step(&format!("{place}, step {i}"), id, step);
        }
        block.yields.iter().for_each(|given| self.read(&place, *given));
        if id.0 == 0 {
            self.program.outputs.iter().for_each(|port| self.read(&format!("port {:?}", port.name), port.buffer));
        }
        for state in &mut self.states {
            if *state == State::Written(id) || *state == State::Defined(id) {
                *state = State::Gone;
            }
        }
    }

    fn step(&mut self, place: &str, block: BlockId, step: &Step) {
        match step {
            Step::Run(kernel) => {
                let form = &self.program.kernel(*kernel).form;
                form.reads().into_iter().for_each(|id| self.read(place, id));
                form.writes().into_iter().for_each(|id| self.write(place, block, id));
            }
            Step::If(step) => {
                self.read(place, step.condition);
                [step.then, step.other].into_iter().for_each(|id| self.block(id));
                step.results.iter().for_each(|id| self.define(place, block, *id));
            }
            Step::Route(step) => {
                self.read(place, step.mask);
                step.operands.iter().for_each(|operand| self.read(place, operand.buffer));
                [step.then, step.other].into_iter().for_each(|id| self.block(id));
                step.join.iter().for_each(|join| self.block(join.block));
                step.results.iter().for_each(|result| self.define(place, block, result.buffer));
            }
            Step::Repeat(step) => {
                step.condition.iter().chain(&step.carried).for_each(|id| self.read(place, *id));
                self.block(step.body);
                let rows = step.rows.iter().map(|row| row.buffer);
                step.results.iter().copied().chain(rows).for_each(|id| self.define(place, block, id));
            }
            Step::Size(step) => self.read(place, step.value),
        }
    }

    fn define(&mut self, place: &str, block: BlockId, id: BufferId) {
        if self.states[id.index()] != State::Undefined {
            self.report(place, id, "is defined twice");
        }
        self.states[id.index()] = State::Defined(block);
    }

    fn write(&mut self, place: &str, block: BlockId, id: BufferId) {
        match self.states[id.index()] {
            State::Undefined => self.states[id.index()] = State::Written(block),
            State::Written(by) if by == block => {}
            State::Written(_) | State::Gone => self.report(place, id, "is written by several blocks"),
            State::Defined(_) => self.report(place, id, "is written after it was read"),
        }
    }

    fn read(&mut self, place: &str, id: BufferId) {
        match self.states[id.index()] {
            State::Undefined => self.report(place, id, "is read before it is defined"),
            State::Written(block) => self.states[id.index()] = State::Defined(block),
            State::Defined(_) => {}
            State::Gone => self.report(place, id, "is read outside the block that defines it"),
        }
    }
}

//! The text form of a [`GpuProgram`], for snapshots, `--emit wgsl` and `--dump-wgsl`. It is not parsed.

use std::fmt::{self, Display, Formatter};

use super::{Dispatch, GpuProgram, PIECE, Param, Role};

impl Display for GpuProgram {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_dispatches(f)?;
        for (i, shader) in self.shaders.iter().enumerate() {
            writeln!(f, "\n// shader {i}\n{}", shader.text.trim_end())?;
            if let Some(text) = &shader.with_subgroups {
                writeln!(f, "\n// shader {i} with subgroups\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

impl GpuProgram {
    /// The list of dispatches, without the shaders' text.
    pub fn dispatches_text(&self) -> String {
        struct Dispatches<'a>(&'a GpuProgram);
        impl Display for Dispatches<'_> {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                self.0.write_dispatches(f)
            }
        }
        Dispatches(self).to_string()
    }

    fn write_dispatches(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let list = |items: Vec<String>| items.join(", ");
        writeln!(f, "symbols {}", list(self.symbols.iter().map(|s| s.to_string()).collect()))?;
        writeln!(f, "resident {}", list(self.resident.iter().map(|b| b.to_string()).collect()))?;
        if !self.halves.is_empty() {
            writeln!(f, "halves {}", list(self.halves.iter().map(|c| format!("const {c}")).collect()))?;
        }
        if self.piece != PIECE {
            writeln!(f, "bindings of {} words", self.piece)?;
        }
        for (i, words) in self.scratch.iter().enumerate() {
            writeln!(f, "scratch {i} of {words}")?;
        }
        for (i, repeat) in self.repeats.iter().enumerate() {
            let (first, last) = (repeat.dispatches.start, repeat.dispatches.end.saturating_sub(1));
            writeln!(f, "loop {i} of block {}: d{first} to d{last}", repeat.body.0)?;
        }
        for (i, dispatch) in self.dispatches.iter().enumerate() {
            writeln!(f, "d{i} {dispatch}")?;
        }
        Ok(())
    }
}

impl Display for Dispatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.role)?;
        self.with.iter().try_for_each(|k| write!(f, " with {k}"))?;
        match self.role {
            Role::Host(_) => {}
            Role::Kernel(_) | Role::Control | Role::Rows | Role::Output(_) => {
                write!(f, " by shader {} x {} in block {}", self.shader, self.groups, self.block.0)?;
            }
        }
        write!(f, " (")?;
        for (i, param) in self.params.iter().enumerate() {
            write!(f, "{}{param}", if i > 0 { ", " } else { "" })?;
        }
        write!(f, ")")?;
        self.constants.iter().try_for_each(|c| write!(f, " const {c}"))
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Role::Kernel(kernel) => write!(f, "{kernel}"),
            Role::Control => f.write_str("control"),
            Role::Rows => f.write_str("rows"),
            Role::Output(output) => write!(f, "output {output}"),
            Role::Host(kernel) => write!(f, "{kernel} by the host"),
        }
    }
}

impl Display for Param {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Param::Number(n) => write!(f, "{n}"),
            Param::Symbol(i) => write!(f, "symbol {i}"),
            Param::Offset(buffer) => write!(f, "{buffer}"),
            Param::Home(buffer) => write!(f, "home {buffer}"),
            Param::Scratch(i) => write!(f, "scratch {i}"),
            Param::Live(block) => write!(f, "live {}", block.0),
            Param::Step(i) => write!(f, "step {i}"),
            Param::StepsLeft => f.write_str("steps left"),
            Param::Control(i) => write!(f, "control {i}"),
            Param::Rows(i) => write!(f, "rows {i}"),
            Param::Planned => f.write_str("planned"),
            Param::Counter => f.write_str("counter"),
            Param::Fault => f.write_str("fault"),
            Param::Sum(i) => write!(f, "sum {i}"),
            Param::Output(i) => write!(f, "output {i}"),
        }
    }
}

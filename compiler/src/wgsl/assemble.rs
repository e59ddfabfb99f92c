//! The text of a shader put together: declarations, functions, and `main` behind its guard.

use eec_ir::gpu::{ARENA, Fault};

use super::text::{COUNTER, Kind, LIVE, Writer, value_of};

impl Writer<'_> {
    /// The text with workgroups of so many lanes, over a uniform of so many vectors; `counts` are positions among the
    /// counters, and what is added there.
    pub(super) fn assemble(&self, lanes: u32, uniform: usize, subgroups: bool, counts: &[(String, String)]) -> String {
        let atomic = self.fault.is_some();
        let body = self.lines.join("\n");
        let mut text = format!("@group(0) @binding(0) var<uniform> params: array<vec4<i32>, {uniform}>;\n");
        let access = if self.kind == Kind::Control { "read_write" } else { "read" };
        text.push_str(&format!("@group(0) @binding(1) var<storage, {access}> state: array<i32>;\n"));
        let counter = if atomic { "atomic<u32>" } else { "u32" };
        text.push_str(&format!("@group(0) @binding(2) var<storage, read_write> counters: array<{counter}>;\n"));
        let uses = |name: &str| body.contains(name) || self.globals.iter().any(|g| g.contains(name));
        let arena = uses("arena_load(") || uses("arena_store(");
        match self.kind {
            Kind::Kernel => {}
            Kind::Control if uses("arguments[") => {
                text.push_str("@group(0) @binding(4) var<storage, read_write> arguments: array<u32>;\n");
            }
            Kind::Control => {}
        }
        if arena {
            text.push_str(ARENA);
        }
        self.bindings.iter().chain(&self.globals).for_each(|line| text.push_str(&format!("{line}\n")));
        if subgroups {
            text.push_str(SUBGROUP);
        }
        self.together.iter().for_each(|forms| text.push_str(&format!("{}\n", forms[usize::from(subgroups)])));
        for helper in &self.helpers {
            text.push_str(&format!("\n{}\n", helper.source()));
        }
        if let Some(at) = &self.fault {
            text.push_str(&format!(
                "\nfn fail(fault: u32) {{\nif atomicLoad(&counters[{at}]) == 0u {{\natomicStore(&counters[{at}], 1u + u32({}) * {}u + fault);\n}}\n}}\n",
                value_of(COUNTER), Fault::KINDS
            ));
        }
        text.push_str(&self.entry(lanes, atomic, subgroups, counts, &body));
        text
    }

    fn entry(&self, lanes: u32, atomic: bool, subgroups: bool, counts: &[(String, String)], body: &str) -> String {
        let live = value_of(LIVE);
        let guard = match self.kind {
            Kind::Kernel => format!("if state[{live}] == 0 {{ return; }}"),
            // What others write is uniform only if one lane reads it for all.
            Kind::Control => {
                format!("if lane == 0 {{ live = state[{live}]; }}\nif workgroupUniformLoad(&live) == 0 {{ return; }}")
            }
        };
        let add = |(at, value): (String, String)| match atomic {
            true => format!("atomicAdd(&counters[{at}], {value});"),
            false => format!("counters[{at}] += {value};"),
        };
        let sums = counts.iter().map(|(at, name)| (at.clone(), format!("u32({name})")));
        let counted: Vec<String> = std::iter::once((value_of(COUNTER), "1u".into())).chain(sums).map(add).collect();
        let mut main = vec![
            format!("\n@compute @workgroup_size({lanes})"),
            "fn main(".into(),
            "@builtin(workgroup_id) group_id: vec3<u32>,".into(),
            "@builtin(num_workgroups) group_count: vec3<u32>,".into(),
            "@builtin(local_invocation_index) lane_index: u32,".into(),
        ];
        if subgroups {
            main.extend(SUBGROUP_INPUTS.map(String::from));
        }
        main.push(") {".into());
        if subgroups {
            main.push(
                "subgroup = Subgroup(i32(subgroup_id), i32(num_subgroups), subgroup_lane, subgroup_size);".into(),
            );
        }
        main.extend([
            "let group = i32(group_id.x);".into(),
            "let groups = i32(group_count.x);".into(),
            "let lane = i32(lane_index);".into(),
            guard,
        ]);
        main.extend(self.head.iter().cloned());
        main.extend(self.unless.iter().map(|condition| format!("if {condition} {{ return; }}")));
        main.push(format!("if group == 0 && lane == 0 {{ {} }}", counted.join(" ")));
        main.push(body.to_string());
        main.push("}\n".into());
        let live = if self.kind == Kind::Control { "\nvar<workgroup> live: i32;\n" } else { "" };
        live.to_string() + &main.join("\n")
    }
}

/// What a shader with subgroup operations knows of its lane's subgroup.
const SUBGROUP: &str = "
struct Subgroup {
number: i32,
count: i32,
lane: u32,
size: u32,
}

var<private> subgroup: Subgroup;
";

const SUBGROUP_INPUTS: [&str; 4] = [
    "@builtin(subgroup_id) subgroup_id: u32,",
    "@builtin(num_subgroups) num_subgroups: u32,",
    "@builtin(subgroup_invocation_id) subgroup_lane: u32,",
    "@builtin(subgroup_size) subgroup_size: u32,",
];

/// Indents lines by the braces and parentheses around them.
pub(super) fn indented(text: &str) -> String {
    let mut depth = 0usize;
    let mut out = String::with_capacity(text.len() * 2);
    for line in text.lines().map(str::trim) {
        let closes = line.chars().take_while(|c| matches!(c, '}' | ')')).count();
        let shown = depth.saturating_sub(closes);
        if !line.is_empty() {
            out.push_str(&"    ".repeat(shown));
            out.push_str(line);
        }
        out.push('\n');
        let opened = line.chars().filter(|c| matches!(c, '{' | '(')).count();
        let closed = line.chars().filter(|c| matches!(c, '}' | ')')).count();
        depth = (depth + opened).saturating_sub(closed);
    }
    out
}

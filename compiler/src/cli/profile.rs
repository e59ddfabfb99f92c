//! `eec bench --profile`: where the time of a run goes, kernel by kernel, against the machine's limits.

use std::collections::BTreeMap;

use eec_ir::Tensor;
use eec_ir::program::{Form, Kernel};
use eec_runtime::{Control, Limits, Measure};
use serde_json::{Value, json};

use super::output;
use crate::Error;
use crate::backend::Backend;
use crate::model::{Form as ModelForm, Model};

/// Lines that the text shows; JSON has all.
const LINES: usize = 25;

/// What a line of the profile is.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum By {
    /// The kernels of one name but for its numbers, as the blocks of a network have them
    Name,
    /// One kernel
    Kernel,
}

/// Kernels of one name and form.
#[derive(Default)]
struct Group {
    kernels: usize,
    runs: u64,
    measure: Measure,
}

/// What was measured over a number of runs.
pub(super) struct Profile {
    /// By name and form, most time first.
    groups: Vec<((String, &'static str), Group)>,
    limits: Limits,
    runs: u64,
}

/// Measures `runs` runs, after as many that warm up.
pub(super) fn measure(
    model: &Model,
    form: ModelForm,
    backend: &Backend,
    inputs: &[(&str, Tensor)],
    control: Control,
    by: By,
    runs: usize,
) -> Result<Profile, Error> {
    let limits = limits(backend)?;
    let mut session = model.measured_runner(form, backend, true)?;
    let mut groups: BTreeMap<(String, &'static str), Group> = BTreeMap::new();
    for _ in 0..runs {
        session.run(inputs, control)?;
    }
    for run in 0..runs {
        let counters = session.run(inputs, control)?.counters;
        for ((kernel, measure), count) in
            session.program().kernels.iter().zip(&counters.measures).zip(&counters.per_kernel)
        {
            let name = if by == By::Name { general(kernel) } else { kernel.name.clone() };
            let group = groups.entry((name, form_name(&kernel.form))).or_default();
            group.kernels += usize::from(run == 0);
            group.runs += count;
            group.measure.ns += measure.ns;
            group.measure.macs += measure.macs;
            group.measure.bytes += measure.bytes;
        }
    }
    let mut groups: Vec<_> = groups.into_iter().filter(|(_, g)| g.runs > 0).collect();
    groups.sort_by_key(|(_, g)| std::cmp::Reverse(g.measure.ns));
    Ok(Profile { groups, limits, runs: runs as u64 })
}

/// What the backend can do at most.
fn limits(backend: &Backend) -> Result<Limits, Error> {
    match backend {
        Backend::Cpu { threads } => Ok(Limits::measure(threads.unwrap_or(0))),
        #[cfg(feature = "gpu")]
        Backend::Gpu(on) => {
            let measured = eec_runtime::gpu::GpuLimits::measure(&on.gpu)?;
            Ok(Limits {
                macs_per_second: measured.macs_per_second(),
                bytes_per_second: measured.copied_bytes_per_second,
            })
        }
    }
}

/// The kernel's name with a star for every number.
fn general(kernel: &Kernel) -> String {
    let mut name = String::new();
    for c in kernel.name.chars() {
        match (c.is_ascii_digit(), name.ends_with('*')) {
            (true, true) => {}
            (true, false) => name.push('*'),
            (false, _) => name.push(c),
        }
    }
    name
}

fn form_name(form: &Form) -> &'static str {
    match form {
        Form::Loop(form) if form.reductions.is_empty() => "map",
        Form::Loop(_) => "reduce",
        Form::MatMul(_) => "matmul",
        Form::Attention(_) => "attention",
        Form::Conv(_) => "conv",
        Form::Pool(_) => "pool",
        Form::Scan(_) => "scan",
        Form::Host(_) => "host",
    }
}

impl Profile {
    fn total_ns(&self) -> u64 {
        self.groups.iter().map(|(_, g)| g.measure.ns).sum()
    }

    /// Per run: microseconds, 10^9 operations per second (two per multiply-accumulate), 10^9 bytes per
    /// second, and the larger share of the two limits.
    fn rates(&self, measure: &Measure) -> [f64; 4] {
        let seconds = measure.ns.max(1) as f64 * 1e-9;
        let (macs, bytes) = (measure.macs as f64 / seconds, measure.bytes as f64 / seconds);
        let share = (macs / self.limits.macs_per_second).max(bytes / self.limits.bytes_per_second);
        [measure.ns as f64 / self.runs.max(1) as f64 / 1e3, 2.0 * macs / 1e9, bytes / 1e9, share]
    }

    /// A table of the groups that take most time.
    pub(super) fn text(&self) -> String {
        let total = self.total_ns().max(1) as f64;
        let head = ["kernels", "form", "runs", "time", "share", "GFLOP/s", "GB/s", "of limit"];
        let mut rows = vec![head.map(String::from).to_vec()];
        for ((name, form), group) in self.groups.iter().take(LINES) {
            let [us, gflops, gbs, limit] = self.rates(&group.measure);
            rows.push(vec![
                name.clone(),
                (*form).into(),
                format!("{:.1}", group.runs as f64 / self.runs.max(1) as f64),
                format!("{us:.1} us"),
                format!("{:.1} %", 100.0 * group.measure.ns as f64 / total),
                format!("{gflops:.1}"),
                format!("{gbs:.1}"),
                format!("{:.0} %", 100.0 * limit),
            ]);
        }
        let rest: u64 = self.groups.iter().skip(LINES).map(|(_, g)| g.measure.ns).sum();
        if rest > 0 {
            let us = rest as f64 / self.runs.max(1) as f64 / 1e3;
            let name = format!("{} others", self.groups.len() - LINES);
            rows.push(vec![
                name,
                "".into(),
                "".into(),
                format!("{us:.1} us"),
                format!("{:.1} %", 100.0 * rest as f64 / total),
            ]);
        }
        let (flops, bytes) = (2e-9 * self.limits.macs_per_second, 1e-9 * self.limits.bytes_per_second);
        format!(
            "{}\nall kernels {:.1} us a run; limits measured here: {flops:.0} GFLOP/s, {bytes:.0} GB/s from memory\n\
             (what lies in a cache may be read faster)\n",
            output::table(&rows),
            total / self.runs.max(1) as f64 / 1e3,
        )
    }

    /// All groups and the limits.
    pub(super) fn json(&self) -> Value {
        let group = |((name, form), group): &((String, &'static str), Group)| {
            let [us, gflops, gbs, limit] = self.rates(&group.measure);
            json!({
                "name": name, "form": form, "kernels": group.kernels,
                "runs": group.runs as f64 / self.runs.max(1) as f64,
                "us": us, "gflops": gflops, "gbytes_per_s": gbs, "share_of_limit": limit,
            })
        };
        json!({
            "kernels": self.groups.iter().map(group).collect::<Vec<_>>(),
            "limit_gflops": 2e-9 * self.limits.macs_per_second,
            "limit_gbytes_per_s": 1e-9 * self.limits.bytes_per_second,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eec_ir::Dim;

    #[test]
    fn kernels_of_repeated_blocks_have_one_name() {
        let scan = eec_ir::program::Scan {
            dtype: eec_ir::DType::F32,
            outer: Dim::from(1),
            len: Dim::from(1),
            inner: Dim::from(1),
            exclusive: false,
            reverse: false,
            x: eec_ir::BufferId(0),
            y: eec_ir::BufferId(0),
        };
        let kernel = |name: &str| Kernel {
            name: name.into(),
            pass: String::new(),
            macs: Dim::from(0),
            form: Form::Scan(scan.clone()),
        };
        assert_eq!(general(&kernel("/layer.11/MatMul_2")), "/layer.*/MatMul_*");
        assert_eq!(general(&kernel("/layer.3/MatMul_14")), "/layer.*/MatMul_*");
    }
}

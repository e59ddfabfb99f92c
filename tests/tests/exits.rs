//! Early exits at both extremes and in between, on small models through passes, lowering and the
//! CPU runtime: what a run computes, and what its counters prove it did not compute.

use std::path::Path;

use eec::cases::{Case, run_passes, seeded_inputs};
use eec_ir::bind::Sizes;
use eec_ir::{Graph, Symbol, Tensor};
use eec_passes::exit_heads::{CONFIDENCE, EXIT_INDEX};
use eec_passes::pass::Context;
use eec_runtime::{Control, Run, Session};
use eec_tests::backend::{cpu, run};
use eec_tests::files::{cases_folder, read};
use eec_tests::values::row;

/// A small model and how its exits are written.
struct Small {
    name: &'static str,
    /// The symbol of the batch, and the other sizes.
    batch: &'static str,
    sizes: &'static [(&'static str, i64)],
    /// Blocks with an exit, as in options, and what names of later blocks' kernels start with.
    at: &'static [usize],
    head: &'static str,
    block: &'static str,
    blocks: usize,
}

/// Pre-norm with a class token, post-norm with a mask, convolutions with a stride: one head of each kind.
const MODELS: &[Small] = &[
    Small { name: "vit", batch: "batch", sizes: &[], at: &[0, 1], head: "linear", block: "block.", blocks: 4 },
    Small {
        name: "bert",
        batch: "batch",
        sizes: &[("seq", 5)],
        at: &[0, 1],
        head: "final",
        block: "layer.",
        blocks: 3,
    },
    Small { name: "resnet", batch: "n", sizes: &[], at: &[0, 2], head: "mlp:7", block: "block.", blocks: 4 },
];

impl Small {
    /// The model after these passes.
    fn graph(&self, passes: &str) -> Graph {
        let path = cases_folder().join("models").join(self.name).with_extension("eir");
        let case = Case::new(&read(Path::new(&path))).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let mut graph = case.graph().unwrap_or_else(|e| panic!("{}: {e}", self.name));
        run_passes(&mut graph, passes, &mut Context::default()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        graph
    }

    /// The model with exits; `rule` as in options.
    fn dynamic(&self, rule: &str) -> Graph {
        self.graph(&format!("simplify, exit-heads{{at={:?}, head={}, rule={rule}}}, simplify", self.at, self.head))
    }

    fn inputs(&self, graph: &Graph, batch: i64) -> Vec<Tensor> {
        let others = self.sizes.iter().map(|(s, n)| (Symbol::new(s), *n));
        let sizes: Sizes = others.chain([(Symbol::new(self.batch), batch)]).collect();
        seeded_inputs(graph, &sizes).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// The block that a kernel of the source model belongs to.
    fn block_of(&self, kernel: &eec_ir::program::Kernel) -> Option<usize> {
        kernel.name.strip_prefix(self.block)?.split('.').next()?.parse().ok()
    }

    /// Per block, the most often that one of its kernels ran.
    fn block_runs(&self, session: &Session, run: &Run) -> Vec<u64> {
        let mut runs = vec![0; self.blocks];
        for (kernel, n) in session.program().kernels.iter().zip(&run.counters.per_kernel) {
            if let Some(block) = self.block_of(kernel) {
                runs[block] = runs[block].max(*n);
            }
        }
        runs
    }

    /// Which blocks run if samples get as far as exit `k`, or to the end.
    fn blocks_up_to(&self, k: usize) -> Vec<u64> {
        let last = self.at.get(k).copied().unwrap_or(self.blocks - 1);
        (0..self.blocks).map(|b| u64::from(b <= last)).collect()
    }

    /// A rule on `signal` whose thresholds lie in the middle of the confidences at each exit.
    fn mixed_rule(&self, signal: &str, batch: i64) -> String {
        let graph = self.dynamic(&format!("{signal}:2"));
        let (mut session, inputs) = (session(&graph, 1), self.inputs(&graph, batch));
        let middle = |k: usize| {
            let run = ran(&mut session, &graph, &inputs, Control::Force(k));
            let mut confidence = floats(&run, CONFIDENCE);
            confidence.sort_by(f32::total_cmp);
            confidence[confidence.len() / 2].to_string()
        };
        format!("{signal}:{}", (0..self.at.len()).map(middle).collect::<Vec<_>>().join("/"))
    }
}

fn session(graph: &Graph, threads: usize) -> Session {
    cpu(graph, threads).unwrap_or_else(|e| panic!("{}: {e}", graph.name))
}

fn ran(session: &mut Session, graph: &Graph, inputs: &[Tensor], control: Control) -> Run {
    run(session, graph, inputs, control).unwrap_or_else(|e| panic!("{}: {e}", graph.name))
}

fn output<'r>(run: &'r Run, name: &str) -> &'r Tensor {
    let found = run.outputs.iter().find(|(n, _)| n == name);
    found.map(|(_, t)| t).unwrap_or_else(|| panic!("no output {name}"))
}

fn floats(run: &Run, name: &str) -> Vec<f32> {
    output(run, name).elements::<f32>().map(|v| v.into_owned()).unwrap_or_default()
}

fn exits(run: &Run) -> Vec<i64> {
    output(run, EXIT_INDEX).to_i64s().unwrap_or_default()
}

/// Rows per exit, the model's end left out.
fn histogram(indices: &[i64], exits: usize) -> Vec<u64> {
    (0..exits as i64).map(|k| indices.iter().filter(|i| **i == k).count() as u64).collect()
}

#[test]
fn never_is_the_plain_model() {
    for model in MODELS {
        let (plain, dynamic) = (model.graph("simplify"), model.dynamic("maxprob:-1"));
        for threads in [1, 2] {
            let (mut a, mut b) = (session(&plain, threads), session(&dynamic, threads));
            for batch in [1, 4, 3] {
                let inputs = model.inputs(&plain, batch);
                let want = ran(&mut a, &plain, &inputs, Control::Auto);
                let have = ran(&mut b, &dynamic, &inputs, Control::Never);
                let at = format!("{} at batch {batch}, {threads} threads", model.name);
                assert_eq!(output(&have, "logits"), output(&want, "logits"), "{at}");
                assert_eq!(exits(&have), vec![model.at.len() as i64; batch as usize], "{at}");
                assert_eq!(have.counters.exit_rows, vec![0; model.at.len()], "{at}");
                assert_eq!(model.block_runs(&b, &have), vec![1; model.blocks], "{at}");
                assert!(have.counters.macs >= want.counters.macs, "{at}: heads cost, and nothing is skipped");
            }
        }
    }
}

#[test]
fn a_forced_exit_is_the_truncated_model() {
    for model in MODELS {
        let dynamic = model.dynamic("maxprob:2");
        let mut forced = session(&dynamic, 2);
        for (k, block) in model.at.iter().enumerate() {
            let cut = model.graph(&format!("simplify, truncate{{at={block}, head={}}}, simplify", model.head));
            let mut truncated = session(&cut, 1);
            for batch in [3, 1, 6] {
                let inputs = model.inputs(&dynamic, batch);
                let want = ran(&mut truncated, &cut, &inputs, Control::Auto);
                let have = ran(&mut forced, &dynamic, &inputs, Control::Force(k));
                let at = format!("{}, exit {k} at batch {batch}", model.name);
                assert_eq!(output(&have, "logits"), output(&want, "logits"), "{at}");
                assert_eq!(exits(&have), vec![k as i64; batch as usize], "{at}");
                assert_eq!(model.block_runs(&forced, &have), model.blocks_up_to(k), "{at}");
                if k == 0 {
                    assert_eq!(have.counters.macs, want.counters.macs, "{at}: no head was declined");
                }
            }
        }
        let inputs = model.inputs(&dynamic, 4);
        let end = ran(&mut forced, &dynamic, &inputs, Control::Force(model.at.len()));
        let never = ran(&mut forced, &dynamic, &inputs, Control::Never);
        assert_eq!((end.outputs, end.counters), (never.outputs, never.counters), "{}", model.name);
        let refused = run(&mut forced, &dynamic, &inputs, Control::Force(model.at.len() + 1));
        assert!(refused.is_err_and(|e| e.contains("cannot be forced")), "{}", model.name);
    }
}

#[test]
fn when_all_leave_nothing_after_the_exit_runs() {
    for model in MODELS {
        let dynamic = model.dynamic("maxprob:-1");
        let mut session = session(&dynamic, 2);
        let run = ran(&mut session, &dynamic, &model.inputs(&dynamic, 5), Control::Auto);
        assert_eq!(exits(&run), [0; 5], "{}", model.name);
        assert_eq!(model.block_runs(&session, &run), model.blocks_up_to(0), "{}", model.name);
        assert_eq!(run.counters.exit_rows, histogram(&[0; 5], model.at.len()), "{}", model.name);
    }
}

#[test]
fn a_sample_fares_alone_as_in_a_batch() {
    const BATCH: i64 = 9;
    let signals = ["maxprob", "entropy", "margin"];
    for (model, signal) in MODELS.iter().flat_map(|m| signals.map(|s| (m, s))) {
        let dynamic = model.dynamic(&model.mixed_rule(signal, BATCH));
        let inputs = model.inputs(&dynamic, BATCH);
        let (mut one, mut two) = (session(&dynamic, 1), session(&dynamic, 2));
        let batch = ran(&mut one, &dynamic, &inputs, Control::Auto);
        let threads = ran(&mut two, &dynamic, &inputs, Control::Auto);
        assert_eq!(batch.outputs, threads.outputs, "{}: threads change nothing", model.name);
        assert_eq!(batch.counters, threads.counters, "{}: threads change nothing", model.name);
        let indices = exits(&batch);
        let taken = histogram(&indices, model.at.len());
        assert!(taken.iter().all(|n| (1..BATCH as u64).contains(n)), "{}: not mixed: {indices:?}", model.name);
        assert_eq!(batch.counters.exit_rows, taken, "{}", model.name);
        let mut macs = 0;
        for (r, left) in indices.iter().enumerate() {
            let alone: Vec<Tensor> = inputs.iter().map(|t| row(t, r)).collect();
            let run = ran(&mut one, &dynamic, &alone, Control::Auto);
            for (name, tensor) in &run.outputs {
                assert_eq!(*tensor, row(output(&batch, name), r), "{}, row {r}: {name}", model.name);
            }
            assert_eq!(model.block_runs(&one, &run), model.blocks_up_to(*left as usize), "{}, row {r}", model.name);
            macs += run.counters.macs;
        }
        assert_eq!(batch.counters.macs, macs, "{}: a batch costs what its samples cost", model.name);
    }
}

#[test]
fn patience_counts_exits_that_agree() {
    const BATCH: i64 = 8;
    for model in MODELS {
        let leave = |rule: &str| {
            let graph = model.dynamic(rule);
            let mut session = session(&graph, 2);
            let run = ran(&mut session, &graph, &model.inputs(&graph, BATCH), Control::Auto);
            (exits(&run), floats(&run, CONFIDENCE))
        };
        assert_eq!(leave("patience:1"), (vec![0; BATCH as usize], vec![1.0; BATCH as usize]), "{}", model.name);
        assert_eq!(leave("patience:4").0, vec![model.at.len() as i64; BATCH as usize], "{}", model.name);
        let classes: Vec<Vec<usize>> = (0..model.at.len()).map(|k| model.classes(k, BATCH)).collect();
        let expected: Vec<i64> =
            (0..BATCH as usize).map(|r| if classes[0][r] == classes[1][r] { 1 } else { 2 }).collect();
        assert_eq!(leave("patience:2").0, expected, "{}", model.name);
    }
}

impl Small {
    /// The classes that exit `k` names.
    fn classes(&self, k: usize, batch: i64) -> Vec<usize> {
        let graph = self.dynamic("maxprob:2");
        let run = ran(&mut session(&graph, 1), &graph, &self.inputs(&graph, batch), Control::Force(k));
        let logits = floats(&run, "logits");
        let width = logits.len() / batch as usize;
        let best = |row: &[f32]| (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0);
        logits.chunks(width).map(best).collect()
    }
}

#[test]
fn a_batch_that_is_always_one_branches() {
    let model =
        &Small { name: "vit_one", batch: "", sizes: &[], at: &[0, 1], head: "linear", block: "block.", blocks: 4 };
    let (plain, dynamic) = (model.graph("simplify"), model.dynamic("maxprob:2"));
    let inputs = model.inputs(&plain, 1);
    let want = ran(&mut session(&plain, 1), &plain, &inputs, Control::Auto);
    let mut exiting = session(&dynamic, 2);
    for control in [Control::Auto, Control::Never, Control::Force(2)] {
        let have = ran(&mut exiting, &dynamic, &inputs, control);
        assert_eq!((output(&have, "logits"), exits(&have)), (output(&want, "logits"), vec![2]), "{control:?}");
        assert_eq!(have.counters.exit_rows, [0, 0], "{control:?}");
    }
    for (k, block) in model.at.iter().enumerate() {
        let cut = model.graph(&format!("simplify, truncate{{at={block}}}, simplify"));
        let want = ran(&mut session(&cut, 1), &cut, &inputs, Control::Auto);
        let have = ran(&mut exiting, &dynamic, &inputs, Control::Force(k));
        assert_eq!((output(&have, "logits"), exits(&have)), (output(&want, "logits"), vec![k as i64]));
        assert_eq!(model.block_runs(&exiting, &have), model.blocks_up_to(k));
        assert_eq!(have.counters.exit_rows, histogram(&[k as i64], 2));
    }
}

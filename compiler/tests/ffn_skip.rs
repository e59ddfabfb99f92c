//! What stands for skipped FFNs, and gates that decide for all tokens together, from data to an exported
//! file, on the model and a part of the data carried in `examples/easy-vqa`.

mod shared;

use eec::backend::Backend;
use eec::calibrate::Split;
use eec::compile::{Compile, compile};
use eec::dataset::Dataset;
use eec::evaluate::{Evaluate, evaluate};
use eec::model::{Form, Model, run_options, session_of, simplified};
use eec::npz::{Arrays, read_npz, write_npz};
use eec::onnx::export;
use eec::progress::Silent;
use eec::quality::cross_entropy;
use eec::recipe::{ExitHeads, FfnRule, FfnSkip, Head, MaxDrop, Places, Recipe, Replace, Rule as ExitRule};
use eec_ir::Graph;
use eec_passes::ffn_gates::{self, FfnGates, Gate, Granularity, Rule};
use eec_passes::registry::Registry;
use eec_passes::structure::analyse;
use eec_runtime::{Control, Run, Session};
use shared::place::{Place, Result, carried};

/// Rows of data: as few as can be split and fitted on.
const ROWS: usize = 160;

/// The first rows of a file of the carried data.
fn data(name: &str, rows: usize, model: &Model) -> Result<Dataset> {
    let path = carried(name);
    let arrays: Arrays = read_npz(&path)?.into_iter().map(|(n, t)| (n, t.rows(0, rows))).collect();
    Ok(Dataset::new(&path, &arrays, &model.plain)?)
}

/// The carried model, compiled to skip FFNs only.
fn compiled(ffn_skip: FfnSkip) -> Result<Model> {
    let path = carried("model.onnx");
    let plain = Model::open(&path)?;
    let data = data("calib.npz", ROWS, &plain)?;
    let exit_heads = ExitHeads { at: Places::None, ..ExitHeads::default() };
    let recipe = Recipe { ffn_skip, exit_heads, max_drop: MaxDrop(0.1), ..Recipe::default() };
    let registry = &Registry::builtin();
    let options = Compile { recipe, registry, threads: None, progress: &Silent };
    Ok(compile(&path, plain.plain, Some(&data), &options)?)
}

/// The plain model with these FFNs edited out.
fn edited(model: &Model, gates: Vec<Gate>) -> Result<Graph> {
    let options = FfnGates { gates, rule: Rule::Static, granularity: Granularity::Row };
    Ok(simplified(ffn_gates::apply_to(&model.plain, &analyse(&model.plain)?, &options)?)?)
}

fn session(graph: &Graph) -> Result<Session> {
    Ok(session_of(eec::model::lowered(graph, Default::default())?, graph, run_options(None))?)
}

fn run(session: &mut Session, data: &Dataset, control: Control) -> Result<Run> {
    Ok(session.run(&data.batch(0, data.rows), control)?)
}

/// The mean loss of a graph's answers.
fn loss(graph: &Graph, data: &Dataset) -> Result<f64> {
    let run = run(&mut session(graph)?, data, Control::Auto)?;
    let scores = run.outputs[0].1.elements::<f32>().ok_or("scores are floats")?.into_owned();
    let labels = data.labels.as_ref().ok_or("the data has labels")?;
    let rows = scores.chunks(scores.len() / data.rows).zip(labels);
    Ok(rows.map(|(row, label)| cross_entropy(row, *label as usize)).sum::<f64>() / data.rows as f64)
}

#[test]
fn with_a_replacement_never_is_plain_and_always_the_edit() -> Result {
    for (replace, blocks) in [(Replace::LowRank(8), vec![3, 4]), (Replace::Mlp(4), vec![4])] {
        let (rule, at) = (FfnRule::Learned(Some(0.1)), Places::Blocks(blocks.clone()));
        let asked = FfnSkip { rule, at, replace, granularity: Granularity::Row };
        let place = Place::new()?;
        compiled(asked.clone())?.save(&place.at("m.eec"))?;
        let model = Model::open(&place.at("m.eec"))?;
        assert_eq!((&model.recipe.ffn_skip, model.inserted.gated_ffns.as_slice()), (&asked, blocks.as_slice()));
        let data = data("eval.npz", 24, &model)?;
        let mut dynamic = model.session(Form::Dynamic, run_options(None))?;
        let plain = run(&mut session(&model.plain)?, &data, Control::Auto)?;
        assert_eq!(run(&mut dynamic, &data, Control::Never)?.outputs, plain.outputs, "{replace}");

        let gates = model.inserted.replacements.gates_at(&blocks)?;
        assert!(gates.iter().all(|g| g.replacement.is_some()));
        let edit = run(&mut session(&edited(&model, gates)?)?, &data, Control::Auto)?;
        assert_ne!(edit.outputs, plain.outputs, "{replace}");
        let always = run(&mut dynamic, &data, Control::Gates)?;
        assert_eq!(always.outputs, edit.outputs, "{replace}");
        assert!(always.counters.macs < plain.counters.macs, "{replace}");
        let without = model.inserted.replacements.gates_at(&blocks)?.into_iter();
        let without = without.map(|g| Gate { replacement: None, ..g }).collect();
        let identity = run(&mut session(&edited(&model, without)?)?, &data, Control::Auto)?;
        assert!(identity.counters.macs < edit.counters.macs, "{replace}: its work counts");
        exported(&model, &mut dynamic, &data, &place)?;
    }
    Ok(())
}

/// ONNX Runtime answers as eec does where some tokens skip.
fn exported(model: &Model, dynamic: &mut Session, data: &Dataset, place: &Place) -> Result {
    let run = run(dynamic, data, Control::Auto)?;
    let skipped: u64 = run.counters.gate_rows.iter().sum();
    assert!(skipped > 0, "nothing is skipped");
    export(model.graph(Form::Dynamic), &place.at("m.onnx"))?;
    write_npz(&place.at("inputs.npz"), data.inputs.iter().map(|(n, t)| (n.as_str(), t)))?;
    let outputs = shared::onnx_runtime(&place.at("m.onnx"), &place.at("inputs.npz"), &place.at("outputs.npz"))?;
    let Some(outputs) = outputs else { return Ok(()) };
    let (name, logits) = &run.outputs[0];
    Ok(shared::compare(name, logits, &outputs[name])?)
}

/// On the rows that it was fitted on, a replacement takes back most of what skipping an FFN costs: here
/// the last one, whose result the classifier reads.
#[test]
fn a_replacement_is_better_than_nothing() -> Result {
    for replace in [Replace::LowRank(8), Replace::Mlp(8)] {
        let (rule, at) = (FfnRule::Static(Some(0.12)), Places::Blocks(vec![7]));
        let model = compiled(FfnSkip { rule, at, replace, granularity: Granularity::Row })?;
        let data = data("calib.npz", ROWS, &model)?;
        let data = data.select(&Split::random(&(0..ROWS).collect::<Vec<_>>(), 0.5, 0).tune);
        let plain = loss(&model.plain, &data)?;
        let harm = |gates| Ok::<_, Box<dyn std::error::Error>>(loss(&edited(&model, gates)?, &data)? - plain);
        let without = harm(vec![Gate { block: 7, replacement: None }])?;
        let with = harm(model.inserted.replacements.gates_at(&[7])?)?;
        assert!(without > 0.3 && with < 0.5 * without, "{replace}: {with} nats, {without} without");
    }
    Ok(())
}

/// The static rival of a static set is the set itself: both carry the replacement.
#[test]
fn rivals_carry_the_replacement() -> Result {
    let asked = FfnSkip {
        rule: FfnRule::Static(Some(0.12)),
        at: Places::Blocks(vec![5]),
        replace: Replace::LowRank(8),
        ..FfnSkip::default()
    };
    let model = compiled(asked)?;
    let data = data("eval.npz", 64, &model)?;
    let found = evaluate(
        &model,
        &data,
        &Evaluate { backend: &Backend::Cpu { threads: None }, threads: None, float32: None, progress: &Silent },
    )?;
    let (dynamic, rival) = (found.dynamic.ok_or("nothing was built")?, found.rivals.and_then(|r| r.static_ffns));
    let rival = rival.ok_or("there is no static rival")?;
    let [only] = &rival.parts[..] else { return Err("a mix of several sets".into()) };
    let rival = (only.choice.accuracy, only.choice.macs_ratio);
    assert_eq!(rival, (dynamic.quality.accuracy, dynamic.macs_ratio));
    Ok(())
}

#[test]
fn rows_that_decide_together_skip_only_if_all_agree() -> Result {
    let model = compiled(FfnSkip {
        rule: FfnRule::Learned(Some(0.06)),
        at: Places::Blocks(vec![4]),
        granularity: Granularity::All,
        ..FfnSkip::default()
    })?;
    let data = data("eval.npz", 40, &model)?;
    let mut dynamic = model.session(Form::Dynamic, run_options(None))?;
    let alone = (0..data.rows).map(|row| run(&mut dynamic, &data.select(&[row]), Control::Auto));
    let alone = alone.collect::<Result<Vec<_>>>()?;
    let (skip, stay): (Vec<usize>, Vec<usize>) = (0..data.rows).partition(|r| alone[*r].counters.gate_rows == [1]);
    assert!(skip.len() > 1 && stay.len() > 1, "{skip:?} skip alone, {stay:?} do not");

    let agreed = data.select(&skip);
    let have = run(&mut dynamic, &agreed, Control::Auto)?;
    let edit = edited(&model, vec![Gate { block: 4, replacement: None }])?;
    assert_eq!(have.counters.gate_rows, [1]);
    assert_eq!(have.outputs, run(&mut session(&edit)?, &agreed, Control::Auto)?.outputs);

    let mixed = data.select(&[&skip[..], &stay[..1]].concat());
    let have = run(&mut dynamic, &mixed, Control::Auto)?;
    assert_eq!(have.counters.gate_rows, [0]);
    assert_eq!(have.outputs, run(&mut session(&model.plain)?, &mixed, Control::Auto)?.outputs);
    Ok(())
}

/// Two of eight FFNs are a quarter, whatever more is asked for.
#[test]
fn a_share_that_the_places_do_not_hold_is_said() -> Result {
    let (rule, at) = (FfnRule::Static(Some(0.8)), Places::Blocks(vec![3, 4]));
    let model = compiled(FfnSkip { rule, at, ..FfnSkip::default() })?;
    let gates = model.reports[0].gates.as_ref().ok_or("no report on gates")?;
    let chosen = &gates.tried[gates.chosen.ok_or("nothing was built")?];
    assert_eq!((chosen.skipped, gates.missed), (0.25, Some(0.8)));
    shared::place::says(&model.reports[0].text().replace('\n', " "), &["80.0 % of the FFNs were asked for", "25.0 %"]);
    Ok(())
}

#[test]
fn a_rank_above_the_width_is_refused() -> Result {
    let asked = FfnSkip { rule: FfnRule::Static(None), replace: Replace::LowRank(4096), ..FfnSkip::default() };
    let error = compiled(asked).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("FFN 0") && error.contains("rank"), "{error}");
    let place = Place::new()?;
    shared::place::says(
        &place.refusal(2, "compile model.onnx --ffn-replace wide:3 -o a.eec")?,
        &["wide:3", "low-rank:R"],
    );
    shared::place::says(
        &place.refusal(2, "compile model.onnx --ffn-granularity some -o a.eec")?,
        &["some", "row or all"],
    );
    Ok(())
}

/// What is decided before an exit is work too: the costs of exits are those of a run.
#[test]
fn exits_after_gates_are_judged_by_the_work_that_runs() -> Result {
    let path = carried("model.onnx");
    let plain = Model::open(&path)?;
    let data = data("calib.npz", ROWS, &plain)?;
    let gates = FfnSkip { rule: FfnRule::Learned(Some(0.05)), at: Places::Blocks(vec![4]), ..FfnSkip::default() };
    // A head that nobody leaves at, so that a run is the gated model and the head.
    let (at, rule) = (Places::Blocks(vec![5]), ExitRule::MaxProb(Some(1.0)));
    let exit_heads = ExitHeads { at, head: Head::Final, rule };
    let recipe = Recipe { ffn_skip: gates, exit_heads, max_drop: MaxDrop(0.1), ..Recipe::default() };
    let registry = &Registry::builtin();
    let options = Compile { recipe, registry, threads: None, progress: &Silent };
    let model = compile(&path, plain.plain, Some(&data), &options)?;
    let [_, report] = &model.reports[..] else { return Err("two stages report".into()) };
    let costs = report.costs.as_ref().ok_or("no costs")?;
    let per_row = |run: Run| run.counters.macs as f64 / data.rows as f64;
    let dynamic = per_row(run(&mut model.session(Form::Dynamic, run_options(None))?, &data, Control::Auto)?);
    let counted = dynamic - costs.head[0] as f64;
    assert!((costs.plain() / counted - 1.0).abs() < 0.01, "{} against {counted}", costs.plain());
    let plain = per_row(run(&mut session(&model.plain)?, &data, Control::Auto)?);
    assert!(counted < 0.99 * plain, "the gates save work");
    Ok(())
}

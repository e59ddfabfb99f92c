//! Models with early exits whose decisions are known beforehand: heads are the model's own tail, and thresholds
//! are set so that what is timed is a given pattern of exits, whatever the weights.

use std::error::Error;

use eec::model::{Dynamic, Form, Model, run_options, simplified};
use eec_ir::Tensor;
use eec_passes::exit_heads::{self, CONFIDENCE, EXIT_INDEX, Exit, ExitHeads, Head, Rule, Signal};
use eec_passes::structure::analyse;
use eec_runtime::Control;
use serde::Deserialize;

/// A pattern of exits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exits {
    /// One exit in the middle, which all samples take.
    Half,
    /// An exit after every block, which no sample takes.
    Declined,
    /// As many exits as samples less one, spread evenly; one sample leaves at each.
    Spread,
}

/// No confidence is below 0.
const ALWAYS: f32 = -1.0;
/// No confidence is above 1.
const NEVER: f32 = 1.0;

/// Gives `model` exits that its samples `inputs` take as `pattern` says.
pub fn insert(model: &mut Model, pattern: Exits, inputs: &[(String, Tensor)]) -> Result<(), Box<dyn Error>> {
    let blocks = analyse(&model.plain)?.blocks.len();
    let batch = inputs.first().and_then(|(_, t)| t.dims().first().copied()).unwrap_or(1);
    match pattern {
        Exits::Half => set(model, &[(blocks / 2 - 1, ALWAYS)]),
        Exits::Declined => set(model, &(0..blocks - 1).map(|b| (b, NEVER)).collect::<Vec<_>>()),
        Exits::Spread => {
            let places: Vec<usize> = (1..batch).map(|i| (i * blocks / batch).saturating_sub(1)).collect();
            spread(model, &places, inputs)
        }
    }
}

/// Exits after `places`, each with the threshold that exactly one of the samples that are left exceeds.
fn spread(model: &mut Model, places: &[usize], inputs: &[(String, Tensor)]) -> Result<(), Box<dyn Error>> {
    let mut exits: Vec<(usize, f32)> = Vec::new();
    for place in places {
        exits.push((*place, ALWAYS));
        set(model, &exits)?;
        let here = confidences(model, exits.len() - 1, inputs)?;
        let [.., second, first] = here[..] else { return Err("fewer samples are left than exits".into()) };
        if first <= second {
            return Err(format!("two samples are equally sure after block {place}").into());
        }
        exits.last_mut().ok_or("an exit was added")?.1 = f32::midpoint(first, second);
    }
    set(model, &exits)
}

/// The confidences of the samples that leave at an exit, ascending.
fn confidences(model: &Model, exit: usize, inputs: &[(String, Tensor)]) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut session = model.session(Form::Dynamic, run_options(None))?;
    let named: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    let outputs = session.run(&named, Control::Auto)?.outputs;
    let output = |name| outputs.iter().find(|(n, _)| n == name).map(|(_, t)| t).ok_or(format!("no output {name}"));
    let index = output(EXIT_INDEX)?.to_i64s().ok_or("exit numbers are integers")?;
    let confidence = output(CONFIDENCE)?.to_f64s();
    let here = index.iter().zip(confidence).filter(|(i, _)| **i == exit as i64);
    let mut here: Vec<f32> = here.map(|(_, c)| c as f32).collect();
    here.sort_by(f32::total_cmp);
    Ok(here)
}

fn set(model: &mut Model, exits: &[(usize, f32)]) -> Result<(), Box<dyn Error>> {
    let heads = exits.iter().map(|(block, _)| Exit { block: *block, head: Head::Final }).collect();
    let thresholds = exits.iter().map(|(_, threshold)| *threshold).collect();
    let rule = Rule::Threshold { signal: Signal::MaxProb, thresholds };
    let graph = simplified(exit_heads::apply(&model.plain, &ExitHeads { exits: heads, rule })?)?;
    let exits = exits.iter().map(|(block, _)| format!("block {block}")).collect();
    model.dynamic = Some(Dynamic { graph, exits, gates: Vec::new() });
    Ok(())
}

//! `eec run` and `eec bench` as a user meets them: inputs, comparisons, what is warned of.

mod shared;

use eec::npz::write_npz;

use shared::place::{Place, Result, says};

#[test]
fn a_comparison_with_nothing_is_refused() -> Result {
    let place = Place::new()?;
    write_npz(&place.at("none.npz"), [])?;
    let line = "run model.onnx --dim batch=1 --expect none.npz";
    says(&place.refusal(1, line)?, &["none.npz", "holds no arrays"]);
    place.data(|_| ())?;
    says(&place.refusal(1, "run model.onnx --dim batch=1 --expect data.npz")?, &["data.npz", "is no output"]);
    Ok(())
}

//! Reductions: what a lane adds up by itself, and how the lanes of a workgroup put their parts together: through the
//! workgroup's memory, or where the adapter has subgroups first inside each of them.
//!
//! The order of a sum depends on the number of lanes and elements alone, and on the size of subgroups where they are used.

use eec_ir::DType;
use eec_ir::program::ReductionFn;

use super::helpers::Helper;
use super::text::{Reason, Writer, word};

/// What a lane starts from.
pub(super) fn start(w: &mut Writer, function: ReductionFn, dtype: DType) -> Result<String, Reason> {
    let float = word(dtype)? == "f32";
    Ok(match function {
        ReductionFn::Sum if float => "0.0".into(),
        ReductionFn::Sum => "0".into(),
        ReductionFn::Max | ReductionFn::ArgMax if float => w.float(f32::NEG_INFINITY),
        ReductionFn::Min if float => w.float(f32::INFINITY),
        ReductionFn::Max | ReductionFn::ArgMax => super::dims::number(i32::MIN.into())?,
        ReductionFn::Min => i32::MAX.to_string(),
    })
}

/// Two parts as one.
fn combined(w: &mut Writer, function: ReductionFn, dtype: DType, a: &str, b: &str) -> Result<String, Reason> {
    let float = word(dtype)? == "f32";
    let helper = match function {
        ReductionFn::Max => Helper::Larger,
        ReductionFn::Min => Helper::Smaller,
        ReductionFn::Sum | ReductionFn::ArgMax => return Ok(format!("{a} + {b}")),
    };
    if float {
        w.helper(helper);
    }
    Ok(match (helper, float) {
        (Helper::Larger, true) => format!("larger({a}, {b})"),
        (Helper::Larger, false) => format!("max({a}, {b})"),
        (_, true) => format!("smaller({a}, {b})"),
        (_, false) => format!("min({a}, {b})"),
    })
}

/// The statement that takes the value at `j` into a lane's part.
pub(super) fn step(
    w: &mut Writer,
    function: ReductionFn,
    dtype: DType,
    part: &str,
    value: &str,
) -> Result<String, Reason> {
    if function == ReductionFn::ArgMax {
        // The first element is the largest until a larger one comes; NaN is never larger.
        let known = if dtype == DType::F32 {
            w.helper(Helper::IsNan);
            format!("!is_nan({value})")
        } else {
            "true".into()
        };
        let first = format!("j == 0 || ({part}_at == {} && {known})", i32::MAX);
        return Ok(format!("if {first} || {value} > {part} {{ {part} = {value}; {part}_at = j; }}"));
    }
    let sum = combined(w, function, dtype, part, value)?;
    Ok(format!("{part} = {sum};"))
}

/// The result of a row that one lane walked.
pub(super) fn alone(function: ReductionFn, part: &str) -> String {
    if function == ReductionFn::ArgMax { format!("{part}_at") } else { part.to_string() }
}

/// The result of a row that the lanes of a workgroup walked together.
pub(super) fn together(
    w: &mut Writer,
    function: ReductionFn,
    dtype: DType,
    part: &str,
    lanes: u32,
) -> Result<String, Reason> {
    let word = word(dtype)?;
    w.global(format!("var<workgroup> parts_{word}: array<{word}, {lanes}>;"));
    if function == ReductionFn::ArgMax {
        w.global(format!("var<workgroup> places: array<i32, {lanes}>;"));
        let better = format!(
            "places[other] != {max} && (places[lane] == {max} || parts_{word}[other] > parts_{word}[lane] \
             || (parts_{word}[other] == parts_{word}[lane] && places[other] < places[lane]))",
            max = i32::MAX
        );
        let store =
            format!("if {better} {{\nparts_{word}[lane] = parts_{word}[other];\nplaces[lane] = places[other];\n}}");
        let signature = format!("argmax_{word}(lane: i32, value: {word}, at: i32) -> i32");
        let enter = format!("parts_{word}[lane] = value;\nplaces[lane] = at;");
        let through_memory = tree(&signature, &enter, &store, "places[0]", lanes);
        let better = format!(
            "other_place != {max} && (place == {max} || other > part || (other == part && other_place < place))",
            max = i32::MAX
        );
        let with_subgroups = teams(
            &signature,
            [&format!("if {better} {{\npart = other;\nplace = other_place;\n}}"), "place"],
            &[("part", "other", "value", &format!("parts_{word}")), ("place", "other_place", "at", "places")],
        );
        w.together(through_memory, with_subgroups);
        return Ok(format!("argmax_{word}(lane, {part}, {part}_at)"));
    }
    let name = match function {
        ReductionFn::Sum => "sum",
        ReductionFn::Max | ReductionFn::ArgMax => "largest",
        ReductionFn::Min => "smallest",
    };
    let (a, b) = (format!("parts_{word}[lane]"), format!("parts_{word}[other]"));
    let both = combined(w, function, dtype, &a, &b)?;
    let signature = format!("{name}_{word}(lane: i32, value: {word}) -> {word}");
    let through_memory = tree(
        &signature,
        &format!("parts_{word}[lane] = value;"),
        &format!("parts_{word}[lane] = {both};"),
        &format!("parts_{word}[0]"),
        lanes,
    );
    let both = combined(w, function, dtype, "part", "other")?;
    let with_subgroups = teams(
        &signature,
        [&format!("part = {both};"), "part"],
        &[("part", "other", "value", &format!("parts_{word}"))],
    );
    w.together(through_memory, with_subgroups);
    Ok(format!("{name}_{word}(lane, {part})"))
}

/// A function in which the lanes of a workgroup halve their number until one part is left.
fn tree(signature: &str, enter: &str, combine: &str, result: &str, lanes: u32) -> String {
    let half = lanes / 2;
    [
        &format!("\nfn {signature} {{"),
        enter,
        "workgroupBarrier();",
        &format!("for (var half = {half}; half > 0; half /= 2) {{"),
        "if lane < half {",
        "let other = lane + half;",
        combine,
        "}",
        "workgroupBarrier();",
        "}",
        &format!("let result = {result};"),
        "workgroupBarrier();",
        "return result;",
        "}",
    ]
    .join("\n")
}

/// What a lane holds while subgroups combine: its variable, the one that takes another lane's, the parameter that it
/// begins with, and the workgroup's array of them.
type Carried<'a> = (&'a str, &'a str, &'a str, &'a str);

/// The same function by subgroups: lanes exchange what they have inside of each, and then every lane goes through what
/// the subgroups have. `combine` takes the other's into the lane's own; `result` is what the function gives.
fn teams(signature: &str, [combine, result]: [&str; 2], carried: &[Carried]) -> String {
    let mut lines = vec![format!("\nfn {signature} {{")];
    carried.iter().for_each(|(own, _, value, _)| lines.push(format!("var {own} = {value};")));
    lines.push("for (var reach = 1u; reach < subgroup.size; reach *= 2u) {".into());
    carried.iter().for_each(|(own, other, ..)| lines.push(format!("let {other} = subgroupShuffleXor({own}, reach);")));
    lines.push(combine.into());
    lines.push("}\nif subgroup.lane == 0u {".into());
    carried.iter().for_each(|(own, _, _, array)| lines.push(format!("{array}[subgroup.number] = {own};")));
    lines.push("}\nworkgroupBarrier();".into());
    carried.iter().for_each(|(own, _, _, array)| lines.push(format!("{own} = {array}[0];")));
    lines.push("for (var i = 1; i < subgroup.count; i += 1) {".into());
    carried.iter().for_each(|(_, other, _, array)| lines.push(format!("let {other} = {array}[i];")));
    lines.push(combine.into());
    lines.push(format!("}}\nworkgroupBarrier();\nreturn {result};\n}}"));
    lines.join("\n")
}

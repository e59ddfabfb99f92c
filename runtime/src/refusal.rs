//! What every run of a program refuses, found before there are inputs: sizes that data decides, and of which no
//! dims of the inputs make certain that all accesses stay inside their buffers.

use std::collections::BTreeSet;

use eec_ir::Symbol;
use eec_ir::bind::{Sizes as Values, check_assumptions};
use eec_ir::program::{Program, verify};

use crate::bounds::{self, Repeats};
use crate::call;
use crate::error::{Error, ErrorKind};
use crate::extent::{Extent, Extents};
use crate::sizes::Sizes;

/// The sizes that are tried for the inputs' symbols, one at a time for all of them.
const TRIED: [i64; 11] = [1, 2, 3, 4, 6, 8, 16, 64, 224, 512, 1024];

/// Whether runs of `program` can be planned.
///
/// # Errors
///
/// The program breaks its rules; or for none of some sizes of its inputs a plan serves all that data may decide, though
/// for some of them one serves the largest. The error names the kernel and the size.
pub fn check_runs(program: &Program) -> Result<(), Error> {
    verify(program).map_err(|e| call::error(program, ErrorKind::Program, e))?;
    let mut symbols = BTreeSet::new();
    program.inputs.iter().flat_map(|port| &port.dims).for_each(|dim| dim.collect_symbols(&mut symbols));
    let tried = if symbols.is_empty() { &TRIED[..1] } else { &TRIED[..] };
    let (repeats, decides) = (Repeats::of(program), bounds::late_sizes(program).next().is_some());
    let mut refused = None;
    for size in tried {
        let values: Values = symbols.iter().map(|symbol: &Symbol| (symbol.clone(), *size)).collect();
        if check_assumptions(&program.assumptions, &values).is_err() {
            continue;
        }
        let bound: Extents = values.into_iter().map(|(symbol, size)| (symbol, Extent::point(size))).collect();
        let ranges = bounds::ranges(program, &bound);
        let largest = Some(bounds::largest(program, &ranges)).filter(|largest| *largest != ranges);
        // Where data has no choice, nothing is seen of what it may decide.
        if largest.is_none() && decides && !symbols.is_empty() {
            continue;
        }
        let Err(why) = Sizes::within(program, &repeats, bound.clone(), ranges) else { return Ok(()) };
        let serves = |largest| Sizes::within(program, &repeats, bound, largest).is_ok();
        if symbols.is_empty() || largest.is_some_and(serves) {
            refused.get_or_insert(why);
        }
    }
    refused.map_or(Ok(()), |why| Err(why.of(program)))
}

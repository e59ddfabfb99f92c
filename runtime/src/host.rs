//! Operators that the reference evaluator runs inside a program: operands are copied out of their
//! buffers, results into theirs.

use std::collections::HashMap;
use std::sync::Mutex;

use eec_ir::program::{Dense, Form, Program};
use eec_ir::{DType, Dim, Op, Symbol, Tensor, ops};

/// The operators that the host runs, and the first failure of one.
pub(crate) struct Calls {
    /// By kernel.
    calls: HashMap<usize, Call>,
    /// The position of every symbol.
    slots: HashMap<Symbol, usize>,
    failure: Mutex<Option<String>>,
}

struct Call {
    op: Op,
    inputs: Vec<Operand>,
    outputs: Vec<Operand>,
}

struct Operand {
    dtype: DType,
    dims: Vec<Dim>,
}

impl Calls {
    /// The calls of a verified program; `slots` gives the position of every symbol.
    pub(crate) fn of(program: &Program, slots: &HashMap<Symbol, usize>) -> Calls {
        let operand = |t: &Dense| Operand { dtype: program.buffer(t.buffer).dtype, dims: t.dims.clone() };
        let call = |form: &Form| {
            let Form::Host(host) = form else { return None };
            Some(Call {
                op: host.op.clone(),
                inputs: host.inputs.iter().map(operand).collect(),
                outputs: host.outputs.iter().map(operand).collect(),
            })
        };
        let calls = program.kernels.iter().enumerate().filter_map(|(i, k)| Some((i, call(&k.form)?)));
        Calls { calls: calls.collect(), slots: slots.clone(), failure: Mutex::new(None) }
    }

    /// Runs the operator of kernel `kernel`; whether that went well. `addresses` are those of operands
    /// and results, `symbols` the values of the symbols.
    ///
    /// # Safety
    ///
    /// Every address is that of a buffer that holds as many elements as its dims say for these symbols;
    /// no result's buffer is that of an operand, and nothing else uses them during the call.
    pub(crate) unsafe fn run(&self, kernel: usize, addresses: *const i64, symbols: *const i64) -> bool {
        let Some(call) = self.calls.get(&kernel) else { return self.fail("it is no call".into()) };
        // SAFETY: the table has a value for every symbol.
        let value = |s: &Symbol| self.slots.get(s).map(|slot| unsafe { *symbols.add(*slot) });
        let address = |i: usize| {
            // SAFETY: there is an address per operand and result.
            unsafe { *addresses.add(i) as *mut u8 }
        };
        let dims = |t: &Operand| -> Option<Vec<usize>> {
            t.dims.iter().map(|d| d.eval(&value).and_then(|n| usize::try_from(n).ok())).collect()
        };
        let mut inputs = Vec::with_capacity(call.inputs.len());
        for (i, operand) in call.inputs.iter().enumerate() {
            let Some(dims) = dims(operand) else { return self.fail("a size has no value".into()) };
            let bytes = dims.iter().product::<usize>() * operand.dtype.size();
            // SAFETY: the buffer holds that many bytes.
            let copy = unsafe { std::slice::from_raw_parts(address(i), bytes) }.to_vec();
            match Tensor::from_bytes(operand.dtype, &dims, copy) {
                Ok(tensor) => inputs.push(tensor),
                Err(error) => return self.fail(error.to_string()),
            }
        }
        let results = match ops::eval(&call.op, &inputs, &value) {
            Ok(results) => results,
            Err(error) => return self.fail(error.to_string()),
        };
        for (i, (operand, result)) in call.outputs.iter().zip(results).enumerate() {
            if dims(operand).as_deref() != Some(result.dims()) || result.dtype() != operand.dtype {
                return self.fail(format!("a result is {result:?}"));
            }
            let to = address(call.inputs.len() + i);
            // SAFETY: the buffer holds a tensor of this type and these dims.
            unsafe { std::ptr::copy_nonoverlapping(result.bytes().as_ptr(), to, result.bytes().len()) };
        }
        true
    }

    fn fail(&self, why: String) -> bool {
        if let Ok(mut failure) = self.failure.lock() {
            failure.get_or_insert(why);
        }
        false
    }

    /// The first failure since the last time.
    pub(crate) fn take_failure(&self) -> Option<String> {
        self.failure.lock().ok()?.take()
    }
}

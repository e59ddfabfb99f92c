//! Operators that the reference evaluator runs inside a program: operands are copied out of their
//! buffers, results into theirs.

use std::collections::HashMap;
use std::sync::Mutex;

use eec_ir::program::{self, Dense, Form, Program};
use eec_ir::{DType, Dim, Op, Symbol, Tensor, ops};

/// The operators that the host runs, and the first failure of one.
pub(crate) struct Calls {
    /// By kernel.
    calls: HashMap<usize, Call>,
    /// The position of every symbol.
    slots: HashMap<Symbol, usize>,
    failure: Mutex<Option<String>>,
}

/// An operator, with the types of its operands and results.
pub(crate) struct Call {
    op: Op,
    pub(crate) inputs: Vec<Operand>,
    pub(crate) outputs: Vec<Operand>,
}

/// The type of an operand or a result.
pub(crate) struct Operand {
    pub(crate) dtype: DType,
    dims: Vec<Dim>,
}

impl Operand {
    /// The dims for values of symbols; `None` if one has none.
    pub(crate) fn sizes(&self, value: &dyn Fn(&Symbol) -> Option<i64>) -> Option<Vec<usize>> {
        self.dims.iter().map(|d| d.eval(&|s| value(s)).and_then(|n| usize::try_from(n).ok())).collect()
    }
}

impl Call {
    /// The call of a kernel of `program`.
    pub(crate) fn of(program: &Program, host: &program::Host) -> Call {
        let operand = |t: &Dense| Operand { dtype: program.buffer(t.buffer).dtype, dims: t.dims.clone() };
        Call {
            op: host.op.clone(),
            inputs: host.inputs.iter().map(operand).collect(),
            outputs: host.outputs.iter().map(operand).collect(),
        }
    }

    /// What the evaluator makes of these operands: as many results as there are, each of its type.
    pub(crate) fn results(
        &self,
        inputs: &[Tensor],
        value: &dyn Fn(&Symbol) -> Option<i64>,
    ) -> Result<Vec<Tensor>, String> {
        let results = ops::eval(&self.op, inputs, &|s| value(s)).map_err(|e| e.to_string())?;
        if results.len() != self.outputs.len() {
            return Err(format!("it gave {} results", results.len()));
        }
        for (operand, result) in self.outputs.iter().zip(&results) {
            if operand.sizes(value).as_deref() != Some(result.dims()) || result.dtype() != operand.dtype {
                return Err(format!("a result is {result:?}"));
            }
        }
        Ok(results)
    }
}

impl Calls {
    /// The calls of a verified program; `slots` gives the position of every symbol.
    pub(crate) fn of(program: &Program, slots: &HashMap<Symbol, usize>) -> Calls {
        let call = |form: &Form| match form {
            Form::Host(host) => Some(Call::of(program, host)),
            _ => None,
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
        let mut inputs = Vec::with_capacity(call.inputs.len());
        for (i, operand) in call.inputs.iter().enumerate() {
            let Some(dims) = operand.sizes(&value) else { return self.fail("a size has no value".into()) };
            let bytes = dims.iter().product::<usize>() * operand.dtype.size();
            // SAFETY: the buffer holds that many bytes.
            let copy = unsafe { std::slice::from_raw_parts(address(i), bytes) }.to_vec();
            match Tensor::from_bytes(operand.dtype, &dims, copy) {
                Ok(tensor) => inputs.push(tensor),
                Err(error) => return self.fail(error.to_string()),
            }
        }
        let results = match call.results(&inputs, &value) {
            Ok(results) => results,
            Err(why) => return self.fail(why),
        };
        for (i, result) in results.iter().enumerate() {
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

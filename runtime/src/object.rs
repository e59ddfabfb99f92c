//! Code made ahead of time: an object file that another program links, so that it needs no code generator.
//!
//! The object refers to nothing outside itself but the C library's rounding functions, and those only where the
//! CPU has no instruction for them. What it defines is one [`NativeCode`], under a name of its own.

use std::mem::offset_of;
use std::str::FromStr;

use cranelift::codegen::isa::{self, Builder, OwnedTargetIsa};
use cranelift::prelude::*;
use cranelift_module::{DataDescription, FuncId, Linkage, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use eec_ir::program::{Program, verify};
use target_lexicon::Triple;

use crate::call;
use crate::compile::{self, CompileError, Compiled};
use crate::cpu;
use crate::error::{Error, ErrorKind};
use crate::native::{self, LAYOUT, NativeCode};

/// The system that code is made for, and the CPU features that it may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    triple: String,
    features: Vec<String>,
}

impl Target {
    /// The system of this triple, whose architecture must be this machine's. `features` are CPU features by their
    /// names in `target-feature`; those that code has no use for are ignored, and a feature that is left out may
    /// change the last bits of results ([`Target::features`] lists all that were given).
    pub fn new(triple: impl Into<String>, features: impl IntoIterator<Item = impl Into<String>>) -> Target {
        Target { triple: triple.into(), features: features.into_iter().map(Into::into).collect() }
    }

    /// This machine, with what its CPU has.
    pub fn host() -> Target {
        Target::new(Triple::host().to_string(), cpu::names(std::env::consts::ARCH, cpu::detected()))
    }

    /// The triple.
    pub fn triple(&self) -> &str {
        &self.triple
    }

    /// The CPU features.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// What generates code for it, and the features that this code needs as bits of [`cpu::table`].
    fn isa(&self) -> Result<(OwnedTargetIsa, u64), CompileError> {
        let fail = |why: &dyn std::fmt::Display| CompileError::Target(self.triple.clone(), why.to_string());
        let triple = Triple::from_str(&self.triple).map_err(|e| fail(&e))?;
        let is_small = triple.pointer_width().is_ok_and(|width| width.bits() != 64);
        if is_small {
            return Err(fail(&"its addresses have not 64 bits"));
        }
        let arch = triple.architecture.to_string();
        let mut builder = isa::lookup(triple).map_err(|e| match e {
            isa::LookupError::SupportDisabled => fail(&"cranelift is built for this machine's architecture alone"),
            isa::LookupError::Unsupported => fail(&"cranelift knows no such architecture"),
        })?;
        let features = self.enable(&arch, &mut builder)?;
        Ok((builder.finish(compile::flags(true)?).map_err(|e| fail(&e))?, features))
    }

    fn enable(&self, arch: &str, builder: &mut Builder) -> Result<u64, CompileError> {
        let mut features = 0;
        for (bit, (name, flag)) in cpu::table(arch).iter().enumerate() {
            if self.features.iter().any(|f| f == name) {
                builder.enable(flag)?;
                features |= 1 << bit;
            }
        }
        Ok(features)
    }
}

/// An object file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// The file: ELF, Mach-O or COFF, as the system has it.
    pub bytes: Vec<u8>,
    /// The name of the [`NativeCode`] in it. Different programs have different ones.
    pub symbol: String,
}

/// Compiles a program for `target`.
///
/// ```
/// use eec_ir::program::{Block, Program};
/// use eec_runtime::object::{Target, compile};
///
/// let program = Program { name: "nothing".into(), blocks: vec![Block::default()], ..Program::default() };
/// let object = compile(&program, &Target::host())?;
/// assert!(object.symbol.starts_with("eec_code_"));
/// # Ok::<(), eec_runtime::Error>(())
/// ```
///
/// # Errors
///
/// The program breaks its rules, or there is no code generator for the target.
pub fn compile(program: &Program, target: &Target) -> Result<Object, Error> {
    let verified = verify(program).map_err(|e| call::error(program, ErrorKind::Program, e))?;
    let identity = native::identity(program)?;
    let hex: String = identity[..12].iter().map(|b| format!("{b:02x}")).collect();
    let symbol = format!("eec_code_{LAYOUT:016x}_{hex}");
    let emit = || -> Result<Vec<u8>, CompileError> {
        let (isa, features) = target.isa()?;
        let builder = ObjectBuilder::new(isa, program.name.as_str(), default_libcall_names())?;
        let Compiled { mut module, entry } = compile::compile(ObjectModule::new(builder), verified, false)?;
        define(&mut module, &symbol, &header(identity, features), entry)?;
        module.finish().emit().map_err(|e| CompileError::Codegen(e.to_string()))
    };
    let bytes = emit().map_err(|e| {
        let kind = if matches!(e, CompileError::Target(..)) { ErrorKind::Feature } else { ErrorKind::Internal };
        call::error(program, kind, e)
    })?;
    Ok(Object { bytes, symbol })
}

/// The bytes of a [`NativeCode`] without its entry.
fn header(program: [u8; 32], features: u64) -> Box<[u8]> {
    let mut bytes = [0; size_of::<NativeCode>()];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(offset_of!(NativeCode, layout), &LAYOUT.to_le_bytes());
    put(offset_of!(NativeCode, program), &program);
    put(offset_of!(NativeCode, features), &features.to_le_bytes());
    Box::new(bytes)
}

fn define(module: &mut ObjectModule, symbol: &str, header: &[u8], entry: FuncId) -> Result<(), CompileError> {
    let mut data = DataDescription::new();
    data.define(header.into());
    data.set_align(align_of::<NativeCode>() as u64);
    let function = module.declare_func_in_data(entry, &mut data);
    data.write_function_addr(offset_of!(NativeCode, entry) as u32, function);
    let id = module.declare_data(symbol, Linkage::Export, false, false)?;
    Ok(module.define_data(id, &data)?)
}

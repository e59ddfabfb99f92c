//! A model's machine code, made ahead of time: a static library for the program to link.

use std::path::{Path, PathBuf};

use ar_archive_writer::{ArchiveKind, DEFAULT_OBJECT_READER, NewArchiveMember, write_archive_to_stream};
use eec_ir::program::Program;
use eec_runtime::object::{Target, compile};
use eec_runtime::replace_file;

use crate::Error;

/// The CPUs that machine code is for. Others refuse to load it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cpu {
    /// Those that the program itself is compiled for: all of its target, unless `-C target-cpu` or
    /// `-C target-feature` asks for more. On x86-64 that means code without fused multiply-adds, whose results
    /// differ in the last places from those on other CPUs.
    Target,
    /// Level 3 of x86-64: AVX2 and fused multiply-adds, as in nearly all such CPUs since 2015.
    X86_64V3,
    /// The one that builds, with all that it has.
    Host,
}

/// The features of [`Cpu::X86_64V3`] that generated code can use.
const X86_64V3: [&str; 11] =
    ["sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "lzcnt", "bmi1", "bmi2", "avx", "avx2", "fma"];

/// The system to build for, with the features of these CPUs.
pub(super) fn target(cpu: Cpu) -> Result<Target, Error> {
    narrowed(system(), cpu)
}

/// What cargo tells a build script that the program is compiled for; elsewhere this machine's system, with every CPU
/// of its architecture.
fn system() -> Target {
    let Ok(triple) = std::env::var("TARGET") else { return Target::new(Target::host().triple(), [""; 0]) };
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    Target::new(triple, features.split(','))
}

fn narrowed(system: Target, cpu: Cpu) -> Result<Target, Error> {
    let arch = system.triple().split('-').next().unwrap_or_default();
    let refused = |why: &str| Error::request(format!("Builder::native_code: {why}, not for {}", system.triple()));
    match cpu {
        Cpu::X86_64V3 if arch != "x86_64" => Err(refused("Cpu::X86_64V3 is for x86-64")),
        Cpu::X86_64V3 => Ok(Target::new(system.triple(), X86_64V3)),
        Cpu::Host if arch != std::env::consts::ARCH => Err(refused("Cpu::Host is for the machine that builds")),
        Cpu::Host => Ok(Target::new(system.triple(), Target::host().features())),
        Cpu::Target => Ok(system),
    }
}

/// A static library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Library {
    /// Its file.
    pub(super) file: PathBuf,
    /// Its name, as linkers are told of it.
    pub(super) name: String,
}

impl Library {
    /// The library of the model `name` in `folder`, named as linkers of the target look for it.
    pub(super) fn of(name: &str, folder: &Path, target: &Target) -> Library {
        let name = format!("eec_{name}");
        let is_msvc = target.triple().ends_with("-msvc");
        let file = if is_msvc { format!("{name}.lib") } else { format!("lib{name}.a") };
        Library { file: folder.join(file), name }
    }

    /// Compiles a program into the library; gives the name of its code.
    pub(super) fn write(&self, program: &Program, target: &Target) -> Result<String, Error> {
        let object = compile(program, target)?;
        let member = NewArchiveMember::new(object.bytes, &DEFAULT_OBJECT_READER, format!("{}.o", self.name));
        let mut archive = std::io::Cursor::new(Vec::new());
        write_archive_to_stream(&mut archive, &[member], kind(target), false, None)
            .and_then(|()| replace_file(&self.file, |out| std::io::Write::write_all(out, archive.get_ref())))
            .map_err(|e| Error::io(&self.file, e))?;
        Ok(object.symbol)
    }
}

/// The archives of the target's linkers.
fn kind(target: &Target) -> ArchiveKind {
    match target.triple() {
        triple if triple.contains("-apple-") => ArchiveKind::Darwin,
        triple if triple.contains("-windows-") => ArchiveKind::Coff,
        _ => ArchiveKind::Gnu,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_those_of_the_target() {
        let none = || Target::new("x86_64-unknown-linux-gnu", ["sse2", "avx"]);
        assert_eq!(narrowed(none(), Cpu::Target).unwrap(), none());
        assert!(narrowed(none(), Cpu::X86_64V3).unwrap().features().contains(&"fma".to_string()));
        let other = if std::env::consts::ARCH == "x86_64" { "aarch64-apple-darwin" } else { "x86_64-apple-darwin" };
        let error = narrowed(Target::new(other, [""; 0]), Cpu::Host).unwrap_err().to_string();
        assert!(error.contains("the machine that builds") && error.contains(other), "{error}");
        let error = narrowed(Target::new("aarch64-apple-darwin", [""; 0]), Cpu::X86_64V3).unwrap_err().to_string();
        assert!(error.contains("Cpu::X86_64V3") && error.contains("aarch64-apple-darwin"), "{error}");
    }

    #[test]
    fn libraries_are_named_as_linkers_look_for_them() {
        let file = |triple: &str| {
            let library = Library::of("m", Path::new(""), &Target::new(triple, [""; 0]));
            assert_eq!(library.name, "eec_m");
            library.file.display().to_string()
        };
        assert_eq!(file("x86_64-unknown-linux-gnu"), "libeec_m.a");
        assert_eq!(file("x86_64-pc-windows-msvc"), "eec_m.lib");
    }
}

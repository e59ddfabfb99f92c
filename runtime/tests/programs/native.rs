//! Code made ahead of time, linked as another program links it, against code that is made when a program is loaded.

use std::path::Path;
use std::process::Command;

use eec_ir::Tensor;
use eec_ir::program::{BinaryFn, Form, PoolKind, UnaryFn};
use eec_runtime::object::{Target, compile};
use eec_runtime::{Control, ErrorKind, NativeCode, Options, Run, Session};

use crate::build::{Builder, d, n, ramp};
use crate::control::{WIDTH, branch, gated, nested, rows};
use crate::{forms, functions, host, joins, loops, repeats};

/// A program and what it runs on.
struct Case {
    program: Builder,
    inputs: Vec<(&'static str, Tensor)>,
}

/// Every step, every function that code calls, and what only code without the CPU's instructions calls.
fn cases() -> Vec<Case> {
    let mut attention = Builder::new("attention");
    let form = forms::small_attention(&mut attention, 4);
    attention.run_kernel("attention", Form::Attention(form));
    let go = |go: u8| {
        let x = Tensor::vector((0..WIDTH).map(|i| i as f32).collect::<Vec<_>>());
        vec![("go", Tensor::vector(vec![go])), ("x", x)]
    };
    let batch = |kinds: &[usize]| Tensor::new(&[kinds.len(), WIDTH as usize], rows(kinds)).expect("rows");
    let mut cases = vec![
        (nested(), vec![("x", batch(&[2, 0, 1, 1, 0]))]),
        (gated(), vec![("x", batch(&[2, 0, 1, 1, 0]))]),
        (branch(), vec![("x", batch(&[2, 0]))]),
        (joins::summed(), joins::inputs(&[1, 0, 0, 1]).to_vec()),
        (loops::softmax(d("rows"), d("width")), vec![("x", ramp(&[3, 301], 0.1))]),
        (loops::embedding(), vec![("ids", Tensor::vector(vec![3i64, 0, -1]))]),
        (loops::embedding(), vec![("ids", Tensor::vector(vec![3i64, 20]))]),
        (forms::three_products(), vec![("x", ramp(&[5, 40], 0.1))]),
        (attention, vec![("q", ramp(&[2, 4], 0.3)), ("k", ramp(&[3, 4], -0.2))]),
        (host::largest(&d("rows") * &d("k")), host::inputs(2)),
        (repeats::swapping(true), repeats::inputs(2, 3).to_vec()),
        (repeats::conditional(false, true), go(1)),
        (repeats::conditional(true, false), go(1)),
        (forms::convolution(), vec![("x", ramp(&[3, 4, 7, 9], 0.1))]),
        (forms::pooling(PoolKind::Average), vec![("x", ramp(&[2, 5, 5, 3], 1.0))]),
        (forms::running_sum(true, true), vec![("x", Tensor::new(&[2, 4, 3], vec![7i64; 24]).expect("24"))]),
        (functions::pair(BinaryFn::Pow), vec![("x", ramp(&[11], 1.7)), ("y", ramp(&[11], 0.3))]),
    ];
    let functions =
        [UnaryFn::Sin, UnaryFn::Cos, UnaryFn::Exp, UnaryFn::Floor, UnaryFn::Ceil, UnaryFn::Round, UnaryFn::Sqrt];
    cases.extend(functions.map(|f| (functions::unary(f), vec![("x", ramp(&[11], 21_000.7))])));
    cases.into_iter().map(|(program, inputs)| Case { program, inputs }).collect()
}

/// The code of the cases' programs, linked into one library that stays.
fn linked(cases: &[Case], target: &Target) -> Vec<&'static NativeCode> {
    let folder = tempfile::tempdir().expect("a folder");
    let objects: Vec<_> = cases.iter().map(|case| compile(&case.program.program, target).expect("an object")).collect();
    for object in &objects {
        std::fs::write(folder.path().join(format!("{}.o", object.symbol)), &object.bytes).expect("it is written");
    }
    let library = folder.path().join("libcases.so");
    link(folder.path(), &library);
    // SAFETY: the library has no initializers; it stays loaded, and is closed with the program.
    let library: &'static libloading::Library =
        Box::leak(Box::new(unsafe { libloading::Library::new(&library) }.expect("the library loads")));
    let code = |symbol: &str| -> &'static NativeCode {
        // SAFETY: the symbol is that of a `NativeCode`, which nothing changes.
        unsafe { &**library.get::<*const NativeCode>(symbol.as_bytes()).expect("the symbol") }
    };
    objects.iter().map(|object| code(&object.symbol)).collect()
}

/// Links the objects in a folder; equal programs are equal files.
fn link(folder: &Path, library: &Path) {
    let objects = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut linker = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    linker.args(["-shared", "-Wl,-z,defs,-z,text", "-o"]).arg(library).args(objects).arg("-lm");
    let output = linker.output().expect("a C compiler, which links Rust programs too");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn session(b: &Builder, native: Option<&'static NativeCode>) -> Session {
    let options = Options { threads: 2, native, step_limit: 1000, ..Options::default() };
    Session::new(b.program.clone(), &|hash| b.constants.get(&hash).cloned(), options).expect("a session")
}

/// The bytes of the outputs by name and what was executed, or the error.
type Outcome = Result<(Vec<(String, Vec<u8>)>, eec_runtime::Counters), String>;

fn outcome(run: Result<Run, eec_runtime::Error>) -> Outcome {
    let run = run.map_err(|e| e.to_string())?;
    Ok((run.outputs.into_iter().map(|(name, tensor)| (name, tensor.bytes().to_vec())).collect(), run.counters))
}

#[test]
fn linked_code_gives_what_code_made_at_load_gives() {
    let cases = cases();
    for (case, code) in cases.iter().zip(linked(&cases, &Target::host())) {
        let (mut made, mut linked) = (session(&case.program, None), session(&case.program, Some(code)));
        for control in [Control::Auto, Control::Never, Control::Gates] {
            let [want, have] = [&mut made, &mut linked].map(|s| outcome(s.run(&case.inputs, control)));
            assert_eq!(have, want, "{} under {control:?}", case.program.program.name);
        }
    }
}

/// Without its features a CPU rounds twice where it else rounds once, and calls functions to round.
#[test]
fn code_for_all_cpus_of_an_architecture_runs() {
    let cases = cases();
    let target = Target::new(Target::host().triple(), [""; 0]);
    for (case, code) in cases.iter().zip(linked(&cases, &target)) {
        let [want, have] = [None, Some(code)].map(|code| session(&case.program, code).run(&case.inputs, Control::Auto));
        let (want, have) = match (want, have) {
            (Ok(want), Ok(have)) => (want, have),
            (want, have) => {
                assert_eq!(outcome(have), outcome(want));
                continue;
            }
        };
        assert_eq!(have.counters, want.counters);
        for ((name, have), (_, want)) in have.outputs.iter().zip(&want.outputs) {
            let near =
                |(a, b): (&f64, &f64)| a == b || (a - b).abs() <= 1e-5 * (1.0 + b.abs()) || a.is_nan() && b.is_nan();
            let (have, want) = (have.to_f64s(), want.to_f64s());
            let program = &case.program.program.name;
            assert!(have.iter().zip(&want).all(near), "{program}, {name}: {have:?}, expected {want:?}");
        }
    }
}

#[test]
fn code_of_another_program_is_refused_and_measures_nothing() {
    let cases = [nested(), branch()].map(|program| Case { program, inputs: Vec::new() });
    let code = linked(&cases, &Target::host());
    let refused = |options: Options, kind, part: &str| {
        let result = Session::new(cases[0].program.program.clone(), &|_| None, options);
        let error = result.err().expect("it is refused");
        assert!(error.kind() == kind && error.to_string().contains(part), "{error}");
    };
    let other = Options { native: Some(code[1]), ..Options::default() };
    refused(
        other,
        ErrorKind::Artifact,
        "model \"nested\": the code that was made ahead of time is for another program",
    );
    let measured = Options { native: Some(code[0]), profile: true, ..Options::default() };
    refused(measured, ErrorKind::Feature, "measures no kernels");
}

#[test]
fn targets_without_a_generator_are_named() {
    let refused = |triple: &str| {
        compile(&loops::softmax(d("rows"), n(4)).program, &Target::new(triple, [""; 0])).unwrap_err().to_string()
    };
    for (triple, why) in [
        ("m68k-unknown-linux-gnu", "its addresses have not 64 bits"),
        ("i686-unknown-linux-gnu", "its addresses have not 64 bits"),
        ("powerpc64-unknown-linux-gnu", "no such architecture"),
        ("no-such-thing", "rchitecture"),
    ] {
        let error = refused(triple);
        assert!(error.contains(&format!("no code can be generated for {triple}: ")) && error.contains(why), "{error}");
    }
}

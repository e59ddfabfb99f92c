//! Matrix products alone, beside those of the crates `faer` and `gemm`: `[m, k] · [k, n]` in f32, the second
//! matrix known beforehand, as in a model. Times of the others include their packing of it, eec's a copy of the result
//! into memory of its own, which counts where results are large.

use std::error::Error;
use std::num::NonZero;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use eec::model::{Form, Model, run_options};
use eec_ir::graph::Origin;
use eec_ir::{DType, Graph, Op, Tensor, Type};
use eec_runtime::{Control, Session};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use gemm::Parallelism;

/// `[m, k, n]`: an MLP of bert-base at 1, 16, 128 and 1,024 rows, its attention's projection, a block of cifar-vit,
/// the rows of a 1x1 convolution of resnet50, and squares.
const SHAPES: [[usize; 3]; 9] = [
    [1, 768, 3072],
    [16, 768, 3072],
    [128, 768, 3072],
    [1024, 768, 3072],
    [128, 768, 768],
    [65, 96, 384],
    [196, 1024, 256],
    [512, 512, 512],
    [1024, 1024, 1024],
];

/// Results may differ by the order of their sums.
const TOLERANCE: f32 = 1e-4;

/// Products are repeated for at least this long per round.
const ROUND: Duration = Duration::from_millis(20);

/// What is timed.
#[derive(Args)]
pub struct ProductArgs {
    /// Numbers of threads
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Interleaved rounds
    #[arg(long, default_value_t = 21)]
    rounds: usize,
}

/// One product and its operands.
struct Product {
    m: usize,
    k: usize,
    n: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

/// Prints a table.
pub fn run(args: &ProductArgs) -> Result<(), Box<dyn Error>> {
    println!("| m, k, n | threads | eec, GFLOP/s | faer | gemm |\n|---|---|---|---|---|");
    for shape in SHAPES {
        for threads in &args.threads {
            let [eec, faer, gemm] = rates(shape, *threads, args.rounds)?;
            let [m, k, n] = shape;
            println!("| {m}, {k}, {n} | {threads} | {eec:.0} | {faer:.0} | {gemm:.0} |");
        }
    }
    Ok(())
}

/// Median GFLOP/s of eec, faer and gemm.
fn rates([m, k, n]: [usize; 3], threads: usize, rounds: usize) -> Result<[f64; 3], Box<dyn Error>> {
    let values = |len: usize, step: usize| (0..len).map(|i| (i * step % 101) as f32 / 50.0 - 1.0).collect::<Vec<f32>>();
    let mut product = Product { m, k, n, a: values(m * k, 37), b: values(k * n, 53), c: vec![0.0; m * n] };
    let (mut session, a) = (session(&product, threads)?, Tensor::new(&[m, k], product.a.clone())?);
    let mut eec = |_: &mut Product| -> Result<Option<Vec<f32>>, Box<dyn Error>> {
        let run = session.run(&[("a", a.clone())], Control::Auto)?;
        Ok(run.outputs[0].1.elements::<f32>().map(|e| e.into_owned()))
    };
    let expected = eec(&mut product)?.ok_or("a product of floats has none")?;
    let par = NonZero::new(threads).filter(|t| t.get() > 1);
    for other in [faer_product, gemm_product] {
        other(&mut product, par);
        let scale = (k as f32).sqrt();
        if product.c.iter().zip(&expected).any(|(x, y)| (x - y).abs() > TOLERANCE * scale) {
            return Err(format!("the products of {m}, {k}, {n} differ").into());
        }
    }
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        times[0].push(timed(|| eec(&mut product).map(drop))?);
        times[1].push(timed(|| Ok(faer_product(&mut product, par)))?);
        times[2].push(timed(|| Ok(gemm_product(&mut product, par)))?);
    }
    let flops = (2 * m * k * n) as f64;
    Ok(times.map(|mut t| {
        t.sort_by(f64::total_cmp);
        flops / t[t.len() / 2] / 1e9
    }))
}

/// Mean seconds of as many calls as fill a round.
fn timed(mut call: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < ROUND {
        call()?;
        calls += 1;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(calls))
}

fn session(product: &Product, threads: usize) -> Result<Session, Box<dyn Error>> {
    let mut graph = Graph::new("product");
    let dims = [product.m as i64, product.k as i64].map(Into::into);
    let a = graph.add_input("a", Type::new(DType::F32, dims));
    let b = graph.constant(Tensor::new(&[product.k, product.n], product.b.clone())?);
    let c = graph.append1(Graph::ROOT, Op::MATMUL, &[a, b], Origin::source("product"))?;
    graph.set_outputs(vec![("c".into(), c)]);
    Ok(Model::new(Path::new("product"), graph).session(Form::Plain, run_options(Some(threads)))?)
}

fn faer_product(p: &mut Product, threads: Option<NonZero<usize>>) {
    let a = MatRef::from_row_major_slice(&p.a, p.m, p.k);
    let b = MatRef::from_row_major_slice(&p.b, p.k, p.n);
    let c = MatMut::from_row_major_slice_mut(&mut p.c, p.m, p.n);
    matmul(c, Accum::Replace, a, b, 1.0, threads.map_or(Par::Seq, Par::Rayon));
}

fn gemm_product(p: &mut Product, threads: Option<NonZero<usize>>) {
    let (m, k, n) = (p.m, p.k, p.n);
    let parallelism = threads.map_or(Parallelism::None, |t| Parallelism::Rayon(t.get()));
    let (c, a, b) = (p.c.as_mut_ptr(), p.a.as_ptr(), p.b.as_ptr());
    let (row_a, row) = (k as isize, n as isize);
    // SAFETY: the three slices hold m·n, m·k and k·n elements, row-major.
    unsafe {
        gemm::gemm(m, n, k, c, 1, row, false, a, 1, row_a, b, 1, row, 0.0, 1.0, false, false, false, parallelism);
    }
}

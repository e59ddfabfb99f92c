//! One program that needs no other file: it asks the model inside it one question about one picture, and
//! says how long that took from the program's start.
//!
//! ```text
//! cargo run --release --manifest-path examples/embed/Cargo.toml
//! ```
//!
//! With `--no-default-features` the model's machine code is in the program too, and no code generator.
//! `examples/embed/measure` compares both forms.

#![deny(unsafe_code)]

// Machine code that is linked is declared, which Rust takes for unsafe.
#[allow(unsafe_code)]
mod easy_vqa {
    include!(concat!(env!("OUT_DIR"), "/easy_vqa.rs"));
}

use std::error::Error;
use std::time::Instant;

use eec_runtime::{Array, Options};

/// "what shape is in the image?" as `examples/easy-vqa/vocab.json` numbers its words, padded.
const QUESTION: [i64; 10] = [26, 21, 14, 13, 23, 12, 1, 0, 0, 0];

/// The model's classes, from the same file.
const ANSWERS: [&str; 13] = [
    "circle", "green", "red", "gray", "yes", "teal", "black", "rectangle", "yellow", "triangle", "brown", "blue", "no",
];

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut model = easy_vqa::Model::embedded(Options::default())?;
    let ready = start.elapsed();
    let output = model.run(&picture()?, &Array::new([1, QUESTION.len()], QUESTION.to_vec())?)?;
    let answered = start.elapsed();
    let scores = output.logits.elements();
    let answer = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).ok_or("the model has no classes")?;
    println!("{}, left at {:?}, {} multiply-accumulates", ANSWERS[answer], output.exits, output.counters.macs);
    println!("ready after {:.2} ms, first answer after {:.2} ms", millis(ready), millis(answered));
    Ok(())
}

fn millis(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A red square on white, `[1, 3, 64, 64]` from -1 to 1.
fn picture() -> Result<Array<f32, 4>, Box<dyn Error>> {
    let inside = |i: usize| (20..44).contains(&(i / 64 % 64)) && (20..44).contains(&(i % 64));
    let pixel = |i: usize| if inside(i) && i >= 64 * 64 { -1.0 } else { 1.0 };
    Ok(Array::new([1, 3, 64, 64], (0..3 * 64 * 64).map(pixel).collect())?)
}

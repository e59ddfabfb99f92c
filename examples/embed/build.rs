//! Compiles the carried model into the program.

use eec::build::{Builder, Cpu};

fn main() -> Result<(), eec::Error> {
    let mut builder = Builder::new("../easy-vqa/model.onnx")
        .data("../easy-vqa/calib.npz")
        .recipe_file("recipe.toml")
        .name("easy_vqa")
        .embed(true);
    if std::env::var_os("CARGO_FEATURE_JIT").is_none() {
        builder = builder.native_code(Cpu::Target);
    }
    builder.run_from_script()?;
    Ok(())
}

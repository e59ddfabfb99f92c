//! Compiles the carried model into the program.

fn main() -> Result<(), eec::Error> {
    eec::build::Builder::new("../easy-vqa/model.onnx")
        .data("../easy-vqa/calib.npz")
        .recipe_file("recipe.toml")
        .name("easy_vqa")
        .embed(true)
        .run_from_script()?;
    Ok(())
}

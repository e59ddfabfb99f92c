pub struct Model {
    session: ::eec_runtime::Session,
}
impl Model {
    pub fn load(path: &::std::path::Path, options: ::eec_runtime::Options) -> Result<Self, ::eec_runtime::Error> {
        Ok(Model { session: ::eec_runtime::Session::load(path, options)? })
    }
    pub fn run(&mut self, pixel_values: &::eec_runtime::Array<f32, 4>, input_ids: &::eec_runtime::Array<i64, 2>) -> Result<Output, ::eec_runtime::Error> {
        self.run_with(pixel_values, input_ids, ::eec_runtime::Control::Auto)
    }
    pub fn run_with(&mut self, pixel_values: &::eec_runtime::Array<f32, 4>, input_ids: &::eec_runtime::Array<i64, 2>, control: ::eec_runtime::Control) -> Result<Output, ::eec_runtime::Error> {
        let run = self.session.run(&[("pixel_values", pixel_values.tensor().clone()), ("input_ids", input_ids.tensor().clone())], control)?;
        Ok(Output { logits: run.output("logits")?, confidence: run.output("confidence")?, exits: Vec::new() })
    }
}
pub struct Output { pub logits: ::eec_runtime::Array<f32, 2>, pub confidence: ::eec_runtime::Array<f32, 1>, pub exits: Vec<Exit> }
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit { Block3, End }

// Made by eec 0.1.0 from model.onnx.

/// The model of `model.onnx`, ready to run.
pub struct Model {
    session: ::eec_runtime::Session,
}

#[allow(dead_code)]
impl Model {
    /// Loads the artifact at `path`.
    pub fn load(path: &::std::path::Path, options: ::eec_runtime::Options) -> Result<Self, ::eec_runtime::Error> {
        Ok(Model { session: ::eec_runtime::Session::load(path, options)? })
    }

    /// Runs the model; exits and gates decide by their own rules.
    ///
    /// - `pixel_values`: `f32[batch, 3, 64, 64]`.
    /// - `input_ids`: `i64[batch, 10]`.
    pub fn run(&mut self, pixel_values: &::eec_runtime::Array<f32, 4>, input_ids: &::eec_runtime::Array<i64, 2>) -> Result<Output, ::eec_runtime::Error> {
        self.run_with(pixel_values, input_ids, ::eec_runtime::Control::Auto)
    }

    /// The same under a control over exits and gates.
    pub fn run_with(&mut self, pixel_values: &::eec_runtime::Array<f32, 4>, input_ids: &::eec_runtime::Array<i64, 2>, control: ::eec_runtime::Control) -> Result<Output, ::eec_runtime::Error> {
        Output::of(&self.session.run(&[("pixel_values", pixel_values.tensor().clone()), ("input_ids", input_ids.tensor().clone())], control)?)
    }

    /// The session, for what its program says of itself.
    pub fn session(&self) -> &::eec_runtime::Session {
        &self.session
    }
}

/// What a run gives.
#[allow(dead_code)]
#[derive(Clone, Debug)]
pub struct Output {
    /// `logits`: `f32[batch, 13]`.
    pub logits: ::eec_runtime::Array<f32, 2>,
    /// `confidence`: `f32[batch]`.
    pub confidence: ::eec_runtime::Array<f32, 1>,
    /// Where every sample left.
    pub exits: Vec<Exit>,
    /// What was executed.
    pub counters: ::eec_runtime::Counters,
}

impl Output {
    fn of(run: &::eec_runtime::Run) -> Result<Self, ::eec_runtime::Error> {
        Ok(Output {
            logits: run.output("logits")?,
            confidence: run.output("confidence")?,
            exits: run.output::<i64, 1>("exit_index")?.elements().iter().map(Exit::numbered).collect(),
            counters: run.counters.clone(),
        })
    }
}

/// Where a sample left.
#[allow(dead_code)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Exit {
    /// After block 3.
    Block3,
    /// It ran to the model's end.
    End,
}

#[allow(dead_code)]
impl Exit {
    /// All of them, in order of depth.
    pub const ALL: [Exit; 2] = [Exit::Block3, Exit::End];

    fn numbered(number: &i64) -> Exit {
        usize::try_from(*number).ok().and_then(|k| Exit::ALL.get(k).copied()).unwrap_or(Exit::End)
    }
}

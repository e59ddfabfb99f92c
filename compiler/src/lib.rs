//! eec: makes ONNX models leave early.
//!
//! The road of a model: [`onnx::import`] → [`model::simplified`] → [`compile::compile`] (find exits,
//! fit, calibrate, insert) → [`lower::lower`] → an artifact ([`model::Model::save`]) that
//! `eec-runtime` runs. [`evaluate`] judges the result, [`onnx::export`] writes it as standard ONNX.
//! The `eec` command is [`cli`], one file per verb.

#![forbid(unsafe_code)]

pub mod calibrate;
pub mod capture;
pub mod cases;
pub mod cli;
pub mod compare;
pub mod compile;
pub mod dataset;
mod error;
pub mod evaluate;
pub mod file;
pub mod fit;
pub mod lower;
pub mod model;
pub mod npz;
pub mod onnx;
pub mod progress;
pub mod recipe;
#[allow(missing_docs)]
pub mod report {
    #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
    pub struct Report { pub outcome: Option<crate::calibrate::Outcome> }
    pub struct Inputs<'a> { pub model: &'a std::path::Path, pub data: &'a crate::dataset::Dataset, pub recipe: &'a crate::recipe::Recipe, pub exits: &'a [String], pub costs: &'a crate::calibrate::Costs, pub reference: crate::calibrate::Reference, pub fit_rows: usize, pub split: &'a crate::calibrate::Split, pub outcome: &'a crate::calibrate::Outcome, pub stats: &'a [crate::fit::FitStats] }
    impl Report { pub fn new(i: Inputs) -> Self { Report { outcome: Some(i.outcome.clone()) } }
      pub fn text(&self) -> String { self.outcome.as_ref().map(|o| format!("{:?} {:?}\n{:?}\n{:?}", o.verdict, o.policy, o.plain, o.dynamic)).unwrap_or_default() } pub fn html(&self) -> String { String::new() } }
    pub fn without_candidates(_: &std::path::Path, _: &crate::dataset::Dataset, _: &crate::recipe::Recipe, _r: &[String]) -> Report { Report { outcome: None } }
}

pub use error::Error;

//! Compiles models in build scripts: an artifact, and a Rust module that runs it with the model's own
//! names and types.
//!
//! The build script, with `eec` as a build dependency:
//!
//! ```no_run
//! fn main() -> Result<(), eec::Error> {
//!     eec::build::Builder::new("models/easy-vqa.onnx")
//!         .data("models/calib.npz")
//!         .recipe_file("models/easy-vqa.toml")
//!         .embed(true)
//!         .run_from_script()?;
//!     Ok(())
//! }
//! ```
//!
//! The program, with `eec-runtime` as its only dependency:
//!
//! ```ignore
//! mod easy_vqa {
//!     include!(concat!(env!("OUT_DIR"), "/easy_vqa.rs"));
//! }
//!
//! let mut model = easy_vqa::Model::embedded(eec_runtime::Options::default())?;
//! let output = model.run(&pixel_values, &input_ids)?;
//! println!("{:?} left at {:?}", output.logits.elements(), output.exits);
//! ```

mod cache;
mod generate;
mod names;
mod native;

use std::path::{Path, PathBuf};

use eec_passes::registry::Registry;
use eec_runtime::replace_file;

pub use self::native::Cpu;
use self::native::Library;
use crate::compile::{Compile, compile};
use crate::dataset::Dataset;
use crate::model::{Form, Model};
use crate::onnx::external_files;
use crate::progress::Silent;
use crate::recipe::{Head, Recipe};
use crate::{Error, model};

/// Compiles one model.
#[derive(Clone, Debug)]
pub struct Builder {
    model: PathBuf,
    data: Option<PathBuf>,
    recipe: Source,
    name: Option<String>,
    out_dir: PathBuf,
    embed: bool,
    native: Option<Cpu>,
    threads: Option<usize>,
    registry: Registry,
}

/// Where the recipe comes from.
#[derive(Clone, Debug)]
enum Source {
    Given(Box<Recipe>),
    File(PathBuf),
}

/// What a build gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// The artifact, `NAME.eec`.
    pub artifact: PathBuf,
    /// The Rust module, `NAME.rs`.
    pub module: PathBuf,
    /// The static library with its machine code that the module links, if [`Builder::native_code`] asks for it.
    pub library: Option<PathBuf>,
    /// Whether all were there already, made of the same files in the same way.
    pub is_cached: bool,
    /// What the model does otherwise than the plain one, for a reader; empty if nothing.
    pub changes: Vec<String>,
}

impl Builder {
    /// A build of the ONNX file `model`. In a build script, relative paths start at the package's folder.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Builder {
            model: model.into(),
            data: None,
            recipe: Source::Given(Box::default()),
            name: None,
            out_dir: PathBuf::new(),
            embed: false,
            native: None,
            threads: None,
            registry: Registry::builtin(),
        }
    }

    /// The data to fit and calibrate on, an `.npz` file; without it the model is compiled as it is, or as
    /// a recipe without data can make it.
    #[must_use]
    pub fn data(mut self, data: impl Into<PathBuf>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// What to make of the model.
    #[must_use]
    pub fn recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = Source::Given(Box::new(recipe));
        self
    }

    /// The same, from a TOML file.
    #[must_use]
    pub fn recipe_file(mut self, recipe: impl Into<PathBuf>) -> Self {
        self.recipe = Source::File(recipe.into());
        self
    }

    /// The name of artifact and module, by default that of the model's file with `_` for what no module's
    /// name can hold.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The folder for the results, made if it is not there. In a build script it starts at `OUT_DIR`,
    /// which is also the default.
    #[must_use]
    pub fn out_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out_dir = folder.into();
        self
    }

    /// Whether the artifact becomes part of the program, by `Model::embedded`. By default it is loaded from
    /// where the program finds it, by `Model::load`, which is there in both cases.
    #[must_use]
    pub fn embed(mut self, embed: bool) -> Self {
        self.embed = embed;
        self
    }

    /// Makes the model's machine code now, for these CPUs, so that the program links it and depends on
    /// `eec-runtime` without its default features: no code generator. Otherwise the code is made when the model is
    /// loaded.
    ///
    /// The module then declares what it links, which takes `#[allow(unsafe_code)]` where that is denied.
    #[must_use]
    pub fn native_code(mut self, cpu: Cpu) -> Self {
        self.native = Some(cpu);
        self
    }

    /// Threads for the runs over the data, by default one per core.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The passes that the recipe's key `passes` can name, by default eec's own.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Builds as part of a build script: into `OUT_DIR`, and tells cargo when to run the script again, where the
    /// library with machine code is, and, as a warning, if with data nothing paid and the model is the plain one.
    ///
    /// # Errors
    ///
    /// There is no `OUT_DIR`, a file cannot be read or written, or the model cannot be compiled; the error
    /// names file, node and reason.
    pub fn run_from_script(&self) -> Result<Built, Error> {
        let out = std::env::var_os("OUT_DIR").ok_or_else(|| {
            Error::request("OUT_DIR is not set: run_from_script is for build scripts; use generate elsewhere")
        })?;
        // First, so that the script runs again too when a file that was broken is mended.
        println!("cargo::rerun-if-changed={}", self.model.display());
        for file in self.sources()? {
            println!("cargo::rerun-if-changed={}", file.display());
        }
        let built = Builder { out_dir: Path::new(&out).join(&self.out_dir), ..self.clone() }.generate()?;
        if let Some(folder) = built.library.as_deref().and_then(Path::parent) {
            println!("cargo::rustc-link-search=native={}", folder.display());
        }
        if self.data.is_some() && built.changes.is_empty() {
            println!("cargo::warning={}: nothing pays on this data; it is the plain model", self.model.display());
        }
        Ok(built)
    }

    /// Builds into the folder [`Builder::out_dir`], for use outside of build scripts. Nothing is compiled if
    /// all results are there, made from the same bytes by the same program.
    ///
    /// # Errors
    ///
    /// As [`Builder::run_from_script`].
    pub fn generate(&self) -> Result<Built, Error> {
        let name = self.module_name()?;
        let file = |ending: &str| self.out_dir.join(format!("{name}.{ending}"));
        let (artifact, module) = (file("eec"), file("rs"));
        std::fs::create_dir_all(&self.out_dir).map_err(|e| Error::io(&self.out_dir, e))?;
        let recipe = self.read_recipe()?;
        let target = self.native.map(native::target).transpose()?;
        let library = target.as_ref().map(|target| Library::of(&name, &self.out_dir, target));
        let key = cache::key(&self.sources()?, &recipe, self.embed, target.as_ref())?;
        let results = [Some(&artifact), Some(&module), library.as_ref().map(|l| &l.file)];
        let is_cached = results.iter().flatten().all(|f| f.is_file()) && cache::is_current(&file("key"), &key);
        let model = match is_cached {
            true => Model::open(&artifact)?,
            false => self.compiled(recipe)?,
        };
        if !is_cached {
            model.save(&artifact)?;
            let program = model.program(Form::Dynamic)?;
            let native = match library.as_ref().zip(target.as_ref()) {
                Some((library, target)) => Some((library.name.as_str(), library.write(&program, target)?)),
                None => None,
            };
            let embedded = self.embed.then_some(artifact.as_path());
            let text = generate::module(&self.model, &program, embedded, native);
            let written = replace_file(&module, |out| std::io::Write::write_all(out, text.as_bytes()));
            written.map_err(|e| Error::io(&module, e))?;
            // Last, so that an interrupted build is not taken for a finished one.
            std::fs::write(file("key"), &key).map_err(|e| Error::io(&file("key"), e))?;
        }
        let library = library.map(|library| library.file);
        Ok(Built { artifact, module, library, is_cached, changes: model.changes() })
    }

    fn compiled(&self, recipe: Recipe) -> Result<Model, Error> {
        let plain = model::Model::open(&self.model)?;
        if plain.dynamic.is_some() {
            return Err(Error::content(&self.model, "is compiled with exits already; give the .onnx it was made from"));
        }
        let data = self.data.as_deref().map(|path| Dataset::open(path, &plain.plain)).transpose()?;
        let options = Compile { recipe, registry: &self.registry, threads: self.threads, progress: &Silent };
        let compiled = compile(&self.model, plain.plain, data.as_ref(), &options);
        compiled.map_err(|e| e.about(self.model.display()))
    }

    fn read_recipe(&self) -> Result<Recipe, Error> {
        let recipe = match &self.recipe {
            Source::Given(recipe) => Recipe::clone(recipe),
            Source::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
                Recipe::from_toml(&text).map_err(|e| Error::content(path, e.to_string().trim_end()))?
            }
        };
        recipe.check().map_err(Error::request)?;
        Ok(recipe)
    }

    /// All files that the result depends on.
    fn sources(&self) -> Result<Vec<PathBuf>, Error> {
        let mut files = vec![self.model.clone()];
        files.extend(external_files(&self.model)?);
        files.extend(self.data.clone());
        if let Source::File(path) = &self.recipe {
            files.push(path.clone());
        }
        if let Head::File(head) = self.read_recipe()?.exit_heads.head {
            files.extend(external_files(&head)?);
            files.push(head);
        }
        Ok(files)
    }

    fn module_name(&self) -> Result<String, Error> {
        let stem = || self.model.file_stem().and_then(|s| s.to_str()).map(names::module);
        let name = self.name.clone().or_else(stem).unwrap_or_default();
        match names::is_module(&name) {
            true => Ok(name),
            false => Err(Error::request(format!(
                "{}: `{name}` cannot name a Rust module: give Builder::name one",
                self.model.display()
            ))),
        }
    }
}

//! Builds images from Dockerfiles.
//!
//! `COPY`, `ADD` and `WORKDIR` write a layer folder directly; `RUN` is carried out by whoever
//! implements `RunStep`, in an overlay whose upper folder becomes the layer. Each step's result
//! is cached under a digest of everything it depends on, so an unchanged context gives the same
//! image id again.

pub(super) mod cache;
mod context;
mod copy;
mod glob;
mod ignore;
mod owner;
mod result;
mod run;
mod stage;
mod step;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::ImageStore;
use super::digest::Digest;
use super::dockerfile::{Dockerfile, Fault};
use super::error::ImageError;
use super::import;
use super::reference::Reference;
use context::Context;
use stage::Stage;

/// What to build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildRequest {
    /// The image's name; empty: none.
    pub reference: String,
    /// Path inside the context; empty: `Dockerfile`.
    pub dockerfile: String,
    /// Values for `ARG`.
    pub arguments: BTreeMap<String, String>,
    /// The stage to stop at; empty: the last.
    pub target: String,
    /// Carry out every step, whatever the cache has.
    pub no_cache: bool,
}

/// Carries out the commands of `RUN`.
pub trait RunStep {
    /// Runs the command to its end and returns its exit status. When it returns nothing of the
    /// command is left running, and the upper folder is no longer mounted.
    fn run(&self, step: &mut RunCommand<'_>) -> Result<i32, ImageError>;
}

/// One command of a build.
pub struct RunCommand<'a> {
    /// Lower folders, lowest first; at least one.
    pub layers: &'a [PathBuf],
    /// Receives what the command changes, as the upper folder of an overlay with `userxattr`.
    pub upper: &'a Path,
    /// The overlay's work folder, on the same file system.
    pub work: &'a Path,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `NAME=value`; always has a `PATH`.
    pub environment: Vec<String>,
    /// Absolute.
    pub working_directory: String,
    /// `uid[:gid]` or names of the root file system; empty: root.
    pub user: String,
    /// Is told what the command writes to standard output and error.
    pub output: &'a mut dyn FnMut(&[u8]),
}

/// Builds the image and enters it into the store. Returns its id.
pub(super) fn build(
    store: &ImageStore,
    context: &mut dyn Read,
    request: &BuildRequest,
    runner: &dyn RunStep,
    progress: &mut dyn FnMut(String),
) -> Result<Digest, ImageError> {
    let name = match request.reference.as_str() {
        "" => None,
        name => Some(name.parse::<Reference>()?),
    };
    let _shared = store.layout.shared()?;
    let scratch = store.layout.scratch()?;
    let context = Context::unpack(context, scratch.path(), &request.dockerfile)?;
    let dockerfile = Dockerfile::parse(&context.text).map_err(|fault| context.refuse(&fault))?;
    let target = dockerfile.target(&request.target).ok_or_else(|| {
        let names: Vec<&str> = dockerfile
            .stages
            .iter()
            .filter_map(|stage| stage.name.as_deref())
            .collect();
        context.refuse(&Fault {
            line: 1,
            reason: format!(
                "no stage {}; there are: {}",
                request.target,
                names.join(", ")
            ),
        })
    })?;
    let mut builder = Builder {
        store,
        context: &context,
        dockerfile: &dockerfile,
        request,
        runner,
        progress,
        finished: BTreeMap::new(),
    };
    builder.check_arguments();
    let stage = builder.stage(target)?;
    let config = stage.document()?;
    let manifest = import::manifest(&config, &stage.layers)?;
    let unpacked_bytes = stage.layers.iter().map(|layer| layer.unpacked_bytes).sum();
    let names: Vec<Reference> = name.into_iter().collect();
    let id = import::store(&store.layout, &config, &manifest, unpacked_bytes, &names)?;
    progress(format!("built {id}"));
    Ok(id)
}

/// A build under way.
struct Builder<'b> {
    store: &'b ImageStore,
    context: &'b Context,
    dockerfile: &'b Dockerfile,
    request: &'b BuildRequest,
    runner: &'b dyn RunStep,
    progress: &'b mut dyn FnMut(String),
    finished: BTreeMap<usize, Stage>,
}

impl Builder<'_> {
    /// Builds a stage, and before it those it needs; others are never built.
    fn stage(&mut self, index: usize) -> Result<Stage, ImageError> {
        if let Some(stage) = self.finished.get(&index) {
            return Ok(stage.clone());
        }
        let plan = &self.dockerfile.stages[index];
        let total = plan.steps.len() + 1;
        let title = match (&plan.name, self.dockerfile.stages.len()) {
            (_, 1) => String::new(),
            (Some(name), _) => format!("[{name}] "),
            (None, _) => format!("[{index}] "),
        };
        (self.progress)(format!("{title}STEP 1/{total} {}", plan.text));
        let begun = self.begin(plan, index);
        let mut stage =
            begun.map_err(|failure| self.context.explain(plan.line, &plan.text, failure))?;
        for (number, step) in plan.steps.iter().enumerate() {
            (self.progress)(format!("{title}STEP {}/{total} {}", number + 2, step.text));
            let applied = self.apply(&mut stage, step, index);
            applied.map_err(|failure| self.context.explain(step.line, &step.text, failure))?;
        }
        self.finished.insert(index, stage.clone());
        Ok(stage)
    }

    /// Says which values were given for nothing; a misspelt name would go unnoticed otherwise.
    fn check_arguments(&mut self) {
        let is_declared = |name: &str| {
            let in_stages = self.dockerfile.stages.iter().flat_map(|stage| &stage.steps);
            let mut declared = in_stages.filter_map(|step| match &step.instruction {
                super::dockerfile::instruction::Instruction::Arg(arguments) => Some(arguments),
                _ => None,
            });
            let has = |arguments: &[super::dockerfile::instruction::Argument]| {
                arguments.iter().any(|argument| argument.name == name)
            };
            has(&self.dockerfile.arguments)
                || declared.any(|arguments| has(arguments))
                || stage::is_predefined(name)
        };
        let unused: Vec<&String> = self
            .request
            .arguments
            .keys()
            .filter(|name| !is_declared(name))
            .collect();
        for name in unused {
            (self.progress)(format!(
                "warning: no ARG {name} in the Dockerfile, its value is not used"
            ));
        }
    }
}

/// Why a step was not carried out.
#[derive(Debug)]
enum Failure {
    /// The Dockerfile asks for something wrong.
    Refused(String),
    /// The system or the store failed.
    Failed(ImageError),
}

impl From<String> for Failure {
    fn from(reason: String) -> Failure {
        Failure::Refused(reason)
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Failure {
        Failure::Failed(error)
    }
}

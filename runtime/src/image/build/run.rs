//! `RUN`: hands the command to the runner and shows its output line by line.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::Key;
use super::stage::Stage;
use super::step::command;
use super::{Builder, Failure, RunCommand, copy};
use crate::image::dockerfile::instruction::Run;
use crate::image::error::ImageError;
use crate::image::layer::attributes::Attributes;
use crate::image::layer::tree::Tree;
use crate::image::stack::End;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longer lines are shown in pieces.
const LINE: usize = 4096;

impl Builder<'_> {
    pub(super) fn run(&mut self, stage: &mut Stage, text: &str, run: &Run) -> Result<(), Failure> {
        for option in &run.ignored {
            (self.progress)(format!(
                "note: {option} has no effect, the folder is part of the layer"
            ));
        }
        let command = command(stage, &run.form);
        let mut environment = environment(stage);
        let mut key = Key::new("run", &stage.layers);
        key.fields(&command);
        key.fields(&environment);
        key.fields([&stage.config.working_dir, &stage.config.user]);
        let key = key.digest();
        if self.take_cached(stage, text, &key) {
            return Ok(());
        }

        environment.extend(self.proxies());
        let scratch = self.store.layout.scratch()?;
        let upper = scratch.path().join("upper");
        let work = scratch.path().join("work");
        for folder in [&upper, &work] {
            fs::create_dir(folder).map_err(ImageError::at("making", folder))?;
        }
        let layers = self.lower_folders(stage, scratch.path())?;
        self.repeat_root(stage, &upper)?;
        let mut lines = Lines::default();
        let progress = &mut *self.progress;
        let mut output = |bytes: &[u8]| lines.add(bytes, progress);
        let status = self.runner.run(&mut RunCommand {
            layers: &layers,
            upper: &upper,
            work: &work,
            command,
            environment,
            working_directory: Some(stage.config.working_dir.clone())
                .filter(|path| !path.is_empty())
                .unwrap_or("/".to_owned()),
            user: stage.config.user.clone(),
            output: &mut output,
        })?;
        lines.finish(self.progress);
        if status != 0 {
            let reason = format!("it ended with status {status}; its output is above");
            return Err(ImageError::Run { reason }.into());
        }
        Ok(self.commit(stage, text, &key, &scratch, &upper)?)
    }

    /// The layers, or an empty folder where there are none: an overlay needs one.
    fn lower_folders(&self, stage: &Stage, scratch: &Path) -> Result<Vec<PathBuf>, ImageError> {
        let layout = &self.store.layout;
        let folders: Vec<PathBuf> = stage
            .layers
            .iter()
            .map(|layer| layout.layer(&layer.diff))
            .collect();
        if !folders.is_empty() {
            return Ok(folders);
        }
        let empty = scratch.join("empty");
        fs::create_dir(&empty).map_err(ImageError::at("making", &empty))?;
        Ok(vec![empty])
    }

    /// The root of an overlay has the attributes of its upper folder.
    fn repeat_root(&self, stage: &Stage, upper: &Path) -> Result<(), ImageError> {
        let root = stage.files(self).find(Path::new(""), End::AsItIs)?;
        let attributes = root.as_ref().map(copy::kept).transpose()?;
        let mut tree = Tree::open(upper)?;
        tree.folder(Path::new(""), attributes.unwrap_or_else(Attributes::folder))?;
        tree.finish()
    }
}

/// Variables of the command: `ENV`, and `ARG`s that no `ENV` hides.
fn environment(stage: &Stage) -> Vec<String> {
    let mut environment = stage.config.env.clone();
    let is_set = |environment: &[String], name: &str| {
        let mut names = environment.iter().filter_map(|entry| entry.split_once('='));
        names.any(|(key, _)| key == name)
    };
    for (name, value) in &stage.arguments {
        if !is_set(&environment, name) {
            environment.push(format!("{name}={value}"));
        }
    }
    if !is_set(&environment, "PATH") {
        environment.push(PATH.to_owned());
    }
    environment
}

/// Cuts output into lines.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    fn add(&mut self, bytes: &[u8], progress: &mut dyn FnMut(String)) {
        for byte in bytes {
            match byte {
                b'\n' => self.tell(progress),
                byte => self.pending.push(*byte),
            }
            if self.pending.len() >= LINE {
                self.tell(progress);
            }
        }
    }

    fn finish(&mut self, progress: &mut dyn FnMut(String)) {
        if !self.pending.is_empty() {
            self.tell(progress);
        }
    }

    fn tell(&mut self, progress: &mut dyn FnMut(String)) {
        let line = String::from_utf8_lossy(&self.pending);
        progress(line.trim_end_matches('\r').to_owned());
        self.pending.clear();
    }
}

//! The build context: the files that `COPY` and `ADD` may take, and the Dockerfile among them.

use std::fs;
use std::io::Read;
use std::path::Path;

use super::Failure;
use super::ignore::Ignore;
use crate::image::compression::decompress;
use crate::image::dockerfile::Fault;
use crate::image::error::ImageError;
use crate::image::layer::entries;
use crate::image::layer::tree::Tree;
use crate::image::layer::unpack::{Purpose, unpack};
use crate::image::stack::Stack;

/// An unpacked context without the files that `.dockerignore` names.
pub(super) struct Context {
    pub(super) files: Stack,
    /// Path of the Dockerfile.
    file: String,
    /// Its content.
    pub(super) text: String,
    pub(super) ignore: Ignore,
}

impl Context {
    /// Unpacks a tar archive, plain or compressed, into a folder of `scratch`.
    pub(super) fn unpack(
        archive: &mut dyn Read,
        scratch: &Path,
        dockerfile: &str,
    ) -> Result<Context, ImageError> {
        let root = scratch.join("context");
        fs::create_dir(&root).map_err(ImageError::at("making", &root))?;
        let mut tree = Tree::open(&root)?;
        let mut plain = decompress(archive).map_err(ImageError::io("reading the build context"))?;
        unpack(
            &mut plain,
            &mut tree,
            Path::new(""),
            Purpose::Context,
            entries::LAYER,
        )?;
        tree.finish()?;

        let files = Stack::of_layers(std::slice::from_ref(&root));
        let file = if dockerfile.is_empty() {
            "Dockerfile"
        } else {
            dockerfile
        };
        let text = read(&files, file)?.ok_or_else(|| ImageError::Entry {
            path: file.to_owned(),
            reason: "no such file in the build context; name the Dockerfile, or write one"
                .to_owned(),
        })?;
        let ignore = match read(&files, &format!("{file}.dockerignore"))? {
            Some(rules) => rules,
            None => read(&files, ".dockerignore")?.unwrap_or_default(),
        };
        let ignore = Ignore::parse(&ignore);
        ignore.remove_from(&root)?;
        Ok(Context {
            files,
            file: file.to_owned(),
            text,
            ignore,
        })
    }

    /// The error for a line of the Dockerfile.
    pub(super) fn refuse(&self, fault: &Fault) -> ImageError {
        let text = self.text.lines().nth(fault.line.saturating_sub(1));
        ImageError::Dockerfile {
            file: self.file.clone(),
            line: fault.line,
            reason: fault.reason.clone(),
            text: text.unwrap_or_default().trim_end().to_owned(),
        }
    }

    /// The error for a step that was not carried out.
    pub(super) fn explain(&self, line: usize, step: &str, failure: Failure) -> ImageError {
        match failure {
            Failure::Refused(reason) => self.refuse(&Fault { line, reason }),
            Failure::Failed(source) => ImageError::Step {
                file: self.file.clone(),
                line,
                step: step.to_owned(),
                source: Box::new(source),
            },
        }
    }
}

fn read(files: &Stack, path: &str) -> Result<Option<String>, ImageError> {
    let bytes = files.read(path)?;
    bytes
        .map(String::from_utf8)
        .transpose()
        .map_err(|_| ImageError::entry(Path::new(path), "is not UTF-8 text"))
}

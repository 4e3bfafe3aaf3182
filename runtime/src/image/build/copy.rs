//! `COPY` and `ADD`: which files go where, and writing them into a layer.
//!
//! Planned first, written later: the plan's digest is the cache key, so a step that would give
//! the same layer again is not carried out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::cache::Key;
use super::glob::{self, Match};
use super::{Failure, context::Context};
use crate::image::compression::decompress;
use crate::image::digest::Hashing;
use crate::image::error::ImageError;
use crate::image::layer::attributes::Attributes;
use crate::image::layer::entries;
use crate::image::layer::path::clean;
use crate::image::layer::tree::Tree;
use crate::image::layer::unpack::{Purpose, unpack};
use crate::image::layer::whiteout;
use crate::image::stack::{End, Node, Stack};

/// Where files come from and how they arrive; all words are expanded.
pub(super) struct Order<'o> {
    /// The instruction, for messages.
    pub(super) keyword: &'static str,
    /// Unpack archives: `ADD`.
    pub(super) unpacks: bool,
    pub(super) files: &'o Stack,
    /// The context, where files come from there: its files belong to root.
    pub(super) context: Option<&'o Context>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    /// The image so far.
    pub(super) below: &'o Stack,
    /// Absolute.
    pub(super) destination: String,
}

/// One source.
pub(super) enum Wanted {
    Path(String),
    Inline { name: String, content: String },
}

/// What will be written: by path inside of the layer, so that folders come before their content.
pub(super) struct Plan<'o> {
    order: &'o Order<'o>,
    items: BTreeMap<PathBuf, Item>,
    archives: Vec<(PathBuf, PathBuf)>,
    newest: i64,
}

struct Item {
    content: Content,
    attributes: Attributes,
}

enum Content {
    Folder,
    File(PathBuf),
    Link(OsString),
    Inline(Vec<u8>),
}

impl<'o> Plan<'o> {
    pub(super) fn new(order: &'o Order<'o>, sources: Vec<Wanted>) -> Result<Plan<'o>, Failure> {
        let mut plan = Plan {
            order,
            items: BTreeMap::new(),
            archives: Vec::new(),
            newest: 0,
        };
        let (destination, existing) = order.below.locate(&absolute(&order.destination)?)?;
        let wants_folder = order.destination.ends_with('/') || order.destination.ends_with("/.");
        let is_folder = existing.as_ref().is_some_and(|node| node.metadata.is_dir());
        if existing.is_some() && !is_folder && wants_folder {
            return Err(format!("{} is not a folder in the image", order.destination).into());
        }
        let mut found = Vec::new();
        for source in sources {
            match source {
                Wanted::Inline { name, content } => found.push(Found::Inline(name, content)),
                Wanted::Path(path) => found.extend(
                    plan.matches(&path)?
                        .into_iter()
                        .map(Box::new)
                        .map(Found::Match),
                ),
            }
        }
        if found.len() > 1 && !wants_folder {
            return Err(format!(
                "{} of several files needs a destination that ends with /",
                order.keyword
            )
            .into());
        }
        for source in found {
            plan.add(source, &destination, wants_folder || is_folder)?;
        }
        plan.add_parents()?;
        Ok(plan)
    }

    /// Adds to a cache key all that the layer depends on. Times do not count, as for Docker.
    pub(super) fn describe(&self, key: &mut Key) -> Result<(), ImageError> {
        for (path, item) in &self.items {
            key.field(path.as_os_str().as_bytes());
            key.field(format!("{:o} {:?}", item.attributes.mode, item.attributes.owner).as_bytes());
            key.field(format!("{:?}", item.attributes.xattrs).as_bytes());
            match &item.content {
                Content::Folder => key.field(b"folder"),
                Content::Link(target) => key.fields([b"link", target.as_bytes()]),
                Content::Inline(bytes) => key.fields([b"file", bytes.as_slice()]),
                Content::File(file) => key.fields([b"file", hash(file)?.as_bytes()]),
            }
        }
        for (target, archive) in &self.archives {
            let owner = format!("{:?}", self.order.owner);
            key.fields([
                b"archive",
                target.as_os_str().as_bytes(),
                hash(archive)?.as_bytes(),
                owner.as_bytes(),
            ]);
        }
        Ok(())
    }

    /// Writes the layer's folder, which exists and is empty.
    pub(super) fn write(&self, folder: &Path) -> Result<(), ImageError> {
        let mut tree = Tree::open(folder)?;
        for (path, item) in &self.items {
            let attributes = &item.attributes;
            match &item.content {
                Content::Folder => tree.folder(path, attributes.clone())?,
                Content::Link(target) => tree.symlink(path, target, attributes)?,
                Content::Inline(bytes) => {
                    tree.file(path, &mut bytes.as_slice(), attributes)?;
                }
                Content::File(source) => {
                    let mut file = File::open(source).map_err(ImageError::at("opening", source))?;
                    tree.file(path, &mut file, attributes)?;
                }
            }
        }
        for (target, archive) in &self.archives {
            let file = File::open(archive).map_err(ImageError::at("opening", archive))?;
            let mut plain = decompress(file).map_err(ImageError::at("reading", archive))?;
            let owner = self.order.owner;
            unpack(
                &mut plain,
                &mut tree,
                target,
                Purpose::Add { owner },
                entries::LAYER,
            )?;
        }
        tree.finish()
    }

    fn matches(&self, path: &str) -> Result<Vec<Match>, Failure> {
        if path.split('/').any(|part| part == "..") {
            return Err(format!("{path} lies outside of the build context").into());
        }
        let found = glob::find(self.order.files, path)?;
        if !found.is_empty() {
            return Ok(found);
        }
        let keyword = self.order.keyword;
        let relative = path.trim_start_matches('/');
        let reason = match self.order.context {
            Some(context) if context.ignore.is_ignored(Path::new(relative)) => {
                format!("{keyword} {path}: .dockerignore leaves it out of the build context")
            }
            Some(_) => format!("{keyword} {path}: no such file in the build context"),
            None => format!("{keyword} {path}: no such file in the stage or image"),
        };
        Err(reason.into())
    }

    fn add(&mut self, source: Found, destination: &Path, into_folder: bool) -> Result<(), Failure> {
        match source {
            Found::Inline(name, content) => {
                let target = if into_folder {
                    destination.join(name)
                } else {
                    destination.to_owned()
                };
                let attributes = Attributes {
                    mode: self.order.mode.unwrap_or(0o644),
                    owner: self.owner(None),
                    ..Attributes::default()
                };
                self.insert(target, Content::Inline(content.into_bytes()), attributes)
            }
            Found::Match(found) if found.node.metadata.is_dir() => {
                self.folder(&found.node, destination)
            }
            Found::Match(found) if self.order.unpacks && is_archive(&found.node)? => {
                self.archives
                    .push((destination.to_owned(), found.node.file));
                self.ensure_folder(destination)
            }
            Found::Match(found) => {
                let target = if into_folder {
                    destination.join(&found.name)
                } else {
                    destination.to_owned()
                };
                self.node(&found.node, target)
            }
        }
    }

    /// The content of a folder, and the folder itself under its new name.
    fn folder(&mut self, source: &Node, destination: &Path) -> Result<(), Failure> {
        let mut pending = vec![(source.clone(), destination.to_owned())];
        while let Some((folder, target)) = pending.pop() {
            self.node(&folder, target.clone())?;
            for child in self.order.files.children(&folder)? {
                let target = target.join(child.path.file_name().unwrap_or_default());
                match child.metadata.is_dir() {
                    true => pending.push((child, target)),
                    false => self.node(&child, target)?,
                }
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, target: PathBuf) -> Result<(), Failure> {
        let metadata = &node.metadata;
        let failed = || ImageError::at("reading", &node.file);
        let mut attributes = Attributes::of_file(&node.file, metadata).map_err(failed())?;
        attributes.owner = self.owner(attributes.owner);
        self.newest = self.newest.max(attributes.modified);
        if let (Some(mode), false) = (self.order.mode, metadata.is_symlink()) {
            attributes.mode = mode;
        }
        let content = if metadata.is_dir() {
            Content::Folder
        } else if metadata.is_symlink() {
            Content::Link(
                fs::read_link(&node.file)
                    .map_err(failed())?
                    .into_os_string(),
            )
        } else if metadata.is_file() {
            Content::File(node.file.clone())
        } else {
            return Err(format!("{} is neither file, folder nor link", node.path.display()).into());
        };
        self.insert(target, content, attributes)
    }

    fn insert(
        &mut self,
        target: PathBuf,
        content: Content,
        attributes: Attributes,
    ) -> Result<(), Failure> {
        let is_folder = matches!(content, Content::Folder);
        let name = target.file_name().unwrap_or_default();
        if name.as_bytes().starts_with(whiteout::PREFIX) {
            return Err(format!(
                "{}: names that begin with '.wh.' mean deletion in images",
                target.display()
            )
            .into());
        }
        let (target, below) = self.place(&target, is_folder)?;
        let attributes = match below {
            Some(node) if node.metadata.is_dir() != is_folder => {
                let (is, wanted) = if is_folder {
                    ("no folder", "one")
                } else {
                    ("a folder", "a file")
                };
                let path = target.display();
                return Err(
                    format!("/{path} is {is} in the image and cannot become {wanted}").into(),
                );
            }
            // A folder that is there keeps what it has.
            Some(node) if is_folder => kept(&node)?,
            _ => attributes,
        };
        self.items.insert(
            target,
            Item {
                content,
                attributes,
            },
        );
        Ok(())
    }

    /// Where a file goes, and what the image has there. Folders merge with what a link leads to;
    /// files replace links.
    fn place(&self, target: &Path, is_folder: bool) -> Result<(PathBuf, Option<Node>), ImageError> {
        let below = self.order.below;
        match (target.parent(), target.file_name()) {
            (Some(parent), Some(name)) if !is_folder => {
                let target = below.locate(parent)?.0.join(name);
                let node = below.find(&target, End::AsItIs)?;
                Ok((target, node))
            }
            _ => below.locate(target),
        }
    }

    fn ensure_folder(&mut self, path: &Path) -> Result<(), Failure> {
        if self.items.contains_key(path) {
            return Ok(());
        }
        let attributes = Attributes {
            mode: 0o755,
            owner: self.owner(None),
            modified: self.newest,
            ..Attributes::default()
        };
        self.insert(path.to_owned(), Content::Folder, attributes)
    }

    /// Folders on the way to the files: as they are in the image, or new.
    fn add_parents(&mut self) -> Result<(), Failure> {
        let parents = self.items.keys().flat_map(|path| path.ancestors().skip(1));
        let parents: Vec<PathBuf> = parents.map(Path::to_owned).collect();
        for parent in parents {
            self.ensure_folder(&parent)?;
        }
        if !self.items.contains_key(Path::new("")) {
            self.ensure_folder(Path::new(""))?;
        }
        Ok(())
    }

    /// Files of the context belong to root; those of a stage to whom they belonged there.
    fn owner(&self, original: Option<(u32, u32)>) -> Option<(u32, u32)> {
        let original = original.filter(|_| self.order.context.is_none());
        Some(self.order.owner.or(original).unwrap_or((0, 0)))
    }
}

enum Found {
    Match(Box<Match>),
    Inline(String, String),
}

/// Attributes of a folder of the image that a higher layer repeats.
pub(super) fn kept(node: &Node) -> Result<Attributes, ImageError> {
    Attributes::of_file(&node.file, &node.metadata).map_err(ImageError::at("reading", &node.file))
}

/// A destination as a path of the image; `..` stops at the root.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    clean(parts.join("/").as_bytes()).map_err(|reason| format!("{text}: {reason}"))
}

fn hash(path: &Path) -> Result<String, ImageError> {
    let failed = || ImageError::at("reading", path);
    let mut reader = Hashing::new(File::open(path).map_err(failed())?);
    io::copy(&mut reader, &mut io::sink()).map_err(failed())?;
    Ok(reader.finish().1.hex().to_owned())
}

/// A tar archive begins with a header that says so (`ustar` at byte 257), compressed or not.
fn is_archive(node: &Node) -> Result<bool, Failure> {
    let failed = || ImageError::at("reading", &node.file);
    let file = File::open(&node.file).map_err(failed())?;
    let plain = match decompress(file) {
        Ok(plain) => plain,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            return Err(format!(
                "{}: {error}; unpack it yourself, or use COPY",
                node.path.display()
            )
            .into());
        }
        Err(error) => return Err(failed()(error).into()),
    };
    let mut begin = Vec::new();
    // A file that merely begins like a compressed one is an ordinary file.
    let read = plain.take(512).read_to_end(&mut begin);
    Ok(read.is_ok() && begin.len() == 512 && begin[257..].starts_with(b"ustar"))
}

//! Reads the merged view of layer folders, as an overlay mount of them would show it.
//!
//! `COPY` looks up destinations in the layers below and takes sources from other stages by it,
//! without mounting anything. A folder is the list of layers that contribute to it; symbolic
//! links resolve inside of the stack, whatever they say.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::error::ImageError;
use super::layer::whiteout;

/// Symbolic links followed on the way to one file, as the kernel's limit.
const LINKS: usize = 40;

/// Layer folders, highest first.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    layers: Vec<PathBuf>,
}

/// A file of the merged view.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Its path in the view, free of symbolic links except itself.
    pub(super) path: PathBuf,
    /// Where it is on disk; of a folder the highest.
    pub(super) file: PathBuf,
    pub(super) metadata: Metadata,
    /// For folders: where its content is, highest first.
    sources: Vec<PathBuf>,
}

impl Stack {
    /// Of layers with the lowest first, as images list them.
    pub(super) fn of_layers(layers: &[PathBuf]) -> Stack {
        Stack {
            layers: layers.iter().rev().cloned().collect(),
        }
    }

    /// The file at a path, following symbolic links on the way, and at its end where `follow`.
    pub(super) fn find(&self, path: &Path, end: End) -> Result<Option<Node>, ImageError> {
        let mut links = 0;
        self.walk(path, end, &mut links)
            .map_err(ImageError::at("looking up", path))
    }

    /// Where a path leads although its last parts may not exist: links are followed, the rest
    /// is appended as it is. With the folder that exists, if it is one.
    pub(super) fn locate(&self, path: &Path) -> Result<(PathBuf, Option<Node>), ImageError> {
        let mut missing = Vec::new();
        let mut present = path;
        loop {
            if let Some(node) = self.find(present, End::Followed)? {
                let full = missing
                    .iter()
                    .rev()
                    .fold(node.path.clone(), |path, part| path.join(part));
                return Ok((full, missing.is_empty().then_some(node)));
            }
            match (present.parent(), present.file_name()) {
                (Some(parent), Some(name)) => {
                    missing.push(name.to_owned());
                    present = parent;
                }
                // Not even a root: a stack without layers.
                _ => return Ok((path.to_owned(), None)),
            }
        }
    }

    /// The children of a folder by name.
    pub(super) fn children(&self, folder: &Node) -> Result<Vec<Node>, ImageError> {
        let mut names = BTreeSet::new();
        for source in &folder.sources {
            let entries = fs::read_dir(source).map_err(ImageError::at("listing", source))?;
            for entry in entries {
                let entry = entry.map_err(ImageError::at("listing", source))?;
                names.insert(entry.file_name());
            }
        }
        let mut children = Vec::new();
        for name in names {
            let child = child(folder, &name);
            children.extend(child.map_err(ImageError::at("listing", &folder.file))?);
        }
        Ok(children)
    }

    /// A whole small file, such as `/etc/passwd`.
    pub(super) fn read(&self, path: &str) -> Result<Option<Vec<u8>>, ImageError> {
        match self.find(Path::new(path), End::Followed)? {
            Some(node) if node.metadata.is_file() && node.metadata.len() < 4 << 20 => {
                fs::read(&node.file)
                    .map(Some)
                    .map_err(ImageError::at("reading", &node.file))
            }
            _ => Ok(None),
        }
    }

    fn root(&self) -> io::Result<Option<Node>> {
        let Some(highest) = self.layers.first() else {
            return Ok(None);
        };
        Ok(Some(Node {
            path: PathBuf::new(),
            file: highest.clone(),
            metadata: fs::symlink_metadata(highest)?,
            sources: self.layers.clone(),
        }))
    }

    fn walk(&self, path: &Path, end: End, links: &mut usize) -> io::Result<Option<Node>> {
        let Some(root) = self.root()? else {
            return Ok(None);
        };
        let mut above = vec![root];
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let name = match part {
                Component::Normal(name) => name,
                Component::ParentDir => {
                    if above.len() > 1 {
                        above.pop();
                    }
                    continue;
                }
                _ => continue,
            };
            let Some(folder) = above.last() else { break };
            let Some(node) = child(folder, name)? else {
                return Ok(None);
            };
            let is_last = parts.peek().is_none();
            if node.metadata.is_symlink() && !(is_last && end == End::AsItIs) {
                *links += 1;
                if *links > LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = folder.path.join(fs::read_link(&node.file)?);
                let rest: PathBuf = parts.collect();
                return self.walk(&target.join(rest), end, links);
            }
            if !node.metadata.is_dir() && !is_last {
                return Ok(None);
            }
            above.push(node);
        }
        Ok(above.pop())
    }
}

/// What becomes of a symbolic link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Followed,
    AsItIs,
}

/// One name of a folder, in the highest layer that has it.
fn child(folder: &Node, name: &OsStr) -> io::Result<Option<Node>> {
    let mut found: Option<Node> = None;
    for source in &folder.sources {
        let file = source.join(name);
        let metadata = match fs::symlink_metadata(&file) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if whiteout::is_whiteout(&file, &metadata) {
            break;
        }
        let is_folder = metadata.is_dir();
        match &mut found {
            Some(node) if is_folder => node.sources.push(file.clone()),
            Some(_) => break,
            None => {
                found = Some(Node {
                    path: folder.path.join(name),
                    file: file.clone(),
                    metadata,
                    sources: Vec::from_iter(is_folder.then(|| file.clone())),
                });
            }
        }
        if !is_folder || whiteout::is_opaque(&file) {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::image::layer::tree::Tree;

    struct Fixture {
        folder: tempfile::TempDir,
        stack: Stack,
    }

    /// Two layers: `low` is filled by the caller, `high` on top of it too.
    fn fixture(fill: impl FnOnce(&Path, &Path)) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let layers = [folder.path().join("low"), folder.path().join("high")];
        layers
            .iter()
            .for_each(|layer| fs::create_dir(layer).unwrap());
        fill(&layers[0], &layers[1]);
        Fixture {
            stack: Stack::of_layers(&layers),
            folder,
        }
    }

    fn exists(fixture: &Fixture, path: &str) -> bool {
        assert!(fixture.folder.path().exists());
        fixture
            .stack
            .find(Path::new(path), End::Followed)
            .unwrap()
            .is_some()
    }

    #[test]
    fn higher_layers_hide_delete_and_add() {
        let merged = fixture(|low, high| {
            fs::create_dir(low.join("etc")).unwrap();
            fs::write(low.join("etc/a"), "low").unwrap();
            fs::write(low.join("etc/b"), "low").unwrap();
            fs::create_dir(high.join("etc")).unwrap();
            fs::write(high.join("etc/a"), "high").unwrap();
            fs::write(high.join("etc/c"), "high").unwrap();
            Tree::open(high)
                .unwrap()
                .whiteout(Path::new("etc/b"))
                .unwrap();
        });

        assert_eq!(merged.stack.read("/etc/a").unwrap().unwrap(), b"high");
        assert!(!exists(&merged, "/etc/b"));
        let folder = merged
            .stack
            .find(Path::new("etc"), End::Followed)
            .unwrap()
            .unwrap();
        let names: Vec<PathBuf> = merged
            .stack
            .children(&folder)
            .unwrap()
            .into_iter()
            .map(|node| node.path)
            .collect();
        assert_eq!(names, [Path::new("etc/a"), Path::new("etc/c")]);
    }

    #[test]
    fn an_opaque_folder_shows_nothing_of_lower_layers() {
        let merged = fixture(|low, high| {
            fs::create_dir(low.join("etc")).unwrap();
            fs::write(low.join("etc/a"), "low").unwrap();
            fs::create_dir(high.join("etc")).unwrap();
            Tree::open(high).unwrap().opaque(Path::new("etc")).unwrap();
        });

        assert!(exists(&merged, "/etc"));
        assert!(!exists(&merged, "/etc/a"));
    }

    #[test]
    fn links_resolve_inside_of_the_stack() {
        let merged = fixture(|low, high| {
            fs::create_dir_all(low.join("usr/lib")).unwrap();
            fs::write(low.join("usr/lib/x"), "here").unwrap();
            symlink("/usr/lib", high.join("lib")).unwrap();
            symlink("../../../../usr", low.join("out")).unwrap();
            symlink("loop", low.join("loop")).unwrap();
        });

        assert_eq!(merged.stack.read("/lib/x").unwrap().unwrap(), b"here");
        assert_eq!(merged.stack.read("/out/lib/x").unwrap().unwrap(), b"here");
        assert!(merged.stack.find(Path::new("loop"), End::Followed).is_err());
        let (path, node) = merged.stack.locate(Path::new("/lib/new/file")).unwrap();
        assert_eq!(path, Path::new("usr/lib/new/file"));
        assert!(node.is_none());
    }
}

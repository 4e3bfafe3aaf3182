//! `.dockerignore`: which files of a build context are not part of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::glob::path_matches;
use crate::image::error::ImageError;

/// Rules in order; the last that matches decides.
pub(super) struct Ignore {
    rules: Vec<Rule>,
}

struct Rule {
    segments: Vec<String>,
    /// `!`: files are part of the context after all.
    is_exception: bool,
}

impl Ignore {
    pub(super) fn parse(text: &str) -> Ignore {
        let lines = text.lines().map(str::trim);
        let rules = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ignore {
            rules: rules.filter_map(rule).collect(),
        }
    }

    /// Whether a file is left out, by a rule for it or for a folder above it.
    pub(super) fn is_ignored(&self, path: &Path) -> bool {
        let mut ignored = false;
        for rule in &self.rules {
            let mut candidates = path.ancestors().filter(|part| !part.as_os_str().is_empty());
            if ignored == rule.is_exception
                && candidates.any(|part| path_matches(&rule.segments, part))
            {
                ignored = !rule.is_exception;
            }
        }
        ignored
    }

    /// Deletes the ignored files of a folder.
    pub(super) fn remove_from(&self, root: &Path) -> Result<(), ImageError> {
        if self.rules.is_empty() {
            return Ok(());
        }
        self.remove(root, Path::new(""))
            .map(|_| ())
            .map_err(ImageError::at("applying .dockerignore to", root))
    }

    /// Whether anything is left of the folder. The depth is bounded by that of paths.
    fn remove(&self, root: &Path, folder: &Path) -> io::Result<bool> {
        let mut is_left = false;
        for entry in fs::read_dir(root.join(folder))? {
            let entry = entry?;
            let path: PathBuf = folder.join(entry.file_name());
            let ignored = self.is_ignored(&path);
            if !entry.file_type()?.is_dir() {
                if ignored {
                    fs::remove_file(entry.path())?;
                }
                is_left |= !ignored;
                continue;
            }
            let has_files = self.remove(root, &path)?;
            if ignored && !has_files {
                fs::remove_dir(entry.path())?;
            }
            is_left |= has_files || !ignored;
        }
        Ok(is_left)
    }
}

fn rule(line: &str) -> Option<Rule> {
    let (is_exception, pattern) = match line.strip_prefix('!') {
        Some(pattern) => (true, pattern.trim()),
        None => (false, line),
    };
    let mut segments: Vec<String> = Vec::new();
    for segment in pattern.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment.to_owned()),
        }
    }
    (!segments.is_empty()).then_some(Rule {
        segments,
        is_exception,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_matches_decides() {
        let ignore = Ignore::parse(
            "# comment\n*.md\n!README.md\n/target/\n**/*.log\nsrc/gen\n!src/gen/keep\n",
        );
        let ignored = |path: &str| ignore.is_ignored(Path::new(path));
        assert!(ignored("NOTES.md"));
        assert!(!ignored("README.md"));
        assert!(!ignored("docs/NOTES.md"));
        assert!(ignored("target/debug/x"));
        assert!(ignored("a/b/c.log"));
        assert!(ignored("src/gen/x"));
        assert!(!ignored("src/gen/keep"));
        assert!(!ignored("src/main.rs"));
    }

    #[test]
    fn ignored_files_disappear_and_exceptions_keep_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        ["a/x", "a/keep", "b/x", "c"].into_iter().for_each(write);

        Ignore::parse("a\nb\n!a/keep")
            .remove_from(folder.path())
            .unwrap();

        let exists = |path: &str| folder.path().join(path).exists();
        assert!(exists("a/keep") && exists("c"));
        assert!(!exists("a/x") && !exists("b"));
    }
}

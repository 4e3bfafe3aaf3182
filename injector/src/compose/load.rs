//! From files on disk to one resolved tree: reading, variables, short forms, includes, extends, and merging.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::LoadOptions;
use super::document::{self, Node, Value};
use super::error::{ComposeError, Warning};
use super::interpolate::interpolate;
use super::merge::{merge, normalise_service};
use super::read;
use super::schema;

/// Looked for where no file is named, the first wins.
const DEFAULT_FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
/// Put on top of a default file where they exist.
const OVERRIDES: [&str; 2] = ["compose.override.yaml", "compose.override.yml"];
/// How deep files may include and extend each other.
const MAX_DEPTH: usize = 16;

/// The merged file, and the folder that relative paths are relative to.
pub(super) struct Loaded {
    pub(super) root: Node,
    pub(super) directory: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) warnings: Vec<Warning>,
}

/// Reads everything that the options name.
pub(super) fn load(options: &LoadOptions) -> Result<Loaded, ComposeError> {
    let files = files(options)?;
    let directory = files
        .first()
        .and_then(|file| file.parent())
        .unwrap_or(&options.working_directory)
        .to_owned();
    let mut environment = read_environment(&directory.join(".env"))?
        .into_iter()
        .collect::<BTreeMap<_, _>>();
    environment.extend(options.environment.clone());

    let mut reader = Reader {
        environment: &environment,
        warnings: Vec::new(),
    };
    let mut root: Option<Node> = None;
    for file in &files {
        let node = reader.read(file, 0)?;
        root = Some(match root {
            Some(base) => merge(base, node),
            None => node,
        });
    }
    let warnings = reader.warnings;
    let mut root = root.ok_or_else(|| ComposeError::new("no Compose file"))?;
    resolve_extends(&mut root, &environment, 0)?;
    Ok(Loaded {
        root,
        directory,
        environment,
        warnings,
    })
}

fn files(options: &LoadOptions) -> Result<Vec<PathBuf>, ComposeError> {
    if !options.files.is_empty() {
        return Ok(options
            .files
            .iter()
            .map(|file| options.working_directory.join(file))
            .collect());
    }
    let here =
        |name: &&str| Some(options.working_directory.join(name)).filter(|path| is_there(path));
    let first = DEFAULT_FILES.iter().find_map(here).ok_or_else(|| {
        ComposeError::new(format!(
            "there is no {} or {} in {}: go where it is, or name a file with -f",
            DEFAULT_FILES[..2].join(", "),
            DEFAULT_FILES[2],
            options.working_directory.display()
        ))
    })?;
    Ok(std::iter::once(first)
        .chain(OVERRIDES.iter().find_map(here))
        .collect())
}

/// A link that leads nowhere is there, too: reading it says what is wrong.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

struct Reader<'a> {
    environment: &'a BTreeMap<String, String>,
    warnings: Vec<Warning>,
}

impl Reader<'_> {
    /// One file with its variables filled in, its short forms written out, and what it includes below it.
    fn read(&mut self, file: &Path, depth: usize) -> Result<Node, ComposeError> {
        if depth > MAX_DEPTH {
            return Err(ComposeError::new(format!(
                "{} is included by itself",
                file.display()
            )));
        }
        let mut root = document::read(file)?;
        interpolate(&mut root, self.environment, &mut self.warnings)?;
        schema::check(&root, "the file", schema::FILE, &mut self.warnings)?;
        each_service(&mut root, normalise_service)?;
        let directory = file.parent().unwrap_or(Path::new("."));
        for included in includes(&root)? {
            let mut below = self.read(&directory.join(&included), depth + 1)?;
            let folder = Path::new(&included).parent().unwrap_or(Path::new(""));
            rebase(&mut below, folder);
            root = merge(below, root);
        }
        Ok(root)
    }
}

fn each_service(
    root: &mut Node,
    mut change: impl FnMut(&mut Node) -> Result<(), ComposeError>,
) -> Result<(), ComposeError> {
    let Value::Mapping(entries) = &mut root.value else {
        return Ok(());
    };
    let services = entries.iter_mut().filter(|(key, _)| key.name == "services");
    for (_, services) in services {
        if let Value::Mapping(services) = &mut services.value {
            services
                .iter_mut()
                .try_for_each(|(_, service)| change(service))?;
        }
    }
    Ok(())
}

/// The paths that a file includes.
fn includes(root: &Node) -> Result<Vec<String>, ComposeError> {
    let Some(node) = root.get("include") else {
        return Ok(Vec::new());
    };
    let mut paths = Vec::new();
    for item in read::list(node, "include")? {
        match item.value {
            Value::Mapping(_) => {
                schema::check(item, "include", schema::INCLUDE, &mut Vec::new())?;
                let path = item
                    .get("path")
                    .ok_or_else(|| ComposeError::at(&item.at, "include has no path"))?;
                paths.extend(read::text_or_texts(path, "include.path")?);
            }
            _ => paths.push(read::text(item, "include")?),
        }
    }
    Ok(paths)
}

/// Relative paths of an included file are relative to it.
fn rebase(root: &mut Node, folder: &Path) {
    let moved = |text: &mut String| *text = folder.join(&*text).display().to_string();
    let _ = each_service(root, |service| {
        if let Value::Mapping(entries) = &mut service.value {
            for (key, node) in entries {
                match (key.name.as_str(), &mut node.value) {
                    ("build", Value::Mapping(build)) => {
                        for (key, node) in build {
                            if let ("context", Value::Scalar { text, .. }) =
                                (key.name.as_str(), &mut node.value)
                            {
                                moved(text);
                            }
                        }
                    }
                    ("env_file", Value::Sequence(items)) => {
                        for item in items {
                            if let Value::Scalar { text, .. } = &mut item.value {
                                moved(text);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    });
}

/// Puts every service that extends another on top of it.
fn resolve_extends(
    root: &mut Node,
    environment: &BTreeMap<String, String>,
    depth: usize,
) -> Result<(), ComposeError> {
    let snapshot = root.clone();
    each_service(root, |service| {
        extend(service, &snapshot, environment, depth)
    })
}

fn extend(
    service: &mut Node,
    root: &Node,
    environment: &BTreeMap<String, String>,
    depth: usize,
) -> Result<(), ComposeError> {
    let Some(extends) = service.get("extends").cloned() else {
        return Ok(());
    };
    if depth > MAX_DEPTH {
        return Err(ComposeError::at(&extends.at, "a service extends itself"));
    }
    schema::check(&extends, "extends", schema::EXTENDS, &mut Vec::new())?;
    let name = extends
        .get("service")
        .ok_or_else(|| ComposeError::at(&extends.at, "extends names no service"))?;
    let name_text = read::text(name, "extends.service")?;
    let other = match extends.get("file") {
        Some(file) => {
            let folder = extends
                .at
                .source
                .path
                .parent()
                .unwrap_or(Path::new("."))
                .to_owned();
            let mut reader = Reader {
                environment,
                warnings: Vec::new(),
            };
            Some(reader.read(&folder.join(read::text(file, "extends.file")?), depth + 1)?)
        }
        None => None,
    };
    let root = other.as_ref().unwrap_or(root);
    let services = root.get("services");
    let mut base = services
        .and_then(|services| services.get(&name_text))
        .cloned()
        .ok_or_else(|| {
            ComposeError::at(
                &name.at,
                format!("there is no service {name_text:?} to extend"),
            )
        })?;
    extend(&mut base, root, environment, depth + 1)?;
    if let Value::Mapping(entries) = &mut base.value {
        // Dependencies are not inherited: the other file's services are not there.
        entries.retain(|(key, _)| !matches!(key.name.as_str(), "extends" | "depends_on"));
    }
    let mut own = service.clone();
    if let Value::Mapping(entries) = &mut own.value {
        entries.retain(|(key, _)| key.name != "extends");
    }
    *service = merge(base, own);
    Ok(())
}

/// `NAME=value` lines; comments, blank lines, `export` and quotes are understood. A file that does not exist is empty.
pub(super) fn read_environment(path: &Path) -> Result<Vec<(String, String)>, ComposeError> {
    let text = match std::fs::read(path) {
        Ok(bytes) => document::utf8(path, bytes)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(ComposeError::new(format!(
                "reading {}: {error}",
                path.display()
            )));
        }
    };
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(ComposeError::new(format!(
                "{}:{}: {line:?} is not NAME=value",
                path.display(),
                index + 1
            )));
        }
        let value = unquote(value.trim()).ok_or_else(|| {
            ComposeError::new(format!(
                "{}:{}: the quote of {name} is not closed",
                path.display(),
                index + 1
            ))
        })?;
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// The value between quotes, or up to a comment; nothing where a quote is not closed.
fn unquote(value: &str) -> Option<String> {
    for quote in ['"', '\''] {
        if let Some(inside) = value.strip_prefix(quote) {
            let end = inside.rfind(quote)?;
            return Some(match quote {
                '"' => inside[..end]
                    .replace("\\n", "\n")
                    .replace("\\\"", "\"")
                    .replace("\\\\", "\\"),
                _ => inside[..end].to_owned(),
            });
        }
    }
    let end = value.find(" #").unwrap_or(value.len());
    Some(value[..end].trim_end().to_owned())
}

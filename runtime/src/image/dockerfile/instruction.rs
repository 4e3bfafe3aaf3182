//! The instructions of a Dockerfile and their arguments.

use std::time::Duration;

use super::lines::Line;
use super::options::{self, nearest};
use super::words;
use crate::image::config::Healthcheck;

const KNOWN: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Words that may hold variables are as written; `words::expand` takes them further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instruction {
    Arg(Vec<Argument>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Copy(Copy),
    Run(Run),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Entrypoint(Form),
    Cmd(Form),
    Shell(Vec<String>),
    StopSignal(String),
    Healthcheck(Healthcheck),
    Maintainer(String),
}

/// `ARG NAME[=default]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) name: String,
    pub(crate) default: Option<String>,
}

/// A command line for a shell, or a program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    Shell(String),
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) form: Form,
    /// Options that only make a build faster and were left out.
    pub(crate) ignored: Vec<String>,
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) kind: CopyKind,
    pub(crate) sources: Vec<Source>,
    pub(crate) destination: String,
    pub(crate) from: Option<String>,
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyKind {
    Copy,
    /// Unpacks archives.
    Add,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Possibly with wildcards.
    Path(String),
    /// A here-document.
    Inline {
        name: String,
        content: String,
        expand: bool,
    },
}

impl Instruction {
    /// Parses anything but `FROM`.
    pub(crate) fn parse(line: Line, escape: char) -> Result<Instruction, String> {
        let rest = line.rest.as_str();
        let is_optional = matches!(line.keyword.as_str(), "CMD" | "ENTRYPOINT");
        if rest.is_empty() && KNOWN.contains(&line.keyword.as_str()) && !is_optional {
            return Err(format!("{} needs an argument", line.keyword));
        }
        Ok(match line.keyword.as_str() {
            "ARG" => Instruction::Arg(arguments(rest, escape)?),
            "ENV" => Instruction::Env(pairs("ENV", rest, escape)?),
            "LABEL" => Instruction::Label(pairs("LABEL", rest, escape)?),
            "COPY" => Instruction::Copy(copy(&line, CopyKind::Copy, escape)?),
            "ADD" => Instruction::Copy(copy(&line, CopyKind::Add, escape)?),
            "RUN" => Instruction::Run(run(&line)?),
            "WORKDIR" => Instruction::Workdir(rest.to_owned()),
            "USER" => Instruction::User(rest.to_owned()),
            "EXPOSE" => Instruction::Expose(words::split(rest, escape)),
            "VOLUME" => {
                Instruction::Volume(json(rest)?.unwrap_or_else(|| words::split(rest, escape)))
            }
            "ENTRYPOINT" => Instruction::Entrypoint(form(rest)?),
            "CMD" => Instruction::Cmd(form(rest)?),
            "SHELL" => match json(rest)? {
                Some(shell) if !shell.is_empty() => Instruction::Shell(shell),
                _ => {
                    return Err(
                        "SHELL needs a JSON array, such as [\"/bin/bash\", \"-c\"]".to_owned()
                    );
                }
            },
            "STOPSIGNAL" => Instruction::StopSignal(rest.to_owned()),
            "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(rest)?),
            "MAINTAINER" => Instruction::Maintainer(rest.to_owned()),
            "ONBUILD" => return Err(
                "ONBUILD is not supported: write the instruction into the Dockerfiles that need it"
                    .to_owned(),
            ),
            other => return Err(unknown(other)),
        })
    }
}

fn unknown(word: &str) -> String {
    match nearest(word, &KNOWN) {
        Some(near) => format!("unknown instruction {word}; did you mean {near}?"),
        None => format!("unknown instruction {word}; there are {}", KNOWN.join(", ")),
    }
}

/// A JSON array of strings; None where the text is something else, as Docker decides it.
fn json(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Err(_) => Ok(None),
        Ok(values) => {
            let strings = values.into_iter().map(|value| match value {
                serde_json::Value::String(text) => Ok(text),
                other => Err(format!("the JSON form takes only strings, not {other}")),
            });
            strings.collect::<Result<_, _>>().map(Some)
        }
    }
}

fn form(text: &str) -> Result<Form, String> {
    Ok(match json(text)? {
        Some(words) => Form::Exec(words),
        None => Form::Shell(text.to_owned()),
    })
}

fn arguments(rest: &str, escape: char) -> Result<Vec<Argument>, String> {
    let parse = |word: String| {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (word.as_str(), None),
        };
        Ok(Argument {
            name: variable_name("ARG", name)?,
            default,
        })
    };
    words::split(rest, escape).into_iter().map(parse).collect()
}

fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let found = words::split(rest, escape);
    let is_old = found.first().is_some_and(|first| !first.contains('='));
    if is_old {
        let (name, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{keyword} needs NAME=VALUE"))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let parse = |word: String| match word.split_once('=') {
        Some(("", _)) | None => Err(format!(
            "{word:?} is not NAME=VALUE; a value with spaces needs quotation marks"
        )),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
    };
    found.into_iter().map(parse).collect()
}

fn variable_name(keyword: &str, name: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(format!(
            "{keyword} {name:?}: names have letters, digits and '_'"
        ));
    }
    Ok(name.to_owned())
}

fn run(line: &Line) -> Result<Run, String> {
    let (flags, rest) = options::split(&line.rest)?;
    let mut ignored = Vec::new();
    for flag in flags {
        let is_cache = flag.value.split(',').any(|part| part == "type=cache");
        match (flag.name, flag.value) {
            ("mount", value) if is_cache => ignored.push(format!("--mount={value}")),
            ("mount", value) => {
                return Err(format!(
                    "RUN --mount={value} is not supported, only type=cache is (and has no effect); COPY what the command needs"
                ));
            }
            ("network", "default") => {}
            ("network", _) => {
                return Err(
                    "RUN --network is not supported: commands run with the network of builds"
                        .to_owned(),
                );
            }
            _ => return Err(flag.unknown("RUN", &["mount", "network"])),
        }
    }
    let form = match line.documents.as_slice() {
        [] => form(rest)?,
        [only] if is_only_opening(rest) && only.content.starts_with("#!") => {
            return Err("a here-document with its own interpreter (#!) is not supported; COPY the script and run it".to_owned());
        }
        [only] if is_only_opening(rest) => Form::Shell(only.content.clone()),
        documents => {
            let mut script = rest.to_owned();
            for document in documents {
                script.push('\n');
                script.push_str(&document.content);
                script.push_str(&document.name);
            }
            Form::Shell(script)
        }
    };
    Ok(Run { form, ignored })
}

fn is_only_opening(rest: &str) -> bool {
    rest.starts_with("<<") && !rest.contains(char::is_whitespace)
}

fn copy(line: &Line, kind: CopyKind, escape: char) -> Result<Copy, String> {
    let keyword = line.keyword.as_str();
    let (flags, rest) = options::split(&line.rest)?;
    let (mut from, mut chown, mut chmod) = (None, None, None);
    for flag in flags {
        let value = Some(flag.value.to_owned());
        match flag.name {
            "from" if kind == CopyKind::Copy => from = value,
            "chown" => chown = value,
            "chmod" => chmod = value,
            // Layers are independent of those below anyway where nothing of them is followed.
            "link" => {}
            _ => return Err(flag.unknown(keyword, &["from", "chown", "chmod", "link"])),
        }
    }
    let mut paths = json(rest)?.unwrap_or_else(|| words::split(rest, escape));
    let destination = paths.pop().unwrap_or_default();
    if paths.is_empty() {
        return Err(format!(
            "{keyword} needs at least one source and a destination"
        ));
    }
    let mut documents = line.documents.iter();
    let mut sources = Vec::new();
    for path in paths {
        if kind == CopyKind::Add && is_remote(&path) {
            return Err(format!(
                "ADD {path}: remote sources are not fetched; download it into the build context, or with RUN"
            ));
        }
        sources.push(match documents.as_slice() {
            [document, ..] if path.starts_with("<<") => {
                documents.next();
                Source::Inline {
                    name: document.name.clone(),
                    content: document.content.clone(),
                    expand: document.expand,
                }
            }
            _ => Source::Path(path),
        });
    }
    Ok(Copy {
        kind,
        sources,
        destination,
        from,
        chown,
        chmod,
    })
}

fn is_remote(path: &str) -> bool {
    path.contains("://") || path.starts_with("git@")
}

fn healthcheck(rest: &str) -> Result<Healthcheck, String> {
    let (flags, rest) = options::split(rest)?;
    let mut check = Healthcheck::default();
    for flag in flags {
        let name = flag.name;
        let duration = || {
            nanoseconds(flag.value).ok_or_else(|| {
                format!("--{name}={}: expected a duration such as 1m30s", flag.value)
            })
        };
        match name {
            "interval" => check.interval = duration()?,
            "timeout" => check.timeout = duration()?,
            "start-period" => check.start_period = duration()?,
            "start-interval" => check.start_interval = duration()?,
            "retries" => {
                check.retries = flag
                    .value
                    .parse()
                    .map_err(|_| format!("--retries={}: expected a number", flag.value))?
            }
            _ => {
                return Err(flag.unknown(
                    "HEALTHCHECK",
                    &[
                        "interval",
                        "timeout",
                        "start-period",
                        "start-interval",
                        "retries",
                    ],
                ));
            }
        }
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match (kind.to_uppercase().as_str(), command.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("CMD", command) if !command.is_empty() => match form(command)? {
            Form::Shell(script) => vec!["CMD-SHELL".to_owned(), script],
            Form::Exec(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
        },
        _ => {
            return Err(
                "expected HEALTHCHECK [options] CMD COMMAND, or HEALTHCHECK NONE".to_owned(),
            );
        }
    };
    Ok(check)
}

/// Go's durations: `1h2m3.5s`, `500ms`.
fn nanoseconds(text: &str) -> Option<u64> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(end);
        let end = unit
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(unit.len());
        let (unit, behind) = unit.split_at(end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = behind;
    }
    u64::try_from(total.as_nanos()).ok()
}

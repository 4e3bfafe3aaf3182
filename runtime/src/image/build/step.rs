//! Carries out the instructions of a stage.
//!
//! Longer than most modules: one place where each instruction is seen to have its effect.

use std::path::Path;

use super::cache::Key;
use super::copy::{self, Order, Plan, Wanted};
use super::owner::owner;
use super::stage::Stage;
use super::{Builder, Failure};
use crate::image::dockerfile::Step;
use crate::image::dockerfile::instruction::{Argument, Copy, CopyKind, Form, Instruction, Source};
use crate::image::dockerfile::words;
use crate::image::import::LAYERS;
use crate::image::layer::attributes::Attributes;
use crate::image::layer::tree::Tree;
use crate::image::stack::{End, Stack};

/// What a program can be given in all (execve(2)); labels have no reason to be larger.
const SETTINGS_BYTES: usize = 2 << 20;

impl Builder<'_> {
    /// Carries out one instruction of the stage with this number.
    pub(super) fn apply(
        &mut self,
        stage: &mut Stage,
        step: &Step,
        index: usize,
    ) -> Result<(), Failure> {
        let text = step.text.as_str();
        if stage.layers.len() >= LAYERS {
            return Err(format!("an image has at most {LAYERS} layers").into());
        }
        match &step.instruction {
            Instruction::Run(run) => return self.run(stage, text, run),
            Instruction::Copy(copy) => return self.copy(stage, text, copy, index),
            Instruction::Workdir(path) => return self.workdir(stage, text, path),
            Instruction::Arg(arguments) => self.declare(stage, arguments)?,
            Instruction::Env(pairs) => {
                for (name, value) in self.expand_pairs(stage, pairs)? {
                    stage.config.set_env(&name, &value);
                }
            }
            Instruction::Label(pairs) => {
                let pairs = self.expand_pairs(stage, pairs)?;
                stage.config.labels.extend(pairs);
            }
            Instruction::User(user) => stage.config.user = self.expand(stage, user)?,
            Instruction::Expose(ports) => self.expose(stage, ports)?,
            Instruction::Volume(paths) => {
                for path in paths {
                    let path = self.expand(stage, path)?;
                    insert_sorted(&mut stage.config.volumes, path);
                }
            }
            Instruction::Entrypoint(form) => {
                stage.config.entrypoint = command(stage, form);
                if !stage.has_own_command {
                    stage.config.cmd.clear();
                }
            }
            Instruction::Cmd(form) => {
                stage.config.cmd = command(stage, form);
                stage.has_own_command = true;
            }
            Instruction::Shell(shell) => stage.config.shell.clone_from(shell),
            Instruction::StopSignal(signal) => {
                stage.config.stop_signal = self.expand(stage, signal)?
            }
            Instruction::Healthcheck(check) => stage.config.healthcheck = Some(check.clone()),
            Instruction::Maintainer(name) => stage.author = Some(name.clone()),
        }
        if stage.settings_bytes() > SETTINGS_BYTES {
            return Err("variables and labels take more than 2 MiB"
                .to_owned()
                .into());
        }
        stage.record(text, None);
        Ok(())
    }

    fn expand(&self, stage: &Stage, text: &str) -> Result<String, String> {
        words::expand(text, self.dockerfile.escape, &|name| stage.variable(name))
    }

    /// All values are as before the instruction, as Docker has it.
    fn expand_pairs(
        &self,
        stage: &Stage,
        pairs: &[(String, String)],
    ) -> Result<Vec<(String, String)>, String> {
        let expand = |text| self.expand(stage, text);
        pairs
            .iter()
            .map(|(name, value)| Ok((expand(name)?, expand(value)?)))
            .collect()
    }

    fn declare(&self, stage: &mut Stage, arguments: &[Argument]) -> Result<(), String> {
        for Argument { name, default } in arguments {
            let default = default
                .as_ref()
                .map(|text| self.expand(stage, text))
                .transpose()?;
            let given = self.request.arguments.get(name).cloned();
            let value = given.or(default).or(self.globals()?.remove(name));
            if let Some(value) = value {
                stage.arguments.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    fn expose(&self, stage: &mut Stage, ports: &[String]) -> Result<(), String> {
        for word in ports {
            let word = self.expand(stage, word)?;
            let ports = exposed(&word)
                .ok_or_else(|| format!("EXPOSE {word}: expected PORT[/tcp|udp] or FIRST-LAST"))?;
            stage.config.exposed_ports.extend(ports);
        }
        stage.config.exposed_ports.sort();
        stage.config.exposed_ports.dedup();
        Ok(())
    }

    fn workdir(&mut self, stage: &mut Stage, text: &str, path: &str) -> Result<(), Failure> {
        let path = seen_from(&stage.config.working_dir, &self.expand(stage, path)?);
        let relative = copy::absolute(&path)?;
        let absolute = Path::new("/").join(&relative);
        stage.config.working_dir = absolute.to_string_lossy().into_owned();
        let files = stage.files(self);
        let (resolved, existing) = files.locate(&relative)?;
        match existing {
            Some(node) if node.metadata.is_dir() => {
                stage.record(text, None);
                return Ok(());
            }
            Some(_) => return Err(format!("{} is not a folder", absolute.display()).into()),
            None => {}
        }
        let mut key = Key::new("workdir", &stage.layers);
        key.field(resolved.as_os_str().as_encoded_bytes());
        self.layer(stage, text, key, |folder| {
            let mut tree = Tree::open(folder)?;
            for part in resolved.ancestors() {
                let node = files.find(part, End::AsItIs)?;
                let fresh = Attributes {
                    owner: Some((0, 0)),
                    ..Attributes::folder()
                };
                let attributes = node.as_ref().map(copy::kept).transpose()?.unwrap_or(fresh);
                tree.folder(part, attributes)?;
            }
            tree.finish()
        })
    }

    fn copy(
        &mut self,
        stage: &mut Stage,
        text: &str,
        copy: &Copy,
        index: usize,
    ) -> Result<(), Failure> {
        let below = stage.files(self);
        let expand =
            |text: &str| words::expand(text, self.dockerfile.escape, &|name| stage.variable(name));
        let from = copy.from.as_deref().map(expand).transpose()?;
        let chown = copy.chown.as_deref().map(expand).transpose()?;
        let mode = copy.chmod.as_deref().map(expand).transpose()?;
        let destination = seen_from(&stage.config.working_dir, &expand(&copy.destination)?);
        let mut sources = Vec::new();
        for source in &copy.sources {
            sources.push(match source {
                Source::Path(path) => Wanted::Path(expand(path)?),
                Source::Inline {
                    name,
                    content,
                    expand: false,
                } => Wanted::Inline {
                    name: name.clone(),
                    content: content.clone(),
                },
                Source::Inline {
                    name,
                    content,
                    expand: true,
                } => Wanted::Inline {
                    name: name.clone(),
                    content: expand_document(content, self.dockerfile.escape, &|name| {
                        stage.variable(name)
                    })?,
                },
            });
        }
        let files = match &from {
            Some(from) => self.source(from, index)?,
            None => self.context.files.clone(),
        };
        let order = Order {
            keyword: if copy.kind == CopyKind::Add {
                "ADD"
            } else {
                "COPY"
            },
            unpacks: copy.kind == CopyKind::Add,
            files: &files,
            context: from.is_none().then_some(self.context),
            owner: chown.map(|chown| owner(&below, &chown)).transpose()?,
            mode: mode.map(|mode| octal(&mode)).transpose()?,
            below: &below,
            destination,
        };
        let plan = Plan::new(&order, sources)?;
        let mut key = Key::new("copy", &stage.layers);
        plan.describe(&mut key)?;
        self.layer(stage, text, key, |folder| plan.write(folder))
    }

    /// The files of an earlier stage, by name or number, or of an image.
    fn source(&mut self, from: &str, index: usize) -> Result<Stack, Failure> {
        let number = from.parse().ok();
        let stage = self.dockerfile.stage(from).or(number);
        match stage {
            Some(stage) if stage < index => {
                let stage = self.stage(stage)?;
                Ok(stage.files(self))
            }
            Some(_) => Err(format!("--from={from}: not a stage before this one").into()),
            None => Ok(Stack::of_layers(&self.store.find(from)?.layers)),
        }
    }
}

/// Program and arguments of a form; the shell form runs in the stage's shell.
pub(super) fn command(stage: &Stage, form: &Form) -> Vec<String> {
    match form {
        Form::Exec(words) => words.clone(),
        Form::Shell(script) if script.is_empty() => Vec::new(),
        Form::Shell(script) => {
            let default = ["/bin/sh", "-c"].map(str::to_owned);
            let shell = match stage.config.shell.as_slice() {
                [] => &default,
                shell => shell,
            };
            shell.iter().chain([script]).cloned().collect()
        }
    }
}

/// A path as seen from the working directory.
fn seen_from(working_directory: &str, path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{working_directory}/{path}"),
    }
}

fn insert_sorted(list: &mut Vec<String>, item: String) {
    if let Err(at) = list.binary_search(&item) {
        list.insert(at, item);
    }
}

/// `80`, `80/udp`, `8000-8010/tcp` as the image configuration lists them.
fn exposed(word: &str) -> Option<Vec<String>> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then(|| {
        (first..=last)
            .map(|port| format!("{port}/{protocol}"))
            .collect()
    })
}

fn octal(mode: &str) -> Result<u32, String> {
    match u32::from_str_radix(mode, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(format!(
            "--chmod={mode}: expected an octal mode such as 755"
        )),
    }
}

/// Variables of a here-document; quotation marks are text there.
fn expand_document(
    content: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let quoted: String = content
        .chars()
        .flat_map(|c| match c {
            '"' | '\'' => [Some(escape), Some(c)],
            c => [Some(c), None],
        })
        .flatten()
        .collect();
    words::expand(&quoted, escape, lookup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_ports_have_a_protocol_and_ranges_are_taken_apart() {
        assert_eq!(exposed("80").unwrap(), ["80/tcp"]);
        assert_eq!(
            exposed("80-82/udp").unwrap(),
            ["80/udp", "81/udp", "82/udp"]
        );
        for word in ["", "0", "80/http", "9-8", "70000", "a"] {
            assert_eq!(exposed(word), None, "{word}");
        }
    }

    #[test]
    fn here_documents_keep_their_quotation_marks() {
        let lookup = |name: &str| (name == "x").then(|| "X".to_owned());
        let expanded = expand_document("say \"$x\" it's \\$x\n", '\\', &lookup);
        assert_eq!(expanded.unwrap(), "say \"X\" it's $x\n");
    }
}

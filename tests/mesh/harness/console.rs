//! Console sessions in documents: what a reader is told to type, and what is shown to come back.
//!
//! In a block fenced as `console`, a line `$ …` is a command, `> …` its next line, and everything else what it prints.
//! Printed lines must come in that order; others may stand between them. `…` stands for anything, and any blanks for
//! any others.

/// A command of a document, with the lines that it must print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) command: String,
    pub(crate) expected: Vec<String>,
}

/// The commands of a document, in order.
pub(crate) fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_inside = false;
    for line in document.lines() {
        if line.starts_with("```") {
            is_inside = !is_inside && line.trim() == "```console";
        } else if !is_inside {
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.to_owned(),
                expected: Vec::new(),
            });
        } else if let Some(step) = steps.last_mut() {
            match line.strip_prefix("> ").or((line == ">").then_some("")) {
                Some(more) if step.expected.is_empty() => {
                    step.command.push_str(&format!("\n{more}"))
                }
                _ if line.trim().is_empty() => {}
                _ => step.expected.push(line.to_owned()),
            }
        }
    }
    steps
}

/// The first expected line that is not among the printed ones, in order.
pub(crate) fn missing<'a>(step: &'a Step, printed: &str) -> Option<&'a str> {
    let mut lines = printed.lines();
    step.expected
        .iter()
        .find(|expected| !lines.by_ref().any(|line| matches(expected, line)))
        .map(String::as_str)
}

/// Whether a line is as shown, but for blanks and for what `…` stands for.
fn matches(shown: &str, line: &str) -> bool {
    let line = single_blanks(line);
    let shown = single_blanks(shown);
    let parts: Vec<&str> = shown.split('…').map(str::trim).collect();
    let [first, middle @ .., last] = &parts[..] else {
        return line == shown;
    };
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    for part in middle {
        match rest.find(part) {
            Some(found) => rest = &rest[found + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn single_blanks(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

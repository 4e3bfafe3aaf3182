//! Joins the lines of a Dockerfile into instructions.

use super::Fault;

/// Directives, continuations and here-documents are resolved; arguments are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// One-based line of the instruction's first word.
    pub(crate) number: usize,
    /// Upper case.
    pub(crate) keyword: String,
    pub(crate) rest: String,
    pub(crate) documents: Vec<HereDocument>,
}

/// Text between `<<NAME` and a line `NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HereDocument {
    pub(crate) name: String,
    pub(crate) content: String,
    /// Variables in it are expanded: the name was not quoted.
    pub(crate) expand: bool,
}

impl Line {
    /// In one line, for people.
    pub(crate) fn summary(&self) -> String {
        let rest: Vec<&str> = self.rest.split_whitespace().collect();
        format!("{} {}", self.keyword, rest.join(" "))
            .trim_end()
            .to_owned()
    }
}

/// The escape character, and the instructions.
pub(crate) fn lines(source: &str) -> Result<(char, Vec<Line>), Fault> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let escape = escape_directive(source)?;
    let mut reader = Reader {
        lines: source.lines().enumerate(),
        escape,
    };
    let mut found = Vec::new();
    while let Some(line) = reader.next_line()? {
        found.push(line);
    }
    Ok((escape, found))
}

struct Reader<'s> {
    lines: std::iter::Enumerate<std::str::Lines<'s>>,
    escape: char,
}

impl Reader<'_> {
    fn next_line(&mut self) -> Result<Option<Line>, Fault> {
        let Some((number, text)) = self.logical_line() else {
            return Ok(None);
        };
        let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
        let keyword = keyword.to_uppercase();
        let mut documents = Vec::new();
        if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
            for opening in openings(rest) {
                documents.push(self.here_document(opening, number)?);
            }
        }
        Ok(Some(Line {
            number,
            rest: rest.trim().to_owned(),
            keyword,
            documents,
        }))
    }

    fn logical_line(&mut self) -> Option<(usize, String)> {
        let (first, mut text) = loop {
            let (index, line) = self.lines.next()?;
            if !is_comment_or_blank(line) {
                break (index + 1, line.trim_start().to_owned());
            }
        };
        while let Some(joined) = self.continued(&text) {
            text = joined;
            // Comments and empty lines inside of an instruction are skipped, as Docker does.
            let Some((_, line)) = self
                .lines
                .by_ref()
                .find(|(_, line)| !is_comment_or_blank(line))
            else {
                break;
            };
            text.push_str(line);
        }
        Some((first, text.trim_end().to_owned()))
    }

    /// The line without its continuation character, where it has one.
    fn continued(&self, text: &str) -> Option<String> {
        let text = text.trim_end().strip_suffix(self.escape)?;
        Some(text.to_owned())
    }

    fn here_document(&mut self, opening: Opening, number: usize) -> Result<HereDocument, Fault> {
        let mut content = String::new();
        for (_, line) in self.lines.by_ref() {
            let line = if opening.strip_tabs {
                line.trim_start_matches('\t')
            } else {
                line
            };
            if line == opening.name {
                return Ok(HereDocument {
                    name: opening.name,
                    content,
                    expand: opening.expand,
                });
            }
            content.push_str(line);
            content.push('\n');
        }
        Err(Fault {
            line: number,
            reason: format!(
                "the here-document {0} has no end: a line with only {0}",
                opening.name
            ),
        })
    }
}

struct Opening {
    name: String,
    strip_tabs: bool,
    expand: bool,
}

/// The `<<NAME`, `<<-NAME`, `<<"NAME"` of a line; `<<<` is something else.
fn openings(rest: &str) -> Vec<Opening> {
    let mut found = Vec::new();
    let mut rest = rest;
    while let Some(at) = rest.find("<<") {
        let after = &rest[at + 2..];
        rest = after;
        if after.starts_with('<') {
            rest = after.trim_start_matches('<');
            continue;
        }
        let strip_tabs = after.starts_with('-');
        let after = after.strip_prefix('-').unwrap_or(after);
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let name = quote.map_or(after, |_| &after[1..]);
        let end = name
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(name.len());
        let (name, behind) = name.split_at(end);
        let is_closed = quote.is_none_or(|quote| behind.starts_with(quote));
        if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && is_closed {
            found.push(Opening {
                name: name.to_owned(),
                strip_tabs,
                expand: quote.is_none(),
            });
        }
    }
    found
}

fn is_comment_or_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// Directives are comments `# name=value` before anything else.
fn escape_directive(source: &str) -> Result<char, Fault> {
    for (index, line) in source.lines().enumerate() {
        let Some((name, value)) = line
            .trim()
            .strip_prefix('#')
            .and_then(|line| line.split_once('='))
        else {
            break;
        };
        match (name.trim().to_lowercase().as_str(), value.trim()) {
            ("escape", "\\") => return Ok('\\'),
            ("escape", "`") => return Ok('`'),
            ("escape", _) => {
                return Err(Fault {
                    line: index + 1,
                    reason: "escape is either \\ or `".to_owned(),
                });
            }
            // Which front end to load, and which checks to skip: neither changes the meaning.
            ("syntax" | "check", _) => {}
            _ => break,
        }
    }
    Ok('\\')
}

//! What is wrong with a Compose file, and where: path, line, column, and the line itself underlined.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A file that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// As the user named it.
    pub(super) path: PathBuf,
    /// All of it.
    pub(super) text: String,
}

/// A place in a file. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub(super) source: Arc<Source>,
    pub(super) line: usize,
    pub(super) column: usize,
    /// How many characters to underline.
    pub(super) length: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}:{}",
            self.source.path.display(),
            self.line,
            self.column
        )
    }
}

/// Why a Compose file cannot be run. Its text names the place, the mistake and, where there is one, the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ComposeError {
    message: String,
    location: Option<Location>,
}

impl ComposeError {
    /// A mistake at a place.
    pub(super) fn at(location: &Location, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            location: Some(location.clone()),
        }
    }

    /// A mistake that has no place in a file.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            location: None,
        }
    }

    /// The mistake without its place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where it is.
    pub fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }
}

impl fmt::Display for ComposeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(location) = &self.location else {
            return formatter.write_str(&self.message);
        };
        write!(formatter, "{location}: {}", self.message)?;
        let Some(line) = location
            .source
            .text
            .lines()
            .nth(location.line.saturating_sub(1))
        else {
            return Ok(());
        };
        let number = location.line.to_string();
        let (margin, indent) = (
            " ".repeat(number.len()),
            " ".repeat(location.column.saturating_sub(1)),
        );
        let underline = "^".repeat(location.length.clamp(1, 80));
        write!(
            formatter,
            "\n {number} | {line}\n {margin} | {indent}{underline}"
        )
    }
}

/// Something that weft ignores, harmlessly, and that the user may want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub(super) message: String,
    pub(super) location: Location,
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.location, self.message)
    }
}

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
    is_not_found: bool,
}

/// The most characters of a line that are shown; of a longer one, those around the mistake.
const MAX_SHOWN: usize = 120;

impl ComposeError {
    /// A mistake at a place.
    pub(super) fn at(location: &Location, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            location: Some(location.clone()),
            is_not_found: false,
        }
    }

    /// A mistake that has no place in a file.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            location: None,
            is_not_found: false,
        }
    }

    /// A service was asked for that the application does not have.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self {
            is_not_found: true,
            ..Self::new(message)
        }
    }

    /// Whether the files are right, but lack a service that was asked for.
    pub fn is_not_found(&self) -> bool {
        self.is_not_found
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
        let margin = " ".repeat(number.len());
        let (shown, indent, length) = excerpt(line, location.column, location.length);
        let underline = "^".repeat(length);
        write!(
            formatter,
            "\n {number} | {shown}\n {margin} | {indent}{underline}"
        )
    }
}

/// What is shown of a line: it, or the part around a column; what to put below it up to there; and how much to
/// underline. Tabs are kept, so that both lines advance alike; other control characters could do things to a terminal.
fn excerpt(line: &str, column: usize, length: usize) -> (String, String, usize) {
    let printable = |letter: char| match letter {
        '\t' => '\t',
        letter if letter.is_control() => '\u{fffd}',
        letter => letter,
    };
    let letters: Vec<char> = line.chars().map(printable).collect();
    let at = column.saturating_sub(1).min(letters.len());
    let start = match letters.len() > MAX_SHOWN {
        true => at.saturating_sub(MAX_SHOWN / 2),
        false => 0,
    };
    let end = letters.len().min(start + MAX_SHOWN);
    let dots = |is_cut: bool| if is_cut { "…" } else { "" };
    let shown: String = letters[start..end].iter().collect();
    let blank = |letter: &char| if *letter == '\t' { '\t' } else { ' ' };
    let indent: String = dots(start > 0)
        .chars()
        .chain(letters[start..at].iter().copied())
        .map(|letter| blank(&letter))
        .collect();
    let shown = format!("{}{shown}{}", dots(start > 0), dots(end < letters.len()));
    (shown, indent, length.clamp(1, (end - at).max(1)))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, column: usize, length: usize) -> Vec<String> {
        let location = Location {
            source: Arc::new(Source {
                path: PathBuf::from("f"),
                text: text.to_owned(),
            }),
            line: 1,
            column,
            length,
        };
        let error = ComposeError::at(&location, "wrong").to_string();
        error.lines().skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn a_line_is_underlined_below_the_mistake() {
        assert_eq!(shown("\ta: bad", 5, 3), [" 1 | \ta: bad", "   | \t   ^^^"]);
    }

    #[test]
    fn of_a_long_line_only_the_part_around_the_mistake_is_shown() {
        let line = format!("{}bad{}", "[".repeat(5_000), "]".repeat(5_000));

        let lines = shown(&line, 5_001, 3);

        assert!(lines[0].contains("[bad]"), "{lines:?}");
        assert!(lines[0].chars().count() < 140, "{lines:?}");
        let below = lines[1].chars().position(|letter| letter == '^');
        let above: Vec<char> = lines[0].chars().collect();
        assert_eq!(above[below.unwrap()], 'b', "{lines:?}");
    }

    #[test]
    fn a_mistake_behind_the_end_of_its_line_is_shown_at_the_end() {
        assert_eq!(shown("a", 90, 40), [" 1 | a", "   |  ^"]);
        assert_eq!(shown("", 1, 1), [] as [&str; 0]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let lines = shown("a: \u{1b}[2J", 1, 1).join("");
        assert!(!lines.contains('\u{1b}'), "{lines:?}");
    }
}

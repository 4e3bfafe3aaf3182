//! The `--name=value` options between an instruction and its arguments.

/// One option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flag<'l> {
    pub(crate) name: &'l str,
    pub(crate) value: &'l str,
}

impl Flag<'_> {
    /// The message for an option that the instruction does not have.
    pub(crate) fn unknown(&self, instruction: &str, known: &[&str]) -> String {
        match nearest(self.name, known) {
            Some(near) => format!(
                "{instruction} has no option --{}; did you mean --{near}?",
                self.name
            ),
            None => format!("weft does not support {instruction} --{}", self.name),
        }
    }
}

/// Splits options off.
pub(crate) fn split(rest: &str) -> Result<(Vec<Flag<'_>>, &str), String> {
    let mut flags = Vec::new();
    let mut rest = rest.trim_start();
    while let Some(after) = rest.strip_prefix("--") {
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (flag, behind) = after.split_at(end);
        rest = behind.trim_start();
        if flag.is_empty() {
            break;
        }
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        flags.push(Flag { name, value });
    }
    Ok((flags, rest))
}

/// The known word nearest to a misspelt one, if it is near enough to be meant.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, near) = known
        .iter()
        .map(|known| (distance(word, known), *known))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 2.max(word.len() / 4)).then_some(near)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

//! Wildcards of `COPY`, `ADD` and `.dockerignore`: Go's `filepath.Match`, and `**`.

use std::ffi::OsString;
use std::path::{Component, Path};

use crate::image::error::ImageError;
use crate::image::stack::{End, Node, Stack};

/// A source that was found: the name it was found by, and the file, links followed.
pub(super) struct Match {
    pub(super) name: OsString,
    pub(super) node: Node,
}

/// Whether a path has wildcards at all.
pub(super) fn has_wildcards(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

/// The files that a pattern matches, sorted.
pub(super) fn find(files: &Stack, pattern: &str) -> Result<Vec<Match>, ImageError> {
    if !has_wildcards(pattern) {
        let node = files.find(Path::new(pattern), End::Followed)?;
        let name = Path::new(pattern)
            .file_name()
            .unwrap_or_default()
            .to_owned();
        return Ok(node.map(|node| Match { name, node }).into_iter().collect());
    }
    let mut parts: Vec<&str> = pattern
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    // Each would search all that the one before it found.
    parts.dedup_by(|part, before| *part == "**" && *before == "**");
    let mut found = Vec::new();
    if let Some(root) = files.find(Path::new(""), End::Followed)? {
        descend(files, root, &parts, &mut found)?;
    }
    found.sort_by(|a: &Match, b: &Match| a.node.path.cmp(&b.node.path));
    found.dedup_by(|a, b| a.node.path == b.node.path);
    Ok(found)
}

fn descend(
    files: &Stack,
    folder: Node,
    parts: &[&str],
    found: &mut Vec<Match>,
) -> Result<(), ImageError> {
    let Some((part, rest)) = parts.split_first() else {
        return Ok(());
    };
    if *part == "**" {
        for child in files.children(&folder)? {
            if child.metadata.is_dir() {
                descend(files, child, parts, found)?;
            }
        }
        return match rest {
            [] => descend(files, folder, &["*"], found),
            rest => descend(files, folder, rest, found),
        };
    }
    for child in files.children(&folder)? {
        let name = child.path.file_name().unwrap_or_default().to_owned();
        if !segment_matches(part, &name.to_string_lossy()) {
            continue;
        }
        let Some(node) = files.find(&child.path, End::Followed)? else {
            continue;
        };
        if rest.is_empty() {
            found.push(Match { name, node });
        } else if node.metadata.is_dir() {
            descend(files, node, rest, found)?;
        }
    }
    Ok(())
}

/// Whether a pattern with slashes matches a whole relative path.
pub(super) fn path_matches(pattern: &[String], path: &Path) -> bool {
    let names: Vec<String> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect();
    segments_match(pattern, &names)
}

/// Row by row, so that many `**` cost no more than their number times the path's length.
fn segments_match(pattern: &[String], names: &[String]) -> bool {
    let mut reachable = vec![false; names.len() + 1];
    reachable[0] = true;
    for part in pattern {
        let mut next = vec![false; names.len() + 1];
        let mut any_before = false;
        for at in 0..=names.len() {
            any_before |= reachable[at];
            next[at] = match part.as_str() {
                "**" => any_before,
                part => at > 0 && reachable[at - 1] && segment_matches(part, &names[at - 1]),
            };
        }
        reachable = next;
    }
    reachable[names.len()]
}

/// Whether a pattern without slashes matches a name.
pub(super) fn segment_matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where to go on after the last star: one more character is given to it each time.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == '*' {
            retry = Some((p + 1, n + 1));
            p += 1;
            continue;
        }
        if p == pattern.len() && n == name.len() {
            return true;
        }
        let matched = name.get(n).and_then(|c| one(&pattern[p..], *c));
        match (matched, retry) {
            (Some(used), _) => {
                p += used;
                n += 1;
            }
            (None, Some((after, from))) if from <= name.len() => {
                (p, n) = (after, from);
                retry = Some((after, from + 1));
            }
            (None, _) => return false,
        }
    }
}

/// How much of the pattern matches this character; None: it does not match.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['\\', quoted, ..] => (*quoted == c).then_some(2),
        ['[', rest @ ..] => class(rest, c).map(|used| used + 1),
        [plain, ..] => (*plain == c).then_some(1),
        [] => None,
    }
}

/// `a-z]` after the opening bracket.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let negated = matches!(pattern.first(), Some('^' | '!'));
    let mut at = usize::from(negated);
    let mut is_in = false;
    let begin = at;
    loop {
        let low = *pattern.get(at)?;
        if low == ']' && at > begin {
            return (is_in != negated).then_some(at + 1);
        }
        let range = (pattern.get(at + 1) == Some(&'-'))
            .then(|| pattern.get(at + 2))
            .flatten();
        match range.filter(|high| **high != ']') {
            Some(high) => {
                is_in |= (low..=*high).contains(&c);
                at += 3;
            }
            None => {
                is_in |= low == c;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_match_as_in_go() {
        for (pattern, name, matches) in [
            ("*", "", true),
            ("*.rs", "main.rs", true),
            ("*.rs", "main.rsx", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("m?in", "main", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[a", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("é*", "éa", true),
        ] {
            assert_eq!(segment_matches(pattern, name), matches, "{pattern} {name}");
        }
        assert!(!segment_matches(&"*a".repeat(50), &"a".repeat(49)));
    }

    #[test]
    fn two_stars_match_any_number_of_folders() {
        let pattern = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let matches = |text: &str, path: &str| path_matches(&pattern(text), Path::new(path));
        assert!(matches("**/x", "x"));
        assert!(matches("**/x", "a/b/x"));
        assert!(matches("a/**", "a/b/c"));
        assert!(!matches("a/*", "a/b/c"));
        assert!(!matches("**/**/**/y", "a/b/x"));
    }
}

//! Samples of Prometheus' text format, as sidecars write it.

use std::collections::BTreeMap;

/// One value with its labels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    labels: BTreeMap<&'a str, String>,
    pub(super) value: f64,
}

impl<'a> Sample<'a> {
    /// All samples of a text; lines that hold none are passed over.
    pub(super) fn all(text: &'a str) -> impl Iterator<Item = Sample<'a>> {
        text.lines().filter_map(Self::read)
    }

    /// A label, empty where it is not there.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    fn read(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(end);
        if name.is_empty() || name.starts_with('#') {
            return None;
        }
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Sample {
            name,
            labels,
            value,
        })
    }
}

/// `name="value",…}`, and what follows.
fn labels(mut rest: &str) -> Option<(BTreeMap<&str, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.insert(name, value);
        rest = after;
    }
}

/// Up to the closing quotation mark, without the backslashes; and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let text = "# HELP a Help.\n# TYPE a counter\na{b=\"c\",d=\"e\\\"\\\\\\n,}\"} 3\nplain 0.5 1700000000\n";

        let samples: Vec<_> = Sample::all(text).collect();

        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].name, samples[0].value), ("a", 3.0));
        assert_eq!(samples[0].label("b"), "c");
        assert_eq!(samples[0].label("d"), "e\"\\\n,}");
        assert_eq!(samples[0].label("none"), "");
        assert_eq!((samples[1].name, samples[1].value), ("plain", 0.5));
    }

    #[test]
    fn what_is_no_sample_is_passed_over() {
        for line in [
            "",
            "a",
            "a{",
            "a{b} 1",
            "a{b=\"c} 1",
            "a{b=\"c\"} x",
            "# a 1",
            "{} 1",
        ] {
            assert_eq!(Sample::all(line).next(), None, "{line}");
        }
    }
}

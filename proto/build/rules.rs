//! Reads `rules.txt`, and writes the constants of it that `src/rules.rs` looks at.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::ops::Range;

use prost_types::DescriptorProto;

use crate::table::{all_messages, by_number};

/// What is asked of messages, as source.
#[derive(Default)]
pub(crate) struct Rules {
    /// Which of `asked` are about a message.
    parts: HashMap<String, Range<usize>>,
    asked: Vec<String>,
    rules: Vec<String>,
}

impl Rules {
    /// From the text, whose every line has to be about what there is.
    pub(crate) fn read(
        text: &str,
        descriptors: &prost_types::FileDescriptorSet,
    ) -> Result<Self, Box<dyn Error>> {
        let messages = all_messages(descriptors);
        let mut rules = Rules::default();
        let mut name = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(field) = line.strip_prefix("  ") else {
                name = line;
                continue;
            };
            let message = messages.get(name).ok_or(format!("no message {name}"))?;
            let first = rules.asked.len();
            rules
                .field(field, message)
                .ok_or(format!("{name}: what is {field:?}?"))?;
            let part = rules.parts.entry(name.to_owned());
            part.or_insert(first..first).end = rules.asked.len();
        }
        Ok(rules)
    }

    /// Which of `ASKED` are about a message.
    pub(crate) fn of(&self, message: &str) -> Range<usize> {
        self.parts.get(message).cloned().unwrap_or_default()
    }

    /// The Rust source of `ASKED`, and of the `RULES` that it names.
    pub(crate) fn source(&self) -> Result<String, std::fmt::Error> {
        let mut source = String::new();
        for (name, of, lines) in [
            ("ASKED", "Asked", &self.asked),
            ("RULES", "Rule", &self.rules),
        ] {
            let count = lines.len();
            let lines = lines.join(",\n");
            writeln!(source, "static {name}: [{of}; {count}] = [\n{lines}\n];")?;
        }
        Ok(source)
    }

    /// One line: a field, or a `oneof`, and what is asked of it.
    fn field(&mut self, line: &str, message: &DescriptorProto) -> Option<()> {
        let (name, words) = line.split_once(' ')?;
        let fields = by_number(message);
        if let Some(index) = fields.iter().position(|field| field.name() == name) {
            let first = self.rules.len();
            for word in words.split(' ') {
                self.rules.push(rule(word)?);
            }
            let end = self.rules.len();
            self.asked.push(format!(
                "Asked::Field {{ index: {index}, rules: ({first}, {end}) }}"
            ));
            return Some(());
        }
        let choice = message
            .oneof_decl
            .iter()
            .position(|choice| choice.name() == name)?;
        let choice = i32::try_from(choice).ok()?;
        let member = fields
            .iter()
            .position(|field| field.oneof_index == Some(choice))?;
        self.asked
            .push(format!("Asked::OneOf {{ member: {member} }}"));
        (words == "one").then_some(())
    }
}

/// The source of the rule that a word stands for.
fn rule(word: &str) -> Option<String> {
    if let Some(test) = word.strip_prefix("each:") {
        return Some(format!("Rule::Each({})", test_of(test)?));
    }
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let count = || value.parse::<usize>().ok();
    Some(match name {
        "required" => "Rule::Required".to_owned(),
        "or_zero" => "Rule::OrZero".to_owned(),
        "unique" => "Rule::Unique".to_owned(),
        "items_min" => format!("Rule::Fewest({})", count()?),
        "items_max" => format!("Rule::MostItems({})", count()?),
        _ => format!("Rule::Value({})", test_of(word)?),
    })
}

/// The source of what a word asks of a single value.
fn test_of(word: &str) -> Option<String> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let number = || value.trim_end_matches('s').parse::<f64>().ok();
    let count = || value.parse::<usize>().ok();
    Some(match name {
        "min" => format!("Test::Shortest({})", count()?),
        "max" => format!("Test::Longest({})", count()?),
        "line" => "Test::Line".to_owned(),
        "gt" => format!("Test::Above({:?})", number()?),
        "gte" => format!("Test::Least({:?})", number()?),
        "lt" => format!("Test::Below({:?})", number()?),
        "lte" => format!("Test::Most({:?})", number()?),
        "defined" => "Test::Defined".to_owned(),
        "true" => "Test::True".to_owned(),
        _ => return None,
    })
}

//! Words of an instruction: splitting at spaces, quotes, and the expansion of variables.

/// Splits at white space outside of quotes. Quotes and escapes stay, for `expand` to remove.
pub(crate) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            word.push(c);
            word.extend(chars.next());
            continue;
        }
        match quote {
            Some(open) if c == open => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Removes quotes and escapes, and puts in variables: `$name`, `${name}`, `${name:-default}`,
/// `${name:+instead}`, `${name:?error}`, and these without the colon.
pub(crate) fn expand(
    word: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut expansion = Expansion {
        chars: word.chars().peekable(),
        escape,
        lookup,
    };
    expansion.until(None, 0)
}

/// What a program can be given as one argument or variable (execve(2), MAX_ARG_STRLEN). Without
/// a bound a value that doubles itself line by line fills memory.
const LONGEST: usize = 128 << 10;

/// `${…}` inside of `${…}`.
const DEPTH: usize = 20;

struct Expansion<'w> {
    chars: std::iter::Peekable<std::str::Chars<'w>>,
    escape: char,
    lookup: &'w dyn Fn(&str) -> Option<String>,
}

impl Expansion<'_> {
    /// Reads until `end`, or to the end of the word where that is None.
    fn until(&mut self, end: Option<char>, depth: usize) -> Result<String, String> {
        if depth > DEPTH {
            return Err("variables nested too deep".to_owned());
        }
        let mut out = String::new();
        let mut in_double = false;
        while let Some(c) = self.chars.next() {
            if out.len() > LONGEST {
                return Err(
                    "the value is longer than 128 KiB, which no program can be given".to_owned(),
                );
            }
            if Some(c) == end && !in_double {
                return Ok(out);
            }
            match c {
                '"' => in_double = !in_double,
                '\'' if !in_double => self.single_quoted(&mut out)?,
                '$' => out.push_str(&self.variable(depth)?),
                _ if c == self.escape => self.escaped(in_double, &mut out),
                _ => out.push(c),
            }
        }
        match end {
            Some(end) => Err(format!("a variable lacks its closing {end}")),
            None if in_double => Err("a quotation mark is not closed".to_owned()),
            None => Ok(out),
        }
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<(), String> {
        for c in self.chars.by_ref() {
            if c == '\'' {
                return Ok(());
            }
            out.push(c);
        }
        Err("a quotation mark is not closed".to_owned())
    }

    /// Inside of double quotes only `"`, `$` and itself can be escaped (as in a shell).
    fn escaped(&mut self, in_double: bool, out: &mut String) {
        match self.chars.next() {
            Some(c) if !in_double || matches!(c, '"' | '$') || c == self.escape => out.push(c),
            Some(c) => out.extend([self.escape, c]),
            None => out.push(self.escape),
        }
    }

    fn variable(&mut self, depth: usize) -> Result<String, String> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() {
                "$".to_owned()
            } else {
                (self.lookup)(&name).unwrap_or_default()
            });
        }
        let name = self.name();
        if name.is_empty() {
            return Err("${ must be followed by a name".to_owned());
        }
        let with_empty = self.chars.next_if_eq(&':').is_some();
        let value = (self.lookup)(&name).filter(|value| !(with_empty && value.is_empty()));
        let operator = self
            .chars
            .next()
            .ok_or_else(|| format!("${{{name} lacks its closing }}"))?;
        if operator == '}' && !with_empty {
            return Ok(value.unwrap_or_default());
        }
        let operand = self.until(Some('}'), depth + 1)?;
        match (operator, value) {
            ('-', value) => Ok(value.unwrap_or(operand)),
            ('+', value) => Ok(value.map_or(String::new(), |_| operand)),
            ('?', Some(value)) => Ok(value),
            ('?', None) => Err(format!(
                "{name}: {}",
                if operand.is_empty() {
                    "is not set"
                } else {
                    &operand
                }
            )),
            _ => Err(format!(
                "${{{name}{operator}…}} is not supported; use :-, :+ or :?"
            )),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self
            .chars
            .next_if(|c| c.is_ascii_alphanumeric() || *c == '_')
        {
            name.push(c);
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(word: &str) -> Result<String, String> {
        expand(word, '\\', &|name| match name {
            "x" => Some("X".to_owned()),
            "empty" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn variables_take_all_forms() {
        for (word, value) in [
            ("$x/$y.", "X/."),
            ("${x}y", "Xy"),
            ("${y:-d}", "d"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${y:-${x}}", "X"),
            ("${x:+set}${y:+set}", "set"),
            ("${x:?no}", "X"),
            ("\\$x", "$x"),
            ("'$x'", "$x"),
            ("\"$x y\"", "X y"),
            ("a\\ b", "a b"),
            ("\"a\\n\"", "a\\n"),
            ("$", "$"),
        ] {
            assert_eq!(expanded(word).as_deref(), Ok(value), "{word}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_is_an_error() {
        assert_eq!(
            expanded("${y:?set y first}"),
            Err("y: set y first".to_owned())
        );
        for word in [
            "${",
            "${x",
            "${x%y}",
            "'a",
            "\"a",
            "${}",
            &"${x:-".repeat(100),
        ] {
            assert!(expanded(word).is_err(), "{word}");
        }
    }

    #[test]
    fn words_split_outside_of_quotes() {
        assert_eq!(
            split("a \"b c\" d\\ e 'f g'h", '\\'),
            ["a", "\"b c\"", "d\\ e", "'f g'h"]
        );
    }
}

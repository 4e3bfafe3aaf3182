//! `$NAME` and `${NAME…}` in values, by the rules of the Compose specification.
//!
//! | form | becomes |
//! |---|---|
//! | `$A`, `${A}` | the variable; empty, with a warning, where it is not set |
//! | `${A:-b}`, `${A-b}` | `b` where it is not set (with `:` also where it is empty) |
//! | `${A:?why}`, `${A?why}` | an error where it is not set |
//! | `${A:+b}`, `${A+b}` | `b` where it is set |
//! | `$$` | `$` |

use std::collections::BTreeMap;

use super::document::{Node, Value};
use super::error::{ComposeError, Location, Warning};

/// How deep defaults may hold variables themselves.
const MAX_DEPTH: usize = 8;

/// Replaces the variables in every value below a node.
pub(super) fn interpolate(
    node: &mut Node,
    variables: &BTreeMap<String, String>,
    warnings: &mut Vec<Warning>,
) -> Result<(), ComposeError> {
    match &mut node.value {
        Value::Scalar { text, .. } if text.contains('$') => {
            let mut expansion = Expansion {
                variables,
                warnings,
                at: &node.at,
            };
            *text = expansion.expand(text, 0)?;
            Ok(())
        }
        Value::Null | Value::Scalar { .. } => Ok(()),
        Value::Sequence(items) => items
            .iter_mut()
            .try_for_each(|item| interpolate(item, variables, warnings)),
        Value::Mapping(entries) => entries
            .iter_mut()
            .try_for_each(|(_, node)| interpolate(node, variables, warnings)),
    }
}

struct Expansion<'a> {
    variables: &'a BTreeMap<String, String>,
    warnings: &'a mut Vec<Warning>,
    at: &'a Location,
}

impl Expansion<'_> {
    fn expand(&mut self, text: &str, depth: usize) -> Result<String, ComposeError> {
        if depth > MAX_DEPTH {
            return Err(ComposeError::at(self.at, "variables nested too deeply"));
        }
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            result.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                result.push('$');
                rest = after;
            } else if let Some(inside) = rest.strip_prefix('{') {
                let end = closing_brace(inside).ok_or_else(|| {
                    ComposeError::at(self.at, format!("`${{` without `}}` in {text:?}"))
                })?;
                result.push_str(&self.braced(&inside[..end], depth)?);
                rest = &inside[end + 1..];
            } else {
                let end = name_length(rest);
                if end == 0 {
                    return Err(ComposeError::at(
                        self.at,
                        format!(
                            "`$` is followed by no variable in {text:?}; write `$$` for a dollar sign"
                        ),
                    ));
                }
                result.push_str(&self.value_or_warning(&rest[..end]));
                rest = &rest[end..];
            }
        }
        result.push_str(rest);
        Ok(result)
    }

    /// What stands between the braces.
    fn braced(&mut self, inside: &str, depth: usize) -> Result<String, ComposeError> {
        let (name, operation) = inside.split_at(name_length(inside));
        if name.is_empty() {
            return Err(ComposeError::at(
                self.at,
                format!("`${{{inside}}}` names no variable"),
            ));
        }
        let (counts_empty, operation) = match operation.strip_prefix(':') {
            Some(operation) => (false, operation),
            None => (true, operation),
        };
        let value = self
            .variables
            .get(name)
            .filter(|value| counts_empty || !value.is_empty())
            .cloned();
        let mut characters = operation.chars();
        match (characters.next(), characters.as_str(), value) {
            (None, _, _) if counts_empty => Ok(self.value_or_warning(name)),
            (Some('-' | '?'), _, Some(value)) => Ok(value),
            (Some('-'), default, None) => self.expand(default, depth + 1),
            (Some('?'), reason, None) => {
                let reason = self.expand(reason, depth + 1)?;
                let reason = if reason.is_empty() {
                    "it must be set".to_owned()
                } else {
                    reason
                };
                Err(ComposeError::at(
                    self.at,
                    format!("the variable {name} is not set: {reason}"),
                ))
            }
            (Some('+'), other, Some(_)) => self.expand(other, depth + 1),
            (Some('+'), _, None) => Ok(String::new()),
            _ => Err(ComposeError::at(
                self.at,
                format!(
                    "`${{{inside}}}` is no form of a variable; forms are ${{A}}, ${{A:-b}}, ${{A:?why}}, ${{A:+b}}"
                ),
            )),
        }
    }

    fn value_or_warning(&mut self, name: &str) -> String {
        if let Some(value) = self.variables.get(name) {
            return value.clone();
        }
        self.warnings.push(Warning {
            message: format!("the variable {name} is not set: taken as empty"),
            location: self.at.clone(),
        });
        String::new()
    }
}

/// How many bytes of a text are a variable's name.
fn name_length(text: &str) -> usize {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    match text.bytes().next() {
        Some(first) if is_first(first) => text
            .bytes()
            .take_while(|byte| is_first(*byte) || byte.is_ascii_digit())
            .count(),
        _ => 0,
    }
}

/// Where the brace closes that was opened before the text; braces nest.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(index),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::compose::document::parse;

    fn expanded(text: &str) -> Result<String, ComposeError> {
        let mut node = parse(Path::new("x"), format!("'{text}'")).unwrap();
        let variables = [("A", "a"), ("EMPTY", "")];
        let variables = variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        interpolate(&mut node, &variables, &mut Vec::new())?;
        Ok(node.to_json().as_str().unwrap().to_owned())
    }

    #[test]
    fn every_form_of_the_specification_is_known() {
        for (text, result) in [
            ("$A-${A}", "a-a"),
            ("$$A", "$A"),
            ("${B:-b}", "b"),
            ("${EMPTY:-b}", "b"),
            ("${EMPTY-b}", ""),
            ("${A:+set}${B+set}", "set"),
            ("${B:-${A}x}", "ax"),
            ("$B.", "."),
        ] {
            assert_eq!(expanded(text).unwrap(), result, "{text}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (text, message) in [
            ("${B:?must be there}", "must be there"),
            ("${A", "without"),
            ("$", "no variable"),
            ("${}", "names no variable"),
            ("${A!b}", "no form"),
        ] {
            let error = expanded(text).unwrap_err();
            assert!(error.message().contains(message), "{text}: {error}");
        }
    }
}

//! Tests of texts, headers and query parameters; substitutions.

use http::HeaderName;
use weft_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use weft_proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use weft_proto::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher};
use weft_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use weft_proto::envoy::r#type::matcher::v3::{
    RegexMatchAndSubstitute, RegexMatcher, StringMatcher,
};
use weft_proto::envoy::r#type::v3::Int64Range;

use super::at::{At, Invalid, harmless, nonempty, required};
use crate::config::matching::{
    HeaderMatch, HeaderTest, Pattern, Subject, Substitution, TextMatch, TextTest,
};
use crate::config::route::{QueryMatch, QueryTest};

/// A comparison of a text.
pub(super) fn text_match(at: &At<'_>, wire: &StringMatcher) -> Result<TextMatch, Invalid> {
    let StringMatcher {
        ignore_case,
        match_pattern,
    } = wire;
    // As in Envoy: an expression says itself what case matters to it.
    if *ignore_case && matches!(match_pattern, Some(MatchPattern::SafeRegex(_))) {
        let at = at.field("ignore_case");
        return Err(at.refuse("has no effect beside safe_regex: begin that with (?i)"));
    }
    let test = match required(&at.field("match_pattern"), match_pattern.as_ref())? {
        MatchPattern::Exact(text) => TextTest::Exact(text.as_str().into()),
        MatchPattern::Prefix(text) => TextTest::Prefix(nonempty(&at.field("prefix"), text)?.into()),
        MatchPattern::Suffix(text) => TextTest::Suffix(nonempty(&at.field("suffix"), text)?.into()),
        MatchPattern::Contains(text) => {
            TextTest::Contains(nonempty(&at.field("contains"), text)?.into())
        }
        MatchPattern::SafeRegex(regex) => TextTest::Regex(pattern(&at.field("safe_regex"), regex)?),
        MatchPattern::Custom(custom) => return Err(at.field("custom").refuse_value(&custom.name)),
    };
    Ok(TextMatch {
        test,
        ignore_case: *ignore_case,
    })
}

/// A regular expression, in the syntax that RE2 and Rust share.
pub(super) fn pattern(at: &At<'_>, wire: &RegexMatcher) -> Result<Pattern, Invalid> {
    let RegexMatcher { regex, engine_type } = wire;
    harmless!(at; engine_type);
    let at = at.field("regex");
    Pattern::new(nonempty(&at, regex)?).map_err(|error| at.refuse(error))
}

/// A substitution; `\1` of RE2 becomes `${1}`.
pub(super) fn substitution(
    at: &At<'_>,
    wire: &RegexMatchAndSubstitute,
) -> Result<Substitution, Invalid> {
    let RegexMatchAndSubstitute {
        pattern,
        substitution,
    } = wire;
    let at_pattern = at.field("pattern");
    let RegexMatcher { regex, engine_type } = required(&at_pattern, pattern.as_ref())?;
    harmless!(at_pattern; engine_type);
    let replacement = replacement(substitution)
        .ok_or_else(|| at.field("substitution").refuse_value(substitution))?;
    Substitution::new(regex, &replacement).map_err(|error| at_pattern.refuse(error))
}

/// RE2's notation of a replacement in Rust's; `None` where it is neither a group nor an escaped backslash.
fn replacement(re2: &str) -> Option<String> {
    let mut rust = String::with_capacity(re2.len());
    let mut characters = re2.chars();
    while let Some(character) = characters.next() {
        match character {
            '$' => rust.push_str("$$"),
            '\\' => match characters.next()? {
                '\\' => rust.push('\\'),
                digit if digit.is_ascii_digit() => {
                    rust.push_str("${");
                    rust.push(digit);
                    rust.push('}');
                }
                _ => return None,
            },
            other => rust.push(other),
        }
    }
    Some(rust)
}

/// Tests of headers, all of which must hold.
pub(super) fn header_matches(
    at: &At<'_>,
    wire: &[HeaderMatcher],
) -> Result<Vec<HeaderMatch>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, matcher)| header_match(&at.index(index), matcher))
        .collect()
}

/// A test of one header.
pub(super) fn header_match(at: &At<'_>, wire: &HeaderMatcher) -> Result<HeaderMatch, Invalid> {
    let HeaderMatcher {
        name,
        invert_match,
        treat_missing_header_as_empty,
        header_match_specifier,
    } = wire;
    let exactly = |test| {
        HeaderTest::Value(TextMatch {
            test,
            ignore_case: false,
        })
    };
    let (test, is_opposite) = match header_match_specifier {
        None | Some(HeaderMatchSpecifier::PresentMatch(true)) => (HeaderTest::Present, false),
        Some(HeaderMatchSpecifier::PresentMatch(false)) => (HeaderTest::Present, true),
        Some(HeaderMatchSpecifier::ExactMatch(text)) => {
            (exactly(TextTest::Exact(text.as_str().into())), false)
        }
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => {
            (exactly(TextTest::Prefix(text.as_str().into())), false)
        }
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => {
            (exactly(TextTest::Suffix(text.as_str().into())), false)
        }
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
            (exactly(TextTest::Contains(text.as_str().into())), false)
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => (
            exactly(TextTest::Regex(pattern(
                &at.field("safe_regex_match"),
                regex,
            )?)),
            false,
        ),
        Some(HeaderMatchSpecifier::StringMatch(text)) => (
            HeaderTest::Value(text_match(&at.field("string_match"), text)?),
            false,
        ),
        Some(HeaderMatchSpecifier::RangeMatch(Int64Range { start, end })) => (
            HeaderTest::Range {
                start: *start,
                end: *end,
            },
            false,
        ),
    };
    Ok(HeaderMatch {
        subject: subject(&at.field("name"), name)?,
        test,
        invert: *invert_match != is_opposite,
        missing_is_empty: *treat_missing_header_as_empty,
    })
}

/// A header, or what Envoy has for one of a request's line.
pub(super) fn subject(at: &At<'_>, name: &str) -> Result<Subject, Invalid> {
    Ok(match name {
        ":method" => Subject::Method,
        ":path" => Subject::Path,
        ":authority" => Subject::Authority,
        ":scheme" => Subject::Scheme,
        // HTTP/1.1 says the same with `host`.
        name if name.eq_ignore_ascii_case("host") => Subject::Authority,
        name => Subject::Header(header_name(at, name)?),
    })
}

/// A header's name.
pub(super) fn header_name(at: &At<'_>, name: &str) -> Result<HeaderName, Invalid> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| at.refuse(format_args!("{name:?} is no header name")))
}

/// Tests of query parameters, all of which must hold.
pub(super) fn query_matches(
    at: &At<'_>,
    wire: &[QueryParameterMatcher],
) -> Result<Vec<QueryMatch>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, matcher)| query_match(&at.index(index), matcher))
        .collect()
}

fn query_match(at: &At<'_>, wire: &QueryParameterMatcher) -> Result<QueryMatch, Invalid> {
    let QueryParameterMatcher {
        name,
        query_parameter_match_specifier,
    } = wire;
    let test = match query_parameter_match_specifier {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => QueryTest::Present,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => QueryTest::Absent,
        Some(QueryParameterMatchSpecifier::StringMatch(text)) => {
            QueryTest::Value(text_match(&at.field("string_match"), text)?)
        }
    };
    Ok(QueryMatch {
        name: nonempty(&at.field("name"), name)?.into(),
        test,
    })
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    #[test]
    fn groups_of_re2_become_groups_of_rust() {
        assert_eq!(replacement(r"/v1/\1$\\x").as_deref(), Some(r"/v1/${1}$$\x"));
        assert_eq!(replacement(r"\q"), None);
        assert_eq!(replacement("\\"), None);
    }

    #[test]
    fn absence_asked_for_twice_is_presence() {
        let notes = Notes::default();
        let wire = HeaderMatcher {
            name: "x-user".into(),
            invert_match: true,
            header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(false)),
            ..HeaderMatcher::default()
        };

        let header = header_match(&At::root(&notes), &wire).expect("valid");

        assert!(!header.invert);
    }

    #[test]
    fn a_pattern_that_is_none_is_refused_by_its_path() {
        let notes = Notes::default();
        let root = At::root(&notes);
        let wire = HeaderMatcher {
            name: "x-user".into(),
            header_match_specifier: Some(HeaderMatchSpecifier::SafeRegexMatch(RegexMatcher {
                regex: "(".into(),
                ..RegexMatcher::default()
            })),
            ..HeaderMatcher::default()
        };

        let error = header_matches(&root.field("headers"), &[wire]).expect_err("refused");

        assert!(
            error
                .to_string()
                .starts_with("headers[0].safe_regex_match.regex: "),
            "{error}"
        );
    }
}

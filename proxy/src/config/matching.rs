//! Tests of texts and headers, as routes and filters use them.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use regex::Regex;
use serde_json::Value;

use super::metadata::Metadata;

/// A regular expression that must match the whole text, as Envoy's does.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: Arc<str>,
    regex: Regex,
}

/// Compiled patterns may not take more memory than this.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

impl Pattern {
    /// Compiles it.
    ///
    /// # Errors
    /// A pattern that is no regular expression, or compiles to too much.
    pub fn new(source: &str) -> Result<Self, regex::Error> {
        // The whole is anchored; the alternatives inside stay alternatives.
        let regex = regex::RegexBuilder::new(&format!("^(?:{source})$"))
            .size_limit(MAX_PATTERN_BYTES)
            .build()?;
        Ok(Pattern {
            source: source.into(),
            regex,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the whole text matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// A substitution in a text: every match of a pattern (unanchored) becomes something else.
#[derive(Debug, Clone)]
pub struct Substitution {
    regex: Regex,
    replacement: Arc<str>,
}

impl Substitution {
    /// The replacement is in Rust's notation: `$1`, `${name}`.
    ///
    /// # Errors
    /// A pattern that is no regular expression, or compiles to too much.
    pub fn new(pattern: &str, replacement: &str) -> Result<Self, regex::Error> {
        let regex = regex::RegexBuilder::new(pattern)
            .size_limit(MAX_PATTERN_BYTES)
            .build()?;
        Ok(Substitution {
            regex,
            replacement: replacement.into(),
        })
    }

    /// The text with every match replaced.
    pub fn apply<'a>(&self, text: &'a str) -> std::borrow::Cow<'a, str> {
        self.regex.replace_all(text, &*self.replacement)
    }
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str() && self.replacement == other.replacement
    }
}

/// How a text is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum TextTest {
    /// The whole of it.
    Exact(Arc<str>),
    /// How it begins.
    Prefix(Arc<str>),
    /// How it ends.
    Suffix(Arc<str>),
    /// What is in it.
    Contains(Arc<str>),
    /// The whole of it, by pattern.
    Regex(Pattern),
}

/// A test of a text; `ignore_case` compares ASCII letters regardless of case (not for patterns).
#[derive(Debug, Clone, PartialEq)]
pub struct TextMatch {
    /// The comparison.
    pub test: TextTest,
    /// Whether case is ignored.
    pub ignore_case: bool,
}

impl TextMatch {
    /// Compares the whole text, case and all.
    pub fn exact(text: &str) -> Self {
        TextMatch {
            test: TextTest::Exact(text.into()),
            ignore_case: false,
        }
    }

    /// Whether the text passes.
    pub fn is_match(&self, text: &str) -> bool {
        match (&self.test, self.ignore_case) {
            (TextTest::Exact(expected), false) => text == &**expected,
            (TextTest::Exact(expected), true) => text.eq_ignore_ascii_case(expected),
            (TextTest::Prefix(expected), false) => text.starts_with(&**expected),
            (TextTest::Prefix(expected), true) => starts_with_ignoring_case(text, expected),
            (TextTest::Suffix(expected), false) => text.ends_with(&**expected),
            (TextTest::Suffix(expected), true) => ends_with_ignoring_case(text, expected),
            (TextTest::Contains(expected), false) => text.contains(&**expected),
            (TextTest::Contains(expected), true) => text
                .to_ascii_lowercase()
                .contains(&expected.to_ascii_lowercase()),
            (TextTest::Regex(pattern), _) => pattern.is_match(text),
        }
    }
}

/// Whether a text begins so, ASCII letters compared regardless of case.
pub(crate) fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    text.as_bytes()
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn ends_with_ignoring_case(text: &str, suffix: &str) -> bool {
    text.len()
        .checked_sub(suffix.len())
        .is_some_and(|at| text.as_bytes()[at..].eq_ignore_ascii_case(suffix.as_bytes()))
}

/// What is asked of a header.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderTest {
    /// That it is there.
    Present,
    /// Its value; of several, one that passes is enough.
    Value(TextMatch),
    /// Its value as a number, from `start` up to and without `end`.
    Range {
        /// The lowest.
        start: i64,
        /// One above the highest.
        end: i64,
    },
}

/// A test of one header. `:method`, `:path`, `:authority`, `:scheme` are not headers here: see [`RequestLine`].
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatch {
    /// Which header.
    pub subject: Subject,
    /// What is asked of it.
    pub test: HeaderTest,
    /// The opposite is asked.
    pub invert: bool,
    /// A missing header is taken for an empty one that is there; else a value test of it fails, also inverted.
    pub missing_is_empty: bool,
}

/// What a [`HeaderMatch`] looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A header.
    Header(HeaderName),
    /// `:method`.
    Method,
    /// `:path`, with the query.
    Path,
    /// `:authority`.
    Authority,
    /// `:scheme`.
    Scheme,
}

impl Subject {
    /// The value in a request's line; none where it is a header.
    pub fn of_line<'a>(&self, line: RequestLine<'a>) -> Option<&'a str> {
        match self {
            Subject::Header(_) => None,
            Subject::Method => Some(line.method),
            Subject::Path => Some(line.path),
            Subject::Authority => Some(line.authority),
            Subject::Scheme => Some(line.scheme),
        }
    }
}

/// What is no header of a request, and yet tested as one.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// `GET`.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Host and port.
    pub authority: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
}

impl HeaderMatch {
    /// Whether a request passes.
    pub fn is_match(&self, line: RequestLine<'_>, headers: &HeaderMap) -> bool {
        match &self.subject {
            Subject::Header(name) => self.is_match_of_header(headers, name),
            Subject::Method => self.is_match_of_value(Some(line.method)),
            Subject::Path => self.is_match_of_value(Some(line.path)),
            Subject::Authority => self.is_match_of_value(Some(line.authority)),
            Subject::Scheme => self.is_match_of_value(Some(line.scheme)),
        }
    }

    /// As in Envoy, one of several values is enough, and the opposite asks it of none.
    fn is_match_of_header(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let values = headers.get_all(name);
        if values.iter().next().is_none() {
            return self.is_match_of_value(None);
        }
        let mut texts = values.iter().filter_map(|value| value.to_str().ok());
        match &self.test {
            HeaderTest::Present => !self.invert,
            test => texts.any(|value| test.passes(value)) != self.invert,
        }
    }

    fn is_match_of_value(&self, value: Option<&str>) -> bool {
        let value = match (value, &self.test) {
            (value, HeaderTest::Present) => {
                return (value.is_some() || self.missing_is_empty) != self.invert;
            }
            (None, _) if self.missing_is_empty => "",
            // Envoy: a value test of a header that is not there fails, inverted or not.
            (None, _) => return false,
            (Some(value), _) => value,
        };
        self.test.passes(value) != self.invert
    }
}

impl HeaderTest {
    fn passes(&self, value: &str) -> bool {
        match self {
            HeaderTest::Present => true,
            HeaderTest::Value(text) => text.is_match(value),
            HeaderTest::Range { start, end } => value
                .parse::<i64>()
                .is_ok_and(|number| (*start..*end).contains(&number)),
        }
    }
}

/// A test of one value of metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataMatch {
    /// The namespace.
    pub namespace: Arc<str>,
    /// Where in it.
    pub path: Vec<Arc<str>>,
    /// What is asked.
    pub test: ValueTest,
    /// The opposite is asked.
    pub invert: bool,
}

/// What is asked of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueTest {
    /// That it is null.
    Null,
    /// That it is a number from the first up to and without the second.
    Range(f64, f64),
    /// That it is this number.
    Number(f64),
    /// That it is such a text.
    Text(TextMatch),
    /// That it is this truth.
    Bool(bool),
    /// That it is there, and not null.
    Present,
    /// That it is not.
    Absent,
    /// That it is a list, and holds one that passes.
    ListWith(Box<ValueTest>),
    /// One of these.
    OneOf(Vec<ValueTest>),
}

impl MetadataMatch {
    /// Whether the value passes, invert or not; `None` where there is none.
    pub fn value_match(&self, metadata: &Metadata) -> Option<bool> {
        let value = metadata.at(&self.namespace, self.path.iter().map(|key| &**key));
        let value = value.filter(|value| !value.is_null())?;
        Some(self.test.is_match(Some(value)))
    }

    /// Whether the metadata pass.
    pub fn is_match(&self, metadata: &Metadata) -> bool {
        let value = metadata.at(&self.namespace, self.path.iter().map(|key| &**key));
        self.test.is_match(value) != self.invert
    }
}

impl ValueTest {
    fn is_match(&self, value: Option<&Value>) -> bool {
        let value = value.filter(|value| !value.is_null() || *self == ValueTest::Null);
        match (self, value) {
            (ValueTest::OneOf(tests), value) => tests.iter().any(|test| test.is_match(value)),
            (ValueTest::Absent, value) => value.is_none(),
            (_, None) => false,
            (ValueTest::Present, Some(_)) => true,
            (ValueTest::Null, Some(value)) => value.is_null(),
            (ValueTest::Range(start, end), Some(value)) => value
                .as_f64()
                .is_some_and(|number| (*start..*end).contains(&number)),
            // Envoy compares doubles exactly, too.
            #[allow(clippy::float_cmp, reason = "what is asked for is this very number")]
            (ValueTest::Number(wanted), Some(value)) => value.as_f64() == Some(*wanted),
            (ValueTest::Text(test), Some(value)) => {
                value.as_str().is_some_and(|text| test.is_match(text))
            }
            (ValueTest::Bool(wanted), Some(value)) => value.as_bool() == Some(*wanted),
            (ValueTest::ListWith(test), Some(value)) => value
                .as_array()
                .is_some_and(|values| values.iter().any(|value| test.is_match(Some(value)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const LINE: RequestLine<'static> = RequestLine {
        method: "GET",
        path: "/",
        authority: "reviews",
        scheme: "http",
    };

    fn header(test: HeaderTest, invert: bool) -> HeaderMatch {
        HeaderMatch {
            subject: Subject::Header(HeaderName::from_static("x-user")),
            test,
            invert,
            missing_is_empty: false,
        }
    }

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-user", HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_pattern_matches_the_whole_text_only() {
        let pattern = Pattern::new("a|bc").expect("valid");

        assert!(pattern.is_match("bc"));
        assert!(!pattern.is_match("abc"));
    }

    #[test]
    fn case_is_ignored_where_asked() {
        let suffix = TextMatch {
            test: TextTest::Suffix(".Example".into()),
            ignore_case: true,
        };

        assert!(suffix.is_match("a.eXAMPLE"));
        assert!(!suffix.is_match("example"));
    }

    #[test]
    fn of_several_values_one_is_enough_and_the_opposite_asks_it_of_none() {
        let test = |text, invert| header(HeaderTest::Value(TextMatch::exact(text)), invert);

        assert!(test("b", false).is_match(LINE, &headers(&["a", "b"])));
        assert!(!test("a,b", false).is_match(LINE, &headers(&["a", "b"])));
        assert!(!test("b", true).is_match(LINE, &headers(&["a", "b"])));
        assert!(test("c", true).is_match(LINE, &headers(&["a", "b"])));
    }

    #[test]
    fn a_value_test_of_a_missing_header_fails_even_inverted() {
        let test = header(HeaderTest::Value(TextMatch::exact("a")), true);

        assert!(!test.is_match(LINE, &headers(&[])));
        assert!(test.is_match(LINE, &headers(&["b"])));
    }

    #[test]
    fn absence_is_presence_inverted() {
        let test = header(HeaderTest::Present, true);

        assert!(test.is_match(LINE, &headers(&[])));
        assert!(!test.is_match(LINE, &headers(&["a"])));
    }

    #[test]
    fn a_header_that_is_missing_and_taken_for_empty_is_there() {
        for invert in [false, true] {
            let test = HeaderMatch {
                missing_is_empty: true,
                ..header(HeaderTest::Present, invert)
            };

            assert_eq!(test.is_match(LINE, &headers(&[])), !invert);
        }
    }

    #[test]
    fn a_range_is_without_its_end() {
        let test = header(HeaderTest::Range { start: 1, end: 3 }, false);

        assert!(test.is_match(LINE, &headers(&["2"])));
        assert!(!test.is_match(LINE, &headers(&["3"])));
        assert!(!test.is_match(LINE, &headers(&["two"])));
    }

    #[test]
    fn a_value_of_metadata_is_tested_as_what_it_is() {
        use serde_json::json;
        let mut metadata = Metadata::default();
        metadata.put(
            "jwt",
            "claims",
            json!({"sub": "a", "groups": ["x", "y"], "age": 7, "no": null}),
        );
        let passes = |key: &str, test| {
            let path = vec!["claims".into(), key.into()];
            let (namespace, invert) = ("jwt".into(), false);
            MetadataMatch {
                namespace,
                path,
                test,
                invert,
            }
            .is_match(&metadata)
        };
        let text = |text| ValueTest::Text(TextMatch::exact(text));

        assert!(passes("sub", text("a")));
        assert!(passes("groups", ValueTest::ListWith(Box::new(text("y")))));
        assert!(!passes("groups", text("y")));
        assert!(passes("age", ValueTest::Range(7.0, 8.0)));
        assert!(!passes("age", ValueTest::Range(6.0, 7.0)));
        assert!(passes("no", ValueTest::Null));
        assert!(!passes("no", ValueTest::Present));
        assert!(passes("none", ValueTest::Absent));
        assert!(passes(
            "none",
            ValueTest::OneOf(vec![ValueTest::Present, ValueTest::Absent])
        ));
    }
}

//! The part of a request's address behind the question mark.

use std::time::Duration;

use axum::extract::Query as Parsed;
use http::Uri;

use crate::refusal::Refusal;

/// No query has more parameters.
const MOST_PARAMETERS: usize = 256;

/// The parameters of a request, in order; names may come more than once.
#[derive(Debug, Clone, Default)]
pub(super) struct Query {
    parameters: Vec<(String, String)>,
}

impl Query {
    pub(super) fn of(uri: &Uri) -> Result<Self, Refusal> {
        let Parsed(parameters) = Parsed::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Refusal::BadRequest(format!("the query cannot be read: {error}")))?;
        if parameters.len() > MOST_PARAMETERS {
            return Err(Refusal::BadRequest(
                "the query has too many parameters".to_owned(),
            ));
        }
        Ok(Self { parameters })
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let mut values = self.parameters.iter().filter(|(key, _)| key == name);
        values
            .find(|(_, value)| !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.parameters
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is `true` or `1`; there with no value counts too.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.all(name)
            .any(|value| matches!(value, "" | "true" | "True" | "1"))
    }

    /// Whether a parameter is `true` or `1`, and not merely there.
    pub(super) fn is_set_with_value(&self, name: &str) -> bool {
        self.all(name)
            .any(|value| matches!(value, "true" | "True" | "1"))
    }

    /// A number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Refusal::BadRequest(format!("{name}: {text:?} is not a whole number"))
                })
            })
            .transpose()
    }

    /// A number of seconds.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<Duration>, Refusal> {
        Ok(self.number(name)?.map(Duration::from_secs))
    }
}

//! Answers of the admin interface, and the queries that ask for them.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

impl Reply {
    /// A text, and all is well.
    pub fn ok(text: impl Into<Bytes>) -> Self {
        Self::text(StatusCode::OK, text)
    }

    /// A text.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=UTF-8",
            body: text.into(),
        }
    }

    /// Something of another type.
    pub fn of_type(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            body: body.into(),
        }
    }

    /// JSON, indented.
    pub fn json(value: &serde_json::Value) -> Self {
        let mut text = format!("{value:#}");
        text.push('\n');
        Self::of_type("application/json", text)
    }

    /// As hyper sends it.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(self.content_type),
        );
        // As Envoy: what is shown is of now, and its type is what we say.
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, max-age=0"),
        );
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        response
    }

    /// For tests and callers inside.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The body as text.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// The parameters of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// From `a=b&c`.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        Self(pairs.collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether one is there, with a value or without.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The first of this name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(each, _)| each == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Percent signs and plus signs undone; what is malformed stands for itself.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_malformed_ones_stand_for_themselves() {
        let query = Query::parse("a=b%20c&flag&filter=%5Ecluster&bad=%zz%2");

        assert_eq!(query.value("a"), Some("b c"));
        assert_eq!(query.value("filter"), Some("^cluster"));
        assert_eq!(query.value("bad"), Some("%zz%2"));
        assert!(query.has("flag") && !query.has("none"));
        assert!(Query::parse("").is_empty());
    }
}

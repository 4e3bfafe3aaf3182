//! What one proxy did with an exchange.

use std::collections::BTreeMap;

/// Everything that is compared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) responses: Vec<Response>,
    /// What a TCP client received.
    pub(crate) received: Vec<u8>,
    pub(crate) end: End,
    /// What was agreed on in TLS, or why it failed.
    pub(crate) tls: Option<String>,
    /// The code of the last GOAWAY of HTTP/2.
    pub(crate) goaway: Option<u32>,
    /// What the upstream saw.
    pub(crate) upstream: Vec<Seen>,
    /// Lines of the access log: status and response flags.
    pub(crate) log: Vec<String>,
    /// How much each counter rose.
    pub(crate) counters: BTreeMap<String, i64>,
}

/// How the connection with the client was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum End {
    #[default]
    Open,
    Closed,
}

/// A response as the client got it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Whether it came to its end.
    pub(crate) is_complete: bool,
    /// The code of RST_STREAM of HTTP/2.
    pub(crate) reset: Option<u32>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(each, _)| each.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A request as the upstream got it; of TCP only the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) port: u16,
    /// Method, target and version.
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) is_complete: bool,
    /// The code of RST_STREAM of HTTP/2.
    pub(crate) reset: Option<u32>,
    /// What was agreed on in TLS.
    pub(crate) tls: Option<String>,
}

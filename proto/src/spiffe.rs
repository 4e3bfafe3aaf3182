//! SPIFFE identities of workloads: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.

use std::fmt;
use std::str::FromStr;

/// The identity of a workload. Its parts are never empty and hold only characters that SPIFFE allows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: String,
    namespace: String,
    service_account: String,
}

/// Why a text is no workload identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not of the form spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>")]
pub struct InvalidSpiffeId {
    text: String,
}

/// The longest SPIFFE id, by the SPIFFE-ID standard §2.3.
const MAX_BYTES: usize = 2048;

impl SpiffeId {
    /// Puts an identity together; the parts are validated as in a parsed one.
    pub fn new(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, InvalidSpiffeId> {
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// Who vouches for it.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The namespace of the workload.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account of the workload.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        parse(text).ok_or_else(|| InvalidSpiffeId {
            text: text.chars().take(MAX_BYTES).collect(),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

fn parse(text: &str) -> Option<SpiffeId> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let (trust_domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
    let mut segments = path.split('/');
    let (ns, namespace, sa, service_account) = (
        segments.next()?,
        segments.next()?,
        segments.next()?,
        segments.next()?,
    );
    let is_shaped = ns == "ns" && sa == "sa" && segments.next().is_none();
    let is_named =
        is_trust_domain(trust_domain) && is_segment(namespace) && is_segment(service_account);
    (is_shaped && is_named).then(|| SpiffeId {
        trust_domain: trust_domain.to_owned(),
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
    })
}

/// SPIFFE-ID §2.1: lower-case letters, digits, dot, dash, underscore; at most 255 bytes.
fn is_trust_domain(text: &str) -> bool {
    let is_allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    !text.is_empty() && text.len() <= 255 && text.bytes().all(is_allowed)
}

/// SPIFFE-ID §2.2: letters, digits, dot, dash, underscore; never `.` or `..`.
fn is_segment(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !matches!(text, "" | "." | "..") && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_as_it_was_written() {
        let text = "spiffe://cluster.local/ns/default/sa/reviews-v1";

        let id: SpiffeId = text.parse().expect("valid");

        assert_eq!(id.namespace(), "default");
        assert_eq!(id.service_account(), "reviews-v1");
        assert_eq!(id.to_string(), text);
    }

    #[test]
    fn what_is_not_a_workload_identity_is_refused() {
        for text in [
            "",
            "spiffe://",
            "https://cluster.local/ns/a/sa/b",
            "spiffe://Cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/../sa/b",
            "spiffe://cluster.local/ns/a/sa/b?c",
            "spiffe://cluster.local/ns//sa/b",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}

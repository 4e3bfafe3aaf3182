//! What a certificate says that somebody is called.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509Name};

use crate::config::tls::{NameKind, NameMatch};

/// The names of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Its alternative names, in order.
    pub alternative: Vec<(NameKind, String)>,
    /// Its subject (RFC 2253).
    pub subject: String,
}

impl Names {
    /// Those of a certificate; none where it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        X509Certificate::from_der(certificate)
            .map(|(_, certificate)| Self::read(&certificate))
            .unwrap_or_default()
    }

    pub(crate) fn read(certificate: &X509Certificate<'_>) -> Self {
        let extension = certificate.subject_alternative_name().ok().flatten();
        let names = extension
            .iter()
            .flat_map(|extension| &extension.value.general_names);
        Names {
            alternative: names.filter_map(name).collect(),
            subject: distinguished_name(certificate.subject()),
        }
    }

    /// Those of one kind.
    pub fn all(&self, kind: NameKind) -> impl Iterator<Item = &str> {
        let names = self.alternative.iter();
        names
            .filter(move |(of, _)| *of == kind)
            .map(|(_, name)| name.as_str())
    }

    /// The first of one kind.
    pub fn first(&self, kind: NameKind) -> Option<&str> {
        self.all(kind).next()
    }

    /// What somebody is called first of all: by URI, else by host, else by subject.
    pub fn principal(&self) -> Option<&str> {
        let subject = Some(self.subject.as_str()).filter(|subject| !subject.is_empty());
        self.first(NameKind::Uri)
            .or_else(|| self.first(NameKind::Host))
            .or(subject)
    }

    /// Whether one of them is as wanted.
    pub fn is_match(&self, wanted: &NameMatch) -> bool {
        let mut names = self.alternative.iter();
        names.any(|(kind, name)| {
            wanted.kind.is_none_or(|wanted| wanted == *kind) && wanted.text.is_match(name)
        })
    }
}

/// RFC 2253: the last part first, without blanks between.
pub fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|parts| parts.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type();
    let word = oid2abbrev(kind, oid_registry()).map_or_else(|_| kind.to_id_string(), str::to_owned);
    let mut text = format!("{word}=");
    for character in attribute.as_str().unwrap_or_default().chars() {
        if matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

fn name(name: &GeneralName<'_>) -> Option<(NameKind, String)> {
    Some(match name {
        GeneralName::URI(uri) => (NameKind::Uri, (*uri).to_owned()),
        GeneralName::DNSName(host) => (NameKind::Host, host.to_ascii_lowercase()),
        GeneralName::RFC822Name(address) => (NameKind::Email, (*address).to_owned()),
        GeneralName::IPAddress(bytes) => (NameKind::Address, address(bytes)?.to_string()),
        _ => return None,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;
    use crate::config::matching::TextMatch;

    fn names(alternative: Vec<SanType>) -> Names {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "someone");
        params.subject_alt_names = alternative;
        let key = KeyPair::generate().expect("a key");
        Names::of(params.self_signed(&key).expect("signed").der())
    }

    #[test]
    fn a_name_is_compared_as_what_it_is() {
        let names = names(vec![
            SanType::DnsName("api.example.com".try_into().expect("a name")),
            SanType::IpAddress([10, 0, 0, 1].into()),
        ]);
        let is = |kind, text: &str| {
            names.is_match(&NameMatch {
                kind,
                text: TextMatch::exact(text),
            })
        };

        assert!(is(Some(NameKind::Host), "api.example.com"));
        assert!(is(Some(NameKind::Address), "10.0.0.1"));
        assert!(is(None, "10.0.0.1"));
        assert!(!is(Some(NameKind::Uri), "api.example.com"));
        assert!(!is(None, "someone"), "the subject is no alternative name");
    }

    #[test]
    fn a_principal_is_a_uri_before_a_host_before_the_subject() {
        let uri = SanType::URI("spiffe://a/b".try_into().expect("a URI"));
        let host = SanType::DnsName("a.example".try_into().expect("a name"));

        let both = names(vec![host.clone(), uri]);
        let one = names(vec![host]);
        let none = names(vec![]);

        assert_eq!(both.principal(), Some("spiffe://a/b"));
        assert_eq!(one.principal(), Some("a.example"));
        assert!(none.principal().expect("the subject").contains("someone"));
    }
}

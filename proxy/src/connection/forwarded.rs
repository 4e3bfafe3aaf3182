//! An element of `x-forwarded-client-cert`: what a client's certificate says, for whoever is behind us.

use std::fmt::Write;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::certificate::Names;
use crate::config::http::CertificateDetails;
use crate::config::tls::NameKind;
use crate::tls::pem::pem;

/// The element for a client that has shown certificates, leaf first. `own` is what it believes us to be.
pub(super) fn element(
    certificates: &[CertificateDer<'_>],
    own: Option<&str>,
    details: CertificateDetails,
) -> Option<HeaderValue> {
    let leaf = certificates.first()?;
    let names = Names::of(leaf);
    let mut parts: Vec<String> = own.map(|own| format!("By={own}")).into_iter().collect();
    parts.push(format!("Hash={}", hexadecimal(&Sha256::digest(leaf))));
    if details.certificate {
        parts.push(format!("Cert=\"{}\"", escaped_pem(leaf)));
    }
    if details.chain {
        let chain: String = certificates.iter().map(|each| escaped_pem(each)).collect();
        parts.push(format!("Chain=\"{chain}\""));
    }
    if details.subject {
        // Told even where it is empty, as is the URI.
        parts.push(format!("Subject=\"{}\"", names.subject));
    }
    if details.uri {
        let before = parts.len();
        parts.extend(names.all(NameKind::Uri).map(|uri| format!("URI={uri}")));
        if parts.len() == before {
            parts.push("URI=".to_owned());
        }
    }
    if details.hosts {
        parts.extend(names.all(NameKind::Host).map(|host| format!("DNS={host}")));
    }
    HeaderValue::try_from(parts.join(";")).ok()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In PEM, with all but letters, digits and `-._~` percent-encoded.
fn escaped_pem(certificate: &[u8]) -> String {
    pem(certificate)
        .bytes()
        .fold(String::new(), |mut escaped, byte| {
            match byte {
                b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
                byte if byte.is_ascii_alphanumeric() => escaped.push(char::from(byte)),
                byte => {
                    let _ = write!(escaped, "%{byte:02X}");
                }
            }
            escaped
        })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn an_element_tells_what_is_asked_for_in_envoys_order() {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Books, Inc.");
        params.distinguished_name.push(DnType::CommonName, "client");
        params.subject_alt_names = vec![
            SanType::DnsName("a.example".try_into().expect("a name")),
            SanType::URI("spiffe://a/b".try_into().expect("a URI")),
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed").der().clone();
        let told = |details| {
            let element = element(
                std::slice::from_ref(&certificate),
                Some("spiffe://own"),
                details,
            );
            element
                .expect("a value")
                .to_str()
                .expect("ASCII")
                .to_owned()
        };

        let least = told(CertificateDetails::default());
        let most = told(CertificateDetails {
            subject: true,
            certificate: true,
            chain: true,
            hosts: true,
            uri: true,
        });

        let hash = hexadecimal(&Sha256::digest(&certificate));
        assert_eq!(least, format!("By=spiffe://own;Hash={hash}"));
        assert!(
            most.contains(";Cert=\"-----BEGIN%20CERTIFICATE-----%0A"),
            "{most}"
        );
        assert!(
            most.ends_with(";Subject=\"O=Books\\, Inc.,CN=client\";URI=spiffe://a/b;DNS=a.example"),
            "{most}"
        );
    }
}

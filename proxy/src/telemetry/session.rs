//! What TLS of a connection says of itself and of the peer: its version and cipher, and the peer's certificate, which is
//! read only where a log asks about it.

use rustls::CipherSuite;
use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::{Names, distinguished_name};
use crate::config::tls::NameKind;

/// A handshake that has ended well.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// `TLSv1.3`
    pub version: Option<&'static str>,
    /// As OpenSSL calls it.
    pub cipher: Option<&'static str>,
    /// The peer's.
    pub certificate: Option<CertificateDer<'static>>,
}

/// What may be asked about a peer's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// RFC 2253.
    Subject,
    /// RFC 2253.
    Issuer,
    /// In hexadecimal digits.
    Serial,
    /// SHA-256 of it, in hexadecimal digits.
    Fingerprint,
    /// Alternative names of one kind.
    Names(NameKind),
}

impl Session {
    /// Of what a handshake has agreed on.
    pub fn new(
        version: Option<ProtocolVersion>,
        cipher: Option<CipherSuite>,
        certificate: Option<&CertificateDer<'static>>,
    ) -> Self {
        Session {
            version: version.and_then(version_name),
            cipher: cipher.and_then(cipher_name),
            certificate: certificate.cloned(),
        }
    }

    /// What the peer's certificate says; none where there is no certificate, or it says nothing.
    pub fn field(&self, field: Field) -> Option<String> {
        let der = self.certificate.as_ref()?;
        let text = match field {
            Field::Fingerprint => hexadecimal(&Sha256::digest(der)),
            Field::Names(kind) => Names::of(der).all(kind).collect::<Vec<_>>().join(","),
            Field::Subject => Names::of(der).subject,
            Field::Issuer => distinguished_name(read(der)?.issuer()),
            Field::Serial => serial(&read(der)?),
        };
        (!text.is_empty()).then_some(text)
    }

    /// From when and until when the peer's certificate is valid, in seconds since 1970.
    pub fn validity(&self) -> Option<(i64, i64)> {
        let certificate = read(self.certificate.as_ref()?)?;
        let validity = certificate.validity();
        Some((
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        ))
    }
}

fn read<'der>(der: &'der CertificateDer<'_>) -> Option<X509Certificate<'der>> {
    X509Certificate::from_der(der)
        .ok()
        .map(|(_, certificate)| certificate)
}

/// Without the zero that keeps DER from taking it for negative.
fn serial(certificate: &X509Certificate<'_>) -> String {
    let bytes = certificate.raw_serial();
    let first = bytes.iter().position(|byte| *byte != 0);
    hexadecimal(&bytes[first.unwrap_or(bytes.len())..])
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn version_name(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    }
}

/// Those that rustls speaks.
fn cipher_name(cipher: CipherSuite) -> Option<&'static str> {
    Some(match cipher {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber};

    use super::*;

    #[test]
    fn a_certificate_is_read_where_it_is_asked_about() {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Books, Inc.");
        params.serial_number = Some(SerialNumber::from(vec![0x80, 1]));
        params.subject_alt_names = vec![
            SanType::DnsName("a.example".try_into().expect("a name")),
            SanType::DnsName("b.example".try_into().expect("a name")),
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let session = Session::new(
            Some(ProtocolVersion::TLSv1_3),
            Some(CipherSuite::TLS13_AES_128_GCM_SHA256),
            Some(certificate.der()),
        );

        let told = |field| session.field(field).unwrap_or_default();
        assert_eq!(session.version, Some("TLSv1.3"));
        assert_eq!(told(Field::Serial), "8001");
        assert_eq!(told(Field::Names(NameKind::Host)), "a.example,b.example");
        assert_eq!(session.field(Field::Names(NameKind::Uri)), None);
        assert!(
            told(Field::Issuer).contains("O=Books\\, Inc."),
            "{}",
            told(Field::Issuer)
        );
        assert_eq!(told(Field::Issuer), told(Field::Subject));
        assert_eq!(told(Field::Fingerprint).len(), 64);
        assert!(session.validity().is_some_and(|(from, to)| from < to));
        assert_eq!(Session::default().field(Field::Subject), None);
    }
}

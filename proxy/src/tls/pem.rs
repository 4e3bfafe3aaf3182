//! Certificates as text.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;

/// A certificate in PEM: lines of 64 characters (RFC 7468).
pub fn pem(der: &[u8]) -> String {
    let encoded = BASE64.encode(der);
    let lines = encoded
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect::<Vec<_>>();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

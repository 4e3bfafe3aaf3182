//! What was signed: a bounded memory of certificates, for people who ask.

use std::collections::VecDeque;

use rustls_pki_types::CertificateDer;
use serde::Serialize;

/// So many certificates are remembered.
const CAPACITY: usize = 16 * 1024;

/// A certificate that was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRecord {
    /// `spiffe://…`, or the authority's name.
    #[serde(rename = "spiffeId")]
    pub identity: String,
    /// Hexadecimal.
    pub serial: String,
    /// Seconds since the epoch.
    pub not_before: i64,
    /// Seconds since the epoch.
    pub not_after: i64,
}

/// The certificates that were signed, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Records {
    records: VecDeque<CertificateRecord>,
}

impl Records {
    /// Remembers one, and forgets those that have ended, and the oldest where there are too many.
    pub(super) fn add(&mut self, record: CertificateRecord, now: i64) {
        // All leaves live equally long, so what ended is in front.
        while self
            .records
            .front()
            .is_some_and(|oldest| oldest.not_after <= now || self.records.len() >= CAPACITY)
        {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    /// Those that have not ended, the newest first.
    pub(super) fn list(&self, now: i64) -> Vec<CertificateRecord> {
        self.records
            .iter()
            .rev()
            .filter(|record| record.not_after > now)
            .cloned()
            .collect()
    }
}

/// What a certificate says of itself.
pub(super) fn of(identity: &str, certificate: &CertificateDer<'_>) -> Option<CertificateRecord> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(CertificateRecord {
        identity: identity.to_owned(),
        serial: parsed
            .raw_serial()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: usize, not_after: i64) -> CertificateRecord {
        CertificateRecord {
            identity: format!("spiffe://cluster.local/ns/a/sa/{number}"),
            serial: format!("{number:x}"),
            not_before: 0,
            not_after,
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut records = Records::default();
        for number in 0..CAPACITY + 5 {
            records.add(record(number, 100), 0);
        }

        let list = records.list(0);

        assert_eq!(list.len(), CAPACITY);
        assert_eq!(list[0].serial, format!("{:x}", CAPACITY + 4));
    }

    #[test]
    fn a_certificate_that_has_ended_is_not_listed() {
        let mut records = Records::default();
        records.add(record(1, 100), 0);
        records.add(record(2, 200), 0);

        assert_eq!(records.list(100), [record(2, 200)]);
    }
}

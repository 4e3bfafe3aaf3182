//! What was signed: a bounded memory of certificates, for people who ask. It outlives the process, in a file of one line of
//! JSON for each.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

/// So many certificates are remembered.
const CAPACITY: usize = 16 * 1024;

/// A certificate that was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug)]
pub(super) struct Records {
    records: VecDeque<CertificateRecord>,
    path: PathBuf,
    /// Lines of the file, of which some may tell of certificates that have ended.
    lines: usize,
}

impl Records {
    /// Remembers what the file says; it need not exist. A line that was not written to its end is left out.
    pub(super) fn open(path: PathBuf, now: i64) -> io::Result<Self> {
        let mut records = Self {
            records: VecDeque::new(),
            path,
            lines: 0,
        };
        match File::open(&records.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
            Err(error) => return Err(error),
            Ok(file) => {
                for line in BufReader::new(file).lines() {
                    if let Ok(record) = serde_json::from_str(&line?) {
                        records.remember(record, now);
                    }
                }
            }
        }
        records.rewrite()?;
        Ok(records)
    }

    /// Remembers one, and forgets those that have ended, and the oldest where there are too many.
    pub(super) fn add(&mut self, record: CertificateRecord, now: i64) -> io::Result<()> {
        let line = serde_json::to_string(&record)?;
        self.remember(record, now);
        if self.lines >= 2 * CAPACITY {
            return self.rewrite();
        }
        let mut file = append_to(&self.path)?;
        self.lines += 1;
        file.write_all(format!("{line}\n").as_bytes())
    }

    /// Makes the file say what is remembered, and nothing else.
    fn rewrite(&mut self) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut text = Vec::new();
        for record in &self.records {
            serde_json::to_writer(&mut text, record)?;
            text.push(b'\n');
        }
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => append_to(&beside)?.write_all(&text)?,
        }
        self.lines = self.records.len();
        std::fs::rename(&beside, &self.path)
    }

    fn remember(&mut self, record: CertificateRecord, now: i64) {
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

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
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

    fn records(directory: &tempfile::TempDir) -> Records {
        Records::open(directory.path().join("issued.jsonl"), 0).unwrap()
    }

    #[test]
    fn the_memory_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let mut records = records(&directory);
        for number in 0..CAPACITY + 5 {
            records.remember(record(number, 100), 0);
        }

        let list = records.list(0);

        assert_eq!(list.len(), CAPACITY);
        assert_eq!(list[0].serial, format!("{:x}", CAPACITY + 4));
    }

    #[test]
    fn a_certificate_that_has_ended_is_not_listed() {
        let directory = tempfile::tempdir().unwrap();
        let mut records = records(&directory);
        records.add(record(1, 100), 0).unwrap();
        records.add(record(2, 200), 0).unwrap();

        assert_eq!(records.list(100), [record(2, 200)]);
    }

    #[test]
    fn the_next_process_remembers_but_for_a_line_that_was_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let mut earlier = records(&directory);
        earlier.add(record(1, 100), 0).unwrap();
        earlier.add(record(2, 200), 0).unwrap();
        let mut file = append_to(&earlier.path).unwrap();
        file.write_all(b"{\"spiffeId\": \"spif").unwrap();

        let mut next = records(&directory);
        next.add(record(3, 300), 0).unwrap();

        let found = records(&directory).list(0);
        assert_eq!(found, [record(3, 300), record(2, 200), record(1, 100)]);
    }

    #[test]
    fn the_file_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let mut records = records(&directory);
        records.lines = 2 * CAPACITY;

        records.add(record(1, 100), 0).unwrap();

        let text = std::fs::read_to_string(&records.path).unwrap();
        assert_eq!(text.lines().count(), 1);
    }
}

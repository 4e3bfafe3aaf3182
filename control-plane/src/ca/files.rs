//! The authority on disk: `root.pem` and `issuing.pem`, a certificate and its key each, and `issued.jsonl`, what was signed;
//! readable by their owner only.
//!
//! Certificate and key share a file so that replacing both is one rename.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificates::{self, Validity};
use super::record::Records;
use super::{BACKDATED, CaError, Signer};

const ROOT: &str = "root.pem";
const ISSUING: &str = "issuing.pem";
const ISSUED: &str = "issued.jsonl";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ROOT_LIFETIME: Duration = DAY.saturating_mul(3652);
const ISSUING_LIFETIME: Duration = DAY.saturating_mul(90);

/// Whether there is an authority in a directory, or what is left of one.
pub(super) fn exist(directory: &Path) -> Result<bool, CaError> {
    for name in [ROOT, ISSUING] {
        let path = directory.join(name);
        if path
            .try_exists()
            .map_err(|source| failed("looking for", &path, source))?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes an authority. It is made beside its place and moved there whole, so that there is all of it or nothing.
pub(super) fn create(directory: &Path, trust_domain: &str, now: SystemTime) -> Result<(), CaError> {
    let beside = directory.with_extension(format!("new-{}", std::process::id()));
    make_directory(&beside)?;
    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate =
        certificates::root(trust_domain, from(now, ROOT_LIFETIME)).self_signed(&root_key)?;
    write(
        &beside.join(ROOT),
        &certificate.pem(),
        &root_key.serialize_pem(),
    )?;
    renew_issuing(&beside, &read_root(&beside)?, trust_domain, now)?;

    // An empty directory in its place is replaced; one with files in it is an error that names it.
    fs::rename(&beside, directory).map_err(|source| failed("putting in place", directory, source))
}

/// Makes a new issuing authority in place of the one that is there.
pub(super) fn renew_issuing(
    directory: &Path,
    root: &Signer,
    trust_domain: &str,
    now: SystemTime,
) -> Result<(), CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut validity = from(now, ISSUING_LIFETIME);
    validity.not_after = validity.not_after.min(root.not_after);
    let certificate =
        certificates::issuing(trust_domain, validity).signed_by(&key, &root.issuer)?;
    write(
        &directory.join(ISSUING),
        &certificate.pem(),
        &key.serialize_pem(),
    )
}

/// Reads what was signed before.
pub(super) fn read_issued(directory: &Path, now: i64) -> Result<Records, CaError> {
    let path = directory.join(ISSUED);
    Records::open(path.clone(), now).map_err(|source| failed("reading", &path, source))
}

/// Reads the root.
pub(super) fn read_root(directory: &Path) -> Result<Signer, CaError> {
    read(&directory.join(ROOT))
}

/// Reads the issuing authority.
pub(super) fn read_issuing(directory: &Path) -> Result<Signer, CaError> {
    read(&directory.join(ISSUING))
}

fn from(now: SystemTime, lifetime: Duration) -> Validity {
    Validity {
        not_before: now - BACKDATED,
        not_after: now + lifetime,
    }
}

fn make_directory(path: &Path) -> Result<(), CaError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| failed("making", path, source))
}

fn write(path: &Path, certificate: &str, key: &str) -> Result<(), CaError> {
    let beside = path.with_extension("pem.new");
    write_private(&beside, certificate, key)
        .map_err(|source| failed("writing", &beside, source))?;
    fs::rename(&beside, path).map_err(|source| failed("putting in place", path, source))
}

fn write_private(path: &Path, certificate: &str, key: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(certificate.as_bytes())?;
    file.write_all(key.as_bytes())?;
    file.sync_all()
}

fn read(path: &Path) -> Result<Signer, CaError> {
    let malformed = || CaError::Malformed {
        path: path.to_owned(),
    };
    let pem = fs::read(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => CaError::Incomplete {
            path: path.to_owned(),
        },
        _ => failed("reading", path, source),
    })?;
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|_| malformed())?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| malformed())?;
    let key = KeyPair::try_from(&key).map_err(|_| malformed())?;

    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| malformed())?;
    if parsed.public_key().subject_public_key.as_ref() != key.public_key_raw() {
        return Err(malformed());
    }
    let ends = u64::try_from(parsed.validity().not_after.timestamp()).map_err(|_| malformed())?;
    Ok(Signer {
        issuer: Issuer::from_ca_cert_der(&certificate, key)?,
        not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(ends),
        certificate: certificate.into_owned(),
    })
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> CaError {
    CaError::File {
        action,
        path: PathBuf::from(path),
        source,
    }
}

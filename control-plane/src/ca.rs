//! The certificate authority: signs the identities of attested workloads.
//!
//! A root of ten years signs an issuing authority of ninety days, and that signs workloads for a day. All of it is
//! made at the first start and lives in one directory that only its owner can read. The root is self-made: its
//! names are not constrained, because constraints on URIs break more verifiers than they protect.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::RngExt;
use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;
use weft_proto::spiffe::SpiffeId;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

mod certificates;
mod files;
pub mod record;

use certificates::Validity;
use record::{CertificateRecord, Records};

/// How long a workload's certificate holds.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Clocks may differ by that much.
const BACKDATED: Duration = Duration::from_secs(60);
/// A new issuing authority is made when the present one has less than this left.
const ISSUING_RESERVE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// No CSR with one key and a few names is larger.
const MAX_CSR_BYTES: usize = 16 * 1024;

/// Why something could not be signed, or the authority not opened.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Reading or writing a file of the authority.
    #[error("certificate authority: {action} {path}")]
    File {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is there and another one is not.
    #[error(
        "certificate authority: {path} is missing beside others; restore it from a backup, or move the whole \
         directory away to begin with a new root"
    )]
    Incomplete {
        /// The file that is missing.
        path: PathBuf,
    },
    /// A file does not hold what it should.
    #[error(
        "certificate authority: {path} is not a certificate or key; restore it from a backup, or move the whole \
         directory away to begin with a new root"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The root itself has ended.
    #[error(
        "certificate authority: the root has ended; move {directory} away and restart to begin with a new one"
    )]
    RootEnded {
        /// Where it is.
        directory: PathBuf,
    },
    /// The request is none, or its signature is not by its own key.
    #[error("not a certificate request signed by its own key: {reason}")]
    Request {
        /// What is wrong with it.
        reason: String,
    },
    /// The cryptographic library said no.
    #[error("certificate authority: making a certificate")]
    Make(#[from] rcgen::Error),
}

/// The certificate authority of a mesh.
pub struct Authority {
    directory: PathBuf,
    trust_domain: String,
    root: Signer,
    issuing: ArcSwap<Signer>,
    /// Held while a new issuing authority is made, so that only one is.
    renewal: Mutex<()>,
    records: Mutex<Records>,
}

/// A certificate that signs others, with its key.
struct Signer {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
}

/// A certificate for a workload.
#[derive(Debug, Clone)]
pub struct Signed {
    /// Who it is for.
    pub identity: SpiffeId,
    /// The workload's certificate, then the issuing authority's.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it ends.
    pub not_after: SystemTime,
    /// When to ask for the next one.
    pub renew_at: SystemTime,
}

/// A certificate together with its key, for clients that cannot make a key of their own.
pub struct Issued {
    /// The certificate.
    pub signed: Signed,
    /// The key, PKCS#8 in PEM.
    pub key_pem: String,
}

impl Authority {
    /// Opens the authority in a directory, or makes a new one where there is none.
    ///
    /// # Errors
    /// When files cannot be read or written, or are not whole; the message says what to do.
    pub fn open(
        directory: &Path,
        trust_domain: &str,
        now: SystemTime,
    ) -> Result<Arc<Self>, CaError> {
        if !files::exist(directory)? {
            files::create(directory, trust_domain, now)?;
        }
        let root = files::read_root(directory)?;
        if root.not_after <= now {
            return Err(CaError::RootEnded {
                directory: directory.to_owned(),
            });
        }
        let authority = Self {
            issuing: ArcSwap::from_pointee(files::read_issuing(directory)?),
            root,
            directory: directory.to_owned(),
            trust_domain: trust_domain.to_owned(),
            renewal: Mutex::new(()),
            records: Mutex::new(files::read_issued(directory, seconds(now))?),
        };
        authority.current_issuing(now)?;
        Ok(Arc::new(authority))
    }

    /// The domain that all signed identities are of.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The certificates to trust.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.certificate.clone()]
    }

    /// Signs a request (PKCS#10, DER) for an identity that the caller has attested. Nothing that the request says
    /// of itself is taken over, except its key.
    ///
    /// # Errors
    /// When the request is malformed or not signed by its own key.
    pub fn sign(
        &self,
        request: &[u8],
        identity: &SpiffeId,
        now: SystemTime,
    ) -> Result<Signed, CaError> {
        let key = public_key(request)?;
        self.certify(&key, identity, now)
    }

    /// Makes a key and signs it.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn issue(&self, identity: &SpiffeId, now: SystemTime) -> Result<Issued, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Issued {
            signed: self.certify(&key, identity, now)?,
            key_pem: key.serialize_pem(),
        })
    }

    /// The certificates that were signed and have not ended, the newest first; the oldest may have been forgotten.
    pub fn certificates(&self, now: SystemTime) -> Vec<CertificateRecord> {
        self.records.lock().list(seconds(now))
    }

    /// Root and issuing authority.
    pub fn authorities(&self) -> Vec<CertificateRecord> {
        let issuing = self.issuing.load();
        [("root", &self.root), ("issuing", &**issuing)]
            .into_iter()
            .filter_map(|(name, signer)| record::of(name, &signer.certificate))
            .collect()
    }

    fn certify(
        &self,
        key: &impl PublicKeyData,
        identity: &SpiffeId,
        now: SystemTime,
    ) -> Result<Signed, CaError> {
        let issuing = self.current_issuing(now)?;
        let validity = Validity {
            not_before: now - BACKDATED,
            not_after: (now + LEAF_LIFETIME).min(issuing.not_after),
        };
        let certificate =
            certificates::workload(identity, validity)?.signed_by(key, &issuing.issuer)?;
        let signed = Signed {
            identity: identity.clone(),
            chain: vec![certificate.der().clone(), issuing.certificate.clone()],
            not_after: validity.not_after,
            renew_at: renewal_time(now, validity.not_after, rand::rng().random_range(0.0..1.0)),
        };
        if let Some(record) = record::of(&identity.to_string(), &signed.chain[0]) {
            // A certificate is good even where nobody will be told of it.
            if let Err(error) = self.records.lock().add(record, seconds(now)) {
                tracing::warn!(%error, "the list of certificates could not be kept");
            }
        }
        Ok(signed)
    }

    /// The issuing authority, a new one where the old one is near its end.
    fn current_issuing(&self, now: SystemTime) -> Result<Arc<Signer>, CaError> {
        let is_fresh = |signer: &Signer| signer.not_after > now + ISSUING_RESERVE;
        let present = self.issuing.load_full();
        if is_fresh(&present) {
            return Ok(present);
        }
        let _only_one = self.renewal.lock();
        let present = self.issuing.load_full();
        if is_fresh(&present) {
            return Ok(present);
        }
        files::renew_issuing(&self.directory, &self.root, &self.trust_domain, now)?;
        let renewed = Arc::new(files::read_issuing(&self.directory)?);
        self.issuing.store(Arc::clone(&renewed));
        Ok(renewed)
    }
}

/// At two thirds of the lifetime, a twentieth of it earlier or later by chance, so that sidecars which started
/// together do not ask together.
fn renewal_time(now: SystemTime, not_after: SystemTime, chance: f64) -> SystemTime {
    let lifetime = not_after.duration_since(now).unwrap_or_default();
    now + lifetime.mul_f64(2.0 / 3.0 - 0.05 + 0.1 * chance)
}

fn public_key(request: &[u8]) -> Result<SubjectPublicKeyInfo, CaError> {
    let refuse = |reason: String| CaError::Request { reason };
    if request.len() > MAX_CSR_BYTES {
        return Err(refuse(format!("larger than {MAX_CSR_BYTES} bytes")));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(request).map_err(|error| refuse(error.to_string()))?;
    if !rest.is_empty() {
        return Err(refuse("bytes follow it".to_owned()));
    }
    request
        .verify_signature()
        .map_err(|error| refuse(error.to_string()))?;
    SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
        .map_err(|error| refuse(error.to_string()))
}

/// Seconds since the epoch; 0 before it.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

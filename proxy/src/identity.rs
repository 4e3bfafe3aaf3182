//! Who the proxy is: a key made here, signed by the control plane, renewed long before it ends.
//!
//! The key never leaves the sidecar: it and its chain are kept in the state directory, readable by the sidecar
//! alone, so that a restarted one is back without its control plane. The control plane knows who is asking from
//! the kernel, so a request holds nothing but the public key.

pub mod credentials;
#[cfg(test)]
pub(crate) mod testing;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use rand::RngExt;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weft_proto::weft::identity::v1::SignRequest;
use weft_proto::weft::identity::v1::identity_service_client::IdentityServiceClient;

use self::credentials::{Credentials, InvalidCredentials, StoredCredentials};
use crate::config::identity::Identity;
use crate::telemetry::registry::{Family, Registry};
use crate::telemetry::value::{Counter, Gauge};
use crate::xds::backoff::Backoff;
use crate::xds::store::write_atomically;
use crate::xds::translate::chain;
use crate::xds::transport::ControlPlane;

/// File name in the state directory.
const FILE_NAME: &str = "identity.pb";
/// How long the control plane may take to sign.
const SIGN_TIMEOUT: Duration = Duration::from_secs(10);
/// The first wait after a failure, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// The clock may be set and the machine may sleep: it is looked at this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Why there is no new identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No key or request could be made.
    #[error("making a key")]
    Key(#[from] rcgen::Error),
    /// The control plane is away.
    #[error("connecting to the identity service at {0}")]
    Connect(String, #[source] tonic::transport::Error),
    /// The control plane refused.
    #[error("the identity service refused: {}: {}", .0.code(), .0.message())]
    Refused(Box<tonic::Status>),
    /// The control plane is slow.
    #[error("the identity service did not answer within {} seconds", SIGN_TIMEOUT.as_secs())]
    Slow,
    /// What it signed is not used.
    #[error("what the identity service signed is not used")]
    Invalid(#[from] InvalidCredentials),
}

/// The identity of the process as it is known now; `None` until the first is there.
pub type CredentialsReceiver = watch::Receiver<Option<Arc<Credentials>>>;

/// Keeps an identity current.
#[derive(Debug)]
pub struct Renewer {
    control_plane: ControlPlane,
    file: Option<PathBuf>,
    identity: watch::Sender<Option<Arc<Identity>>>,
    credentials: watch::Sender<Option<Arc<Credentials>>>,
    renewals: Arc<Family<Counter>>,
    ends: Arc<Gauge>,
}

impl Renewer {
    /// Starts from what is on disk, which is published at once. `identity` is where TLS looks.
    pub fn new(
        control_plane: ControlPlane,
        state_dir: Option<&Path>,
        identity: watch::Sender<Option<Arc<Identity>>>,
        registry: &Registry,
    ) -> (Self, CredentialsReceiver) {
        let (credentials, receiver) = watch::channel(None);
        let renewer = Self {
            control_plane,
            file: state_dir.map(|dir| dir.join(FILE_NAME)),
            identity,
            credentials,
            renewals: registry.counters(
                "weft_identity_renewals_total",
                "Attempts to have an identity signed, by result.",
                &["result"],
            ),
            ends: registry.gauge(
                "weft_identity_expiration_timestamp_seconds",
                "When the certificate of the workload ends, in seconds since the epoch; 0 without one.",
            ),
        };
        if let Some(stored) = renewer.stored() {
            info!(spiffe_id = %stored.identity.spiffe_id, "continuing with the identity that is on disk");
            renewer.publish(stored);
        }
        (renewer, receiver)
    }

    /// Renews until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        tokio::select! {
            () = self.renew_for_ever() => {}
            () = cancel.cancelled() => {}
        }
    }

    async fn renew_for_ever(&self) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            self.until_due().await;
            match self.sign().await {
                Ok((stored, credentials)) => {
                    self.renewals.with(&["signed"]).increment();
                    info!(spiffe_id = %credentials.identity.spiffe_id, "identity signed");
                    self.keep(stored).await;
                    self.publish(credentials);
                    backoff.reset();
                }
                Err(error) => {
                    self.renewals.with(&["failed"]).increment();
                    let wait = backoff.next_wait(&mut rand::rng());
                    warn!(
                        error = chain(&error),
                        ?wait,
                        "no new identity; the old one serves on"
                    );
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Waits until it is time to ask. The time that was told is moved forward by up to a tenth of what is left
    /// then, so that sidecars which started together don't ask together.
    async fn until_due(&self) {
        let Some(current) = self.credentials.borrow().clone() else {
            return;
        };
        let lifetime = current
            .not_after
            .duration_since(current.renew_at)
            .unwrap_or_default();
        let due = current.renew_at + lifetime.mul_f64(rand::rng().random_range(0.0..0.1));
        while let Ok(left) = due.duration_since(SystemTime::now()) {
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        }
    }

    async fn sign(&self) -> Result<(StoredCredentials, Credentials), IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let (_, channel) = self
            .control_plane
            .connect(0)
            .await
            .map_err(|(target, source)| IdentityError::Connect(target.to_string(), source))?;
        let mut service = IdentityServiceClient::new(channel);
        let request = SignRequest {
            csr: csr.der().to_vec().into(),
        };
        let signed = timeout(SIGN_TIMEOUT, service.sign(request))
            .await
            .map_err(|_| IdentityError::Slow)?
            .map_err(|status| IdentityError::Refused(Box::new(status)))?
            .into_inner();
        let stored = StoredCredentials {
            key: key.serialize_der(),
            signed: Some(signed),
        };
        let credentials = stored.check(SystemTime::now())?;
        Ok((stored, credentials))
    }

    fn publish(&self, credentials: Credentials) {
        let ends = credentials
            .not_after
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.ends
            .set(i64::try_from(ends.as_secs()).unwrap_or(i64::MAX));
        self.identity
            .send_replace(Some(Arc::clone(&credentials.identity)));
        self.credentials.send_replace(Some(Arc::new(credentials)));
    }

    fn stored(&self) -> Option<Credentials> {
        let file = self.file.as_ref()?;
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(file = %file.display(), %error, "the stored identity cannot be read");
                return None;
            }
        };
        let stored = match StoredCredentials::decode(bytes.as_slice()) {
            Ok(stored) => stored,
            Err(error) => {
                warn!(file = %file.display(), %error, "the stored identity is damaged");
                return None;
            }
        };
        stored
            .check(SystemTime::now())
            .inspect_err(|error| warn!(error = chain(error), "the stored identity is not used"))
            .ok()
    }

    async fn keep(&self, stored: StoredCredentials) {
        let Some(file) = self.file.clone() else {
            return;
        };
        let shown = file.display().to_string();
        let written =
            tokio::task::spawn_blocking(move || write_atomically(&file, &stored.encode_to_vec()));
        if let Ok(Err(error)) = written.await {
            warn!(file = shown, %error, "the identity is not kept; a restart will ask for another");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::testing::Authority;
    use super::*;
    use crate::telemetry::value::Shards;
    use crate::xds::dialogue::Variant;
    use crate::xds::transport::Target;

    const ID: &str = "spiffe://cluster.local/ns/default/sa/reviews";

    fn renewer(state_dir: &Path) -> (Renewer, CredentialsReceiver) {
        let registry = Registry::new(Shards::for_threads(1), 10);
        let missing = Target::Socket("/nonexistent/xds.sock".into());
        let control_plane = ControlPlane::in_the_clear(vec![missing], Variant::Delta);
        Renewer::new(
            control_plane,
            Some(state_dir),
            watch::channel(None).0,
            &registry,
        )
    }

    #[tokio::test]
    async fn an_identity_on_disk_is_there_at_once_and_readable_by_its_owner_only() {
        let dir = tempfile::tempdir().expect("directory");
        let (first, _) = renewer(dir.path());
        first.keep(Authority::new().issue(ID)).await;

        let (_second, credentials) = renewer(dir.path());

        let credentials = credentials.borrow().clone().expect("an identity");
        assert_eq!(&*credentials.identity.spiffe_id, ID);
        let mode = std::fs::metadata(dir.path().join(FILE_NAME))
            .expect("metadata")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().expect("directory");
        std::fs::write(dir.path().join(FILE_NAME), b"\xff\xff").expect("written");

        let (_renewer, credentials) = renewer(dir.path());

        assert!(credentials.borrow().is_none());
    }
}

//! Everything that sidecars talk to, started together: translation, discovery, identities, and their sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::attest::{Attest, ByNetworkNamespace};
use crate::ca::{Authority, CaError};
use crate::identity::Identity;
use crate::mesh::Settings;
use crate::store::Store;
use crate::translate::Snapshot;

use super::listen::{self, ListenError};
use super::proxies::Proxies;
use super::{Discovery, publish};

/// The directory of the authority, below the home directory.
const CA: &str = "ca";

/// Where and for whom.
#[derive(Debug, Clone)]
pub struct Options {
    /// `$WEFT_HOME`: the authority is kept there.
    pub home: PathBuf,
    /// `$WEFT_RUNTIME_DIR`: the sockets are there.
    pub runtime_directory: PathBuf,
    /// What holds for the whole mesh.
    pub settings: Settings,
    /// Where xDS is served to anybody, if at all.
    pub insecure_address: Option<SocketAddr>,
}

/// Why it could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate authority.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// A socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// What runs for sidecars; it ends when its token is cancelled, or when it is dropped.
pub struct Plane {
    /// Who is connected.
    pub proxies: Arc<Proxies>,
    /// Who signs.
    pub authority: Arc<Authority>,
    store: Store,
    tasks: JoinSet<Result<(), ListenError>>,
}

/// What the API tells of a [`Plane`].
pub struct Observations {
    proxies: Arc<Proxies>,
    authority: Arc<Authority>,
    store: Store,
}

impl Plane {
    /// Opens the authority and the sockets, translates what is in the store, and serves.
    ///
    /// # Errors
    /// When authority or sockets cannot be opened; nothing runs then.
    pub fn start(
        options: Options,
        store: &Store,
        cancelled: &CancellationToken,
    ) -> Result<Self, StartError> {
        let Options {
            home,
            runtime_directory,
            settings,
            insecure_address,
        } = options;
        let authority = Authority::open(&home.join(CA), &settings.trust_domain, SystemTime::now())?;
        let listener = listen::bind(&runtime_directory)?;
        let insecure = insecure_address.map(listen::bind_tcp).transpose()?;
        let proxies = Arc::new(Proxies::default());
        let first: Snapshot = publish::compile(&store.snapshot(), &settings, None);
        let (sender, snapshots) = watch::channel(Arc::new(first));
        let attest: Arc<dyn Attest> = Arc::new(ByNetworkNamespace);
        let discovery = Discovery::new(
            snapshots.clone(),
            Arc::clone(&attest),
            Arc::clone(&authority),
            Arc::clone(&proxies),
            cancelled.clone(),
        );
        let identity = Identity::new(Arc::clone(&authority), attest, snapshots);

        let mut tasks = JoinSet::new();
        let publishing = publish::run(store.subscribe(), settings, sender, cancelled.clone());
        tasks.spawn(async move {
            publishing.await;
            Ok(())
        });
        if let Some(listener) = insecure {
            let serving =
                listen::serve_insecurely(listener, discovery.insecure(), cancelled.clone());
            tasks.spawn(serving);
        }
        tasks.spawn(listen::serve(
            listener,
            discovery,
            identity,
            cancelled.clone(),
        ));
        Ok(Self {
            proxies,
            authority,
            store: store.clone(),
            tasks,
        })
    }

    /// What the API may tell of it.
    pub fn observations(&self) -> Observations {
        Observations {
            proxies: Arc::clone(&self.proxies),
            authority: Arc::clone(&self.authority),
            store: self.store.clone(),
        }
    }

    /// Waits for the end: that of all parts once cancelled, or the failure of one.
    ///
    /// # Errors
    /// When a part failed.
    pub async fn ended(mut self) -> Result<(), ListenError> {
        while let Some(task) = self.tasks.join_next().await {
            match task {
                Ok(ended) => ended?,
                Err(error) => tracing::error!(%error, "a part of the control plane ended"),
            }
        }
        Ok(())
    }
}

impl Observations {
    /// Connected proxies: `{"revision": …, "proxies": […]}`.
    pub fn proxies(&self) -> Value {
        json!({
            "revision": self.store.snapshot().revision(),
            "proxies": self.proxies.list(),
        })
    }

    /// Certificates that still hold: `[{"spiffeId", "serial", "notBefore", "notAfter"}]`, times in seconds since
    /// the epoch.
    pub fn certificates(&self) -> Vec<Value> {
        let certificates = self.authority.certificates(SystemTime::now());
        certificates
            .iter()
            .map(|certificate| json!(certificate))
            .collect()
    }
}

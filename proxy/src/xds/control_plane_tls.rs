//! TLS towards a control plane: its certificates and authorities are read again for each connection.
//!
//! They may be renewed while the proxy runs. What cannot be read any more leaves what was read last.

use std::sync::Arc;

use parking_lot::Mutex;
use weft_proto::any::pack;
use weft_proto::envoy::config::core::v3::TransportSocket;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::Secret;

use super::control_planes::Unusable;
use super::kind::Kind;
use super::secrets::{self, Secrets};
use super::translate::control_plane::transport;
use super::translate::{Checked, Invalid, translate};
use crate::config::cluster::Transport;
use crate::config::tls::UpstreamTls;

/// Why it is not used.
#[derive(Debug, thiserror::Error)]
pub enum TlsUnusable {
    /// A field, its path beginning at the transport socket.
    #[error(transparent)]
    Field(#[from] Invalid),
    /// It wants what only a control plane could give.
    #[error(
        "the workload's identity is signed by the control plane: name certificates of your own"
    )]
    Identity,
    /// A secret is not there.
    #[error("the secret {0:?} is not in static_resources.secrets, or is of another type")]
    NoSecret(Arc<str>),
}

impl TlsUnusable {
    /// The same, by the path from the top of the bootstrap; `field` is where the transport socket is.
    pub(super) fn within(&self, field: &str) -> Unusable {
        match self {
            TlsUnusable::Field(invalid) => Unusable {
                field: format!("{field}.{}", invalid.path()),
                reason: invalid.reason().to_owned(),
            },
            other => Unusable {
                field: field.to_owned(),
                reason: other.to_string(),
            },
        }
    }
}

/// What a bootstrap says of it, and what that was when it was read last.
#[derive(Debug)]
pub struct ControlPlaneTls {
    wire: TransportSocket,
    secrets: Vec<Secret>,
    last: Mutex<Arc<UpstreamTls>>,
}

/// Whether the same is said; what files hold may differ.
impl PartialEq for ControlPlaneTls {
    fn eq(&self, other: &Self) -> bool {
        self.wire == other.wire && self.secrets == other.secrets
    }
}

impl ControlPlaneTls {
    /// Reads it for the first time; none where bytes go in the clear.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn read(wire: &TransportSocket, secrets: &[Secret]) -> Result<Option<Self>, TlsUnusable> {
        let read = upstream(wire, secrets)?;
        Ok(read.map(|tls| Self {
            wire: wire.clone(),
            secrets: secrets.to_vec(),
            last: Mutex::new(Arc::new(tls)),
        }))
    }

    /// What was read last.
    pub fn last(&self) -> Arc<UpstreamTls> {
        Arc::clone(&self.last.lock())
    }

    /// What it is now. Reads files, and blocks for as long as that takes.
    pub fn current(&self) -> Arc<UpstreamTls> {
        match upstream(&self.wire, &self.secrets) {
            Ok(Some(tls)) => *self.last.lock() = Arc::new(tls),
            // The same text was TLS before.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the control plane is shown the certificates that were read last");
            }
        }
        self.last()
    }
}

/// It cannot take what only a control plane could send.
fn upstream(
    wire: &TransportSocket,
    secrets: &[Secret],
) -> Result<Option<UpstreamTls>, TlsUnusable> {
    let (transport, _) = transport(wire)?;
    let Transport::Tls(tls) = transport else {
        return Ok(None);
    };
    let named: Vec<_> = secrets::names_of_upstream(&tls).cloned().collect();
    let mut known = Secrets::new();
    for secret in secrets
        .iter()
        .filter(|secret| named.iter().any(|name| **name == secret.name))
    {
        if let Checked::Secret(checked) = translate(Kind::Secret, &pack(secret))?.checked {
            known.insert(secret.name.as_str().into(), checked);
        }
    }
    let tls = secrets::filled_upstream(&tls, &known);
    if tls.needs_identity() {
        return Err(TlsUnusable::Identity);
    }
    let missing = secrets::names_of_upstream(&tls).next().cloned();
    match missing {
        None => Ok(Some(tls)),
        Some(name) => Err(TlsUnusable::NoSecret(name)),
    }
}

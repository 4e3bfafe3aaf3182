//! TLS as configured: what is shown to peers, and which of them are believed.
//!
//! Within a mesh both come from the workload's identity, which is renewed while everything else stays. A proxy by itself has
//! certificates of its own, from its configuration.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::sign::CertifiedKey;
use webpki::{CertRevocationList, OwnedCertRevocationList};

use super::matching::TextMatch;

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamTls {
    /// What is shown to them.
    pub shows: Shown,
    /// Which of them are believed; `None`: they are not asked who they are.
    pub believes: Option<Believed>,
    /// Whether a client without a valid certificate is refused.
    pub require_client_certificate: bool,
    /// Whether a client that asks for no name is refused.
    pub require_server_name: bool,
    /// Protocols that are accepted, preferred first; empty: none is negotiated.
    pub alpn: Vec<Arc<str>>,
    /// What is spoken.
    pub versions: Versions,
    /// How long a handshake may take; none: as long as any.
    pub handshake_timeout: Option<Duration>,
}

/// TLS towards endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// What is shown to them.
    pub shows: Shown,
    /// Which of them are believed.
    pub believes: Believed,
    /// The name asked for; none: the endpoint's address, which is not sent.
    pub sni: Option<Arc<str>>,
    /// Offered for opaque bytes. For HTTP the version that is spoken is offered.
    pub alpn: Vec<Arc<str>>,
    /// What is spoken.
    pub versions: Versions,
}

impl DownstreamTls {
    /// Whether it takes the workload's identity.
    pub fn needs_identity(&self) -> bool {
        let believes = self.believes.as_ref();
        self.shows == Shown::Workload || believes.is_some_and(Believed::by_trust_bundle)
    }

    /// Whether both sides are who the mesh says they are.
    pub fn is_of_mesh(&self) -> bool {
        let believes = self.believes.as_ref();
        self.shows == Shown::Workload
            && self.require_client_certificate
            && believes.is_some_and(Believed::by_trust_bundle)
    }
}

impl UpstreamTls {
    /// As the workload, to peers that the trust bundle vouches for and that are called one of these; none: all.
    pub fn of_workload(peers: impl IntoIterator<Item = TextMatch>) -> Self {
        UpstreamTls {
            shows: Shown::Workload,
            believes: Believed::of_mesh(peers),
            sni: None,
            alpn: vec![],
            versions: Versions::NEWEST,
        }
    }

    /// Whether it takes the workload's identity.
    pub fn needs_identity(&self) -> bool {
        self.shows == Shown::Workload || self.believes.by_trust_bundle()
    }

    /// Whether both sides are who the mesh says they are.
    pub fn is_of_mesh(&self) -> bool {
        self.shows == Shown::Workload && self.believes.by_trust_bundle()
    }
}

/// What is shown to a peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// The workload's certificate, as it is at the time.
    Workload,
    /// The one of these that suits the peer.
    Certificates(Vec<Arc<Certificate>>),
    /// What a secret of that name holds; it is not there yet.
    Secret(Arc<str>),
}

/// A certificate chain and its key.
#[derive(Debug)]
pub struct Certificate {
    /// For handshakes.
    pub key: Arc<CertifiedKey>,
    /// Lower-case names of hosts that it is for, `*.` included.
    pub hosts: Vec<String>,
    /// Where it stands: the path of a file, or `<inline>`.
    pub origin: Arc<str>,
}

/// The same chain has the same key.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }
}

/// Which peers are believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Believed {
    /// Who vouches for them.
    pub anchor: Anchor,
    /// What they are called: one of these; none: anything.
    pub names: Vec<NameMatch>,
    /// SHA-256 of their certificates; none: any.
    pub certificate_hashes: Vec<[u8; 32]>,
    /// SHA-256 of their public keys (SubjectPublicKeyInfo); none: any. One of either kind must fit where there are some.
    pub key_hashes: Vec<[u8; 32]>,
    /// Certificates that those who vouched for them have revoked.
    pub revoked: Revoked,
    /// Whether they are believed before and after the time for which their certificates are.
    pub allows_expired: bool,
}

impl Believed {
    /// Peers that the mesh's trust bundle vouches for, called one of these; none: all.
    pub fn of_mesh(names: impl IntoIterator<Item = TextMatch>) -> Self {
        let uri = |text| NameMatch {
            kind: Some(NameKind::Uri),
            text,
        };
        Believed {
            names: names.into_iter().map(uri).collect(),
            ..Believed::by(Anchor::TrustBundle)
        }
    }

    /// All peers that somebody vouches for.
    pub fn by(anchor: Anchor) -> Self {
        Believed {
            anchor,
            names: vec![],
            certificate_hashes: vec![],
            key_hashes: vec![],
            revoked: Revoked::default(),
            allows_expired: false,
        }
    }

    fn by_trust_bundle(&self) -> bool {
        self.anchor == Anchor::TrustBundle
    }
}

/// Who vouches for peers.
#[derive(Debug, Clone, PartialEq)]
pub enum Anchor {
    /// The mesh's trust bundle: the roots of each trust domain for SPIFFE ids of that domain.
    TrustBundle,
    /// These authorities.
    Roots(Arc<Roots>),
    /// Nobody: whoever comes is believed.
    Nobody,
    /// What a secret of that name holds; it is not there yet.
    Secret(Arc<str>),
}

/// Certificates of authorities.
#[derive(Debug)]
pub struct Roots {
    /// For verification.
    pub store: RootCertStore,
    /// As they came.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Where they stand: the path of a file, or `<inline>`.
    pub origin: Arc<str>,
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

/// Lists of revoked certificates.
#[derive(Debug, Clone, Default)]
pub struct Revoked {
    lists: Arc<Vec<CertRevocationList<'static>>>,
    /// As they came.
    der: Vec<CertificateRevocationListDer<'static>>,
    /// Whether they tell of peers alone, not of authorities below the roots.
    pub of_leaves_only: bool,
}

impl Revoked {
    /// By these lists.
    ///
    /// # Errors
    /// One of them is none.
    pub fn by(
        der: Vec<CertificateRevocationListDer<'static>>,
        of_leaves_only: bool,
    ) -> Result<Self, webpki::Error> {
        let lists = der.iter().map(|der| OwnedCertRevocationList::from_der(der));
        let lists = lists.map(|list| list.map(CertRevocationList::from));
        Ok(Self {
            lists: Arc::new(lists.collect::<Result<_, _>>()?),
            der,
            of_leaves_only,
        })
    }

    /// The lists.
    pub fn lists(&self) -> impl Iterator<Item = &CertRevocationList<'static>> {
        self.lists.iter()
    }

    /// Whether nobody has revoked anything.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }
}

/// The same lists.
impl PartialEq for Revoked {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der && self.of_leaves_only == other.of_leaves_only
    }
}

/// A comparison of one of a certificate's names.
#[derive(Debug, Clone, PartialEq)]
pub struct NameMatch {
    /// Of which kind it must be; `None`: of any.
    pub kind: Option<NameKind>,
    /// What it must be.
    pub text: TextMatch,
}

/// What a name in a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A URI, such as a SPIFFE id.
    Uri,
    /// The name of a host.
    Host,
    /// An e-mail address.
    Email,
    /// An IP address.
    Address,
}

/// Which versions of TLS are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Whether 1.2 is.
    pub has_1_2: bool,
    /// Whether 1.3 is.
    pub has_1_3: bool,
}

impl Versions {
    /// TLS 1.3 only: all that a mesh speaks.
    pub const NEWEST: Versions = Versions {
        has_1_2: false,
        has_1_3: true,
    };
}

/// Something that TLS is configured with by name.
#[derive(Debug, Clone, PartialEq)]
pub enum Secret {
    /// What is shown.
    Certificate(Arc<Certificate>),
    /// Who is believed.
    Believed(Believed),
}

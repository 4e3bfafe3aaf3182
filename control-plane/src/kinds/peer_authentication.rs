//! `PeerAuthentication` of weft.dev, in Istio's words: whether callers must show a certificate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::{LabelSelector, Policy};

/// The resource.
pub type PeerAuthentication = Policy<PeerAuthenticationSpec>;

/// Which pods ask what of their callers. One with labels goes before one for the whole namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerAuthenticationSpec {
    /// The pods; every pod of the namespace where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// What they ask.
    pub mtls: MutualTls,
}

impl PeerAuthenticationSpec {
    /// Whether it is for every pod of its namespace.
    pub fn is_namespace_wide(&self) -> bool {
        self.selector
            .as_ref()
            .is_none_or(|selector| selector.match_labels.is_empty())
    }
}

/// What is asked of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MutualTls {
    /// `STRICT` between meshed services where no policy says otherwise.
    pub mode: MutualTlsMode,
}

/// The three answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum MutualTlsMode {
    /// Only callers with a certificate of the mesh.
    #[default]
    Strict,
    /// Those, and plaintext.
    Permissive,
    /// Only plaintext.
    Disable,
}

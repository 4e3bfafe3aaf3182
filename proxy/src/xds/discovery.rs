//! Where a proxy's configuration comes from: one aggregated stream, streams for single kinds, files.

use std::collections::BTreeMap;
use std::time::Duration;

use super::file::FileSource;
use super::kind::Kind;
use super::transport::ControlPlane;

/// All sources of a proxy; none: there are only resources of its own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Discovery {
    /// The control plane of the aggregated stream, which also signs identities.
    pub ads: Option<ControlPlane>,
    /// Services with a stream for one kind each.
    pub services: Vec<(Kind, ControlPlane)>,
    /// Files with the resources of one kind each.
    pub files: Vec<(Kind, FileSource)>,
    /// Kinds without which a configuration is not complete, and how long they are waited for.
    pub awaited: BTreeMap<Kind, Option<Duration>>,
}

impl Discovery {
    /// Whether nothing is ever asked for.
    pub fn is_none(&self) -> bool {
        self.ads.is_none() && self.services.is_empty() && self.files.is_empty()
    }

    /// Whether it takes a gRPC service, which wants to know who asks.
    pub fn has_services(&self) -> bool {
        self.ads.is_some() || !self.services.is_empty()
    }

    /// The kinds that are asked for on the aggregated stream: those that come from nowhere else.
    pub fn aggregated(&self) -> Vec<Kind> {
        let of_services = self.services.iter().map(|(kind, _)| *kind);
        let others: Vec<_> = of_services
            .chain(self.files.iter().map(|(kind, _)| *kind))
            .collect();
        let mut kinds = Kind::ALL.to_vec();
        kinds.retain(|kind| !others.contains(kind));
        kinds
    }
}

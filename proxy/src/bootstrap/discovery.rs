//! Where a bootstrap says that its configuration comes from.

use weft_proto::envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use weft_proto::envoy::config::core::v3::ConfigSource;

use super::{Problem, problem, warn_of, within};
use crate::xds::control_planes::{ControlPlanes, Unusable};
use crate::xds::discovery::Discovery;
use crate::xds::kind::Kind;
use crate::xds::translate::control_plane::{
    INITIAL_FETCH_LIMIT, Source, discovery_service, source,
};

impl From<Unusable> for Problem {
    fn from(Unusable { field, reason }: Unusable) -> Self {
        problem(field, reason)
    }
}

/// All sources that a bootstrap names, and the cluster of the aggregated stream.
pub(super) fn discovery(
    dynamic: &DynamicResources,
    known: &ControlPlanes,
) -> Result<(Discovery, Option<String>), Problem> {
    let DynamicResources {
        lds_config,
        cds_config,
        ads_config,
        lds_resources_locator,
        cds_resources_locator,
    } = dynamic;
    const FIELD: &str = "dynamic_resources";
    for (name, locator) in [
        ("lds_resources_locator", lds_resources_locator),
        ("cds_resources_locator", cds_resources_locator),
    ] {
        if !locator.is_empty() {
            return Err(problem(format!("{FIELD}.{name}"), "not supported"));
        }
    }
    let mut discovery = Discovery::default();
    let mut cluster = None;
    if let Some(wire) = ads_config {
        let field = format!("{FIELD}.ads_config");
        let (service, notes) =
            discovery_service(wire).map_err(|invalid| within(&field, &invalid))?;
        warn_of(&field, notes);
        cluster = Some(service.target.cluster.to_string());
        discovery.ads = Some(known.of(service, &field)?);
        // They are asked for even where the bootstrap does not say from where.
        discovery
            .awaited
            .extend([Kind::Cluster, Kind::Listener].map(|kind| (kind, Some(INITIAL_FETCH_LIMIT))));
    }
    for (kind, name, config) in [
        (Kind::Listener, "lds_config", lds_config),
        (Kind::Cluster, "cds_config", cds_config),
    ] {
        if let Some(config) = config {
            add(
                &mut discovery,
                kind,
                config,
                &format!("{FIELD}.{name}"),
                known,
            )?;
        }
    }
    Ok((discovery, cluster))
}

fn add(
    discovery: &mut Discovery,
    kind: Kind,
    config: &ConfigSource,
    field: &str,
    known: &ControlPlanes,
) -> Result<(), Problem> {
    let ((source, limit), notes) = source(config).map_err(|invalid| within(field, &invalid))?;
    warn_of(field, notes);
    match source {
        Source::Aggregated if discovery.ads.is_none() => {
            return Err(problem(
                "dynamic_resources.ads_config",
                format!("missing: {field} is `ads`"),
            ));
        }
        Source::Aggregated => {}
        Source::Service(service) => {
            let field = format!("{field}.api_config_source");
            let service = known.of(service, &field)?;
            discovery.services.push((kind, service));
        }
        Source::File(file) => discovery.files.push((kind, file)),
        Source::Bootstrap => {}
    }
    discovery.awaited.insert(kind, limit);
    Ok(())
}

//! Where a bootstrap says that configuration comes from: gRPC services, files, and TLS on the way to them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use weft_proto::envoy::config::core::v3::api_config_source::ApiType;
use weft_proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use weft_proto::envoy::config::core::v3::{
    ApiConfigSource, ApiVersion, ConfigSource, PathConfigSource, TransportSocket, WatchedDirectory,
};

use super::at::{
    At, Invalid, Notes, enumeration, harmless, limit, nonempty, required, unsupported,
};
use super::filter::service::grpc;
use super::tls::upstream_transport;
use crate::config::cluster::Transport;
use crate::config::filter::service::GrpcTarget;
use crate::xds::dialogue::Variant;
use crate::xds::file::FileSource;
use crate::xds::watch::Watched;

/// What was read, and the paths of its fields without effect.
pub type Read<T> = Result<(T, BTreeSet<String>), Invalid>;

/// A gRPC service that is asked for resources.
#[derive(Debug, Clone, PartialEq)]
pub struct DiscoveryService {
    /// Its cluster, and how it is called.
    pub target: GrpcTarget,
    /// What is spoken with it.
    pub variant: Variant,
}

/// Where resources of one kind come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// The aggregated stream.
    Aggregated,
    /// A stream of their own.
    Service(DiscoveryService),
    /// A file.
    File(FileSource),
    /// The bootstrap itself.
    Bootstrap,
}

/// Envoy's `initial_fetch_timeout`, where it is not set.
pub const INITIAL_FETCH_LIMIT: Duration = Duration::from_secs(15);

/// A source, and how long its first answer is waited for; none: as long as it takes.
pub type Awaited = (Source, Option<Duration>);

/// A gRPC service of xDS.
///
/// # Errors
/// A field asks for what is not supported; its path is relative to the message.
pub fn discovery_service(wire: &ApiConfigSource) -> Read<DiscoveryService> {
    noted(|at| service(at, wire))
}

/// The source of one kind of resource.
///
/// # Errors
/// A field asks for what is not supported; its path is relative to the message.
pub fn source(wire: &ConfigSource) -> Read<Awaited> {
    noted(|at| awaited(at, wire))
}

/// What connections to a control plane are made of.
///
/// # Errors
/// A field asks for what is not supported; its path is relative to the message.
pub fn transport(wire: &TransportSocket) -> Read<Transport> {
    noted(|at| upstream_transport(at, wire))
}

fn noted<T>(read: impl FnOnce(&At<'_>) -> Result<T, Invalid>) -> Read<T> {
    let notes = Notes::default();
    let value = read(&At::root(&notes))?;
    Ok((value, notes.into_paths()))
}

fn service(at: &At<'_>, wire: &ApiConfigSource) -> Result<DiscoveryService, Invalid> {
    let ApiConfigSource {
        api_type,
        cluster_names,
        refresh_delay,
        grpc_services,
        request_timeout,
        rate_limit_settings,
        // The node is always sent with the first message alone, as servers of version 3 expect.
        set_node_on_first_message_only: _,
        transport_api_version,
        config_validators,
    } = wire;
    unsupported!(at; cluster_names, config_validators);
    harmless!(at; refresh_delay, request_timeout, rate_limit_settings);
    is_version_3(&at.field("transport_api_version"), *transport_api_version)?;
    let at_type = at.field("api_type");
    let variant = match enumeration(&at_type, *api_type)? {
        ApiType::DeltaGrpc => Variant::Delta,
        ApiType::Grpc => Variant::StateOfTheWorld,
        other => return Err(at_type.refuse_value(other)),
    };
    let at_services = at.field("grpc_services");
    let wire = match grpc_services.as_slice() {
        [] => return Err(at_services.refuse("must name an `envoy_grpc` cluster")),
        [one] => one,
        [_, _, ..] => return Err(at_services.index(1).refuse("only one service is supported")),
    };
    let target = grpc(&at_services.index(0), wire, Duration::ZERO)?;
    Ok(DiscoveryService { target, variant })
}

pub(super) fn awaited(at: &At<'_>, wire: &ConfigSource) -> Result<Awaited, Invalid> {
    let ConfigSource {
        authorities,
        initial_fetch_timeout,
        resource_api_version,
        config_source_specifier,
    } = wire;
    unsupported!(at; authorities);
    is_version_3(&at.field("resource_api_version"), *resource_api_version)?;
    let at_timeout = at.field("initial_fetch_timeout");
    let timeout = limit(
        &at_timeout,
        initial_fetch_timeout.as_ref(),
        Some(INITIAL_FETCH_LIMIT),
    )?;
    let source = match required(
        &at.field("config_source_specifier"),
        config_source_specifier.as_ref(),
    )? {
        // From where the naming resource came, which is the aggregated stream.
        ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_) => Source::Aggregated,
        ConfigSourceSpecifier::ApiConfigSource(wire) => {
            Source::Service(service(&at.field("api_config_source"), wire)?)
        }
        ConfigSourceSpecifier::PathConfigSource(wire) => {
            Source::File(file(&at.field("path_config_source"), wire)?)
        }
        ConfigSourceSpecifier::Path(path) => {
            let path = existing(&at.field("path"), path)?;
            Source::File(FileSource::new(path))
        }
    };
    Ok((source, timeout))
}

fn file(at: &At<'_>, wire: &PathConfigSource) -> Result<FileSource, Invalid> {
    let PathConfigSource {
        path,
        watched_directory: directory,
        poll_interval,
    } = wire;
    unsupported!(at; poll_interval);
    let path = existing(&at.field("path"), path)?;
    let Some(wire) = directory else {
        return Ok(FileSource::new(path));
    };
    let watched = watched_directory(&at.field("watched_directory"), wire)?;
    Ok(FileSource::within(path, watched))
}

/// A directory whose changes count; it must be there.
pub(super) fn watched_directory(at: &At<'_>, wire: &WatchedDirectory) -> Result<Watched, Invalid> {
    let WatchedDirectory { path, watch_modify } = wire;
    let watched = Watched::directory(&existing(&at.field("path"), path)?);
    Ok(match watch_modify {
        true => watched.or_written(),
        false => watched,
    })
}

fn existing(at: &At<'_>, path: &str) -> Result<PathBuf, Invalid> {
    let found = PathBuf::from(nonempty(at, path)?);
    match found.exists() {
        true => Ok(found),
        false => Err(at.refuse(format_args!("{path:?} does not exist"))),
    }
}

fn is_version_3(at: &At<'_>, wire: i32) -> Result<(), Invalid> {
    match enumeration(at, wire)? {
        // Servers of version 3 say so or say nothing.
        ApiVersion::Auto | ApiVersion::V3 => Ok(()),
        ApiVersion::V2 => Err(at.refuse_value(ApiVersion::V2)),
    }
}

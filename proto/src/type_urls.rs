//! The type URLs of the resources that xDS carries.

/// The resource of LDS.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// The resource of RDS.
pub const ROUTE_CONFIGURATION: &str =
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// The resource of CDS.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// The resource of EDS.
pub const CLUSTER_LOAD_ASSIGNMENT: &str =
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// The resource of SDS.
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// The resource of RTDS.
pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
/// The resource of ECDS.
pub const EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config;
    use crate::envoy::extensions::transport_sockets::tls::v3::Secret;
    use crate::envoy::service::runtime::v3::Runtime;
    use prost::Name as _;

    #[test]
    fn each_constant_is_the_url_of_its_message() {
        assert_eq!(LISTENER, config::listener::v3::Listener::type_url());
        assert_eq!(
            ROUTE_CONFIGURATION,
            config::route::v3::RouteConfiguration::type_url()
        );
        assert_eq!(CLUSTER, config::cluster::v3::Cluster::type_url());
        assert_eq!(
            CLUSTER_LOAD_ASSIGNMENT,
            config::endpoint::v3::ClusterLoadAssignment::type_url()
        );
        assert_eq!(SECRET, Secret::type_url());
        assert_eq!(RUNTIME, Runtime::type_url());
        assert_eq!(
            EXTENSION_CONFIG,
            config::core::v3::TypedExtensionConfig::type_url()
        );
    }
}

//! Fields of a bootstrap that are refused, and those that are harmless to ignore.

use weft_proto::envoy::config::bootstrap::v3::Bootstrap as Wire;

use super::{Problem, problem};

/// Every field but those that are used; each is refused, or harmless here.
pub(super) fn warn_of_ignored(wire: &Wire) -> Result<(), Problem> {
    let Wire {
        node: _,
        static_resources: _,
        dynamic_resources: _,
        admin: _,
        overload_manager: _,
        cluster_manager: _,
        layered_runtime: _,
        flags_path,
        stats_sinks,
        stats_config,
        watchdog,
        watchdogs,
        stats_flush_interval,
        tracing,
        hds_config,
        enable_dispatcher_stats,
        header_prefix,
        stats_server_version_override,
        use_tcp_for_dns_lookups,
        bootstrap_extensions,
        config_sources,
        default_config_source,
        default_socket_interface,
        certificate_provider_instances,
        node_context_params,
        dns_resolution_config,
        typed_dns_resolver_config,
        inline_headers,
        perf_tracing_file_path,
        default_regex_engine,
        xds_delegate_extension,
        xds_config_tracker_extension,
        listener_manager,
        application_log_config,
        deferred_stat_options,
        grpc_async_client_manager_config,
        memory_allocator_manager,
        enable_worker_cpu_affinity,
        stats_flush,
        stats_eviction,
    } = wire;
    let refused = [
        ("tracing", tracing.is_some()),
        // Who counts on what is sent there would see nothing.
        ("stats_sinks", !stats_sinks.is_empty()),
        ("hds_config", hds_config.is_some()),
        ("header_prefix", !header_prefix.is_empty()),
        ("bootstrap_extensions", !bootstrap_extensions.is_empty()),
        ("config_sources", !config_sources.is_empty()),
        ("default_config_source", default_config_source.is_some()),
        (
            "certificate_provider_instances",
            !certificate_provider_instances.is_empty(),
        ),
        ("dns_resolution_config", dns_resolution_config.is_some()),
        ("xds_delegate_extension", xds_delegate_extension.is_some()),
        ("listener_manager", listener_manager.is_some()),
    ];
    if let Some((field, _)) = refused.into_iter().find(|(_, is_set)| *is_set) {
        return Err(problem(field, "not supported"));
    }
    let harmless = [
        ("flags_path", !flags_path.is_empty()),
        ("stats_config", stats_config.is_some()),
        ("watchdog", watchdog.is_some()),
        ("watchdogs", watchdogs.is_some()),
        ("stats_flush_interval", stats_flush_interval.is_some()),
        ("enable_dispatcher_stats", *enable_dispatcher_stats),
        (
            "stats_server_version_override",
            stats_server_version_override.is_some(),
        ),
        ("use_tcp_for_dns_lookups", *use_tcp_for_dns_lookups),
        (
            "default_socket_interface",
            !default_socket_interface.is_empty(),
        ),
        ("node_context_params", !node_context_params.is_empty()),
        (
            "typed_dns_resolver_config",
            typed_dns_resolver_config.is_some(),
        ),
        ("inline_headers", !inline_headers.is_empty()),
        ("perf_tracing_file_path", !perf_tracing_file_path.is_empty()),
        ("default_regex_engine", default_regex_engine.is_some()),
        (
            "xds_config_tracker_extension",
            xds_config_tracker_extension.is_some(),
        ),
        ("application_log_config", application_log_config.is_some()),
        ("deferred_stat_options", deferred_stat_options.is_some()),
        (
            "grpc_async_client_manager_config",
            grpc_async_client_manager_config.is_some(),
        ),
        (
            "memory_allocator_manager",
            memory_allocator_manager.is_some(),
        ),
        ("enable_worker_cpu_affinity", *enable_worker_cpu_affinity),
        ("stats_flush", stats_flush.is_some()),
        ("stats_eviction", stats_eviction.is_some()),
    ];
    for (field, _) in harmless.into_iter().filter(|(_, is_set)| *is_set) {
        tracing::warn!(field, "this field of the bootstrap has no effect");
    }
    Ok(())
}

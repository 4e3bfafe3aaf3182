//! `resource` of `/config_dump`: one list of the dump, by its name.

use http::StatusCode;
use serde_json::{Value, json};

use crate::admin::reply::Reply;

/// Every list, with the message that each of its members is.
const LISTS: [(&str, &str); 14] = [
    ("static_clusters", "ClustersConfigDump.StaticCluster"),
    (
        "dynamic_active_clusters",
        "ClustersConfigDump.DynamicCluster",
    ),
    (
        "dynamic_warming_clusters",
        "ClustersConfigDump.DynamicCluster",
    ),
    ("static_listeners", "ListenersConfigDump.StaticListener"),
    ("dynamic_listeners", "ListenersConfigDump.DynamicListener"),
    ("static_route_configs", "RoutesConfigDump.StaticRouteConfig"),
    (
        "dynamic_route_configs",
        "RoutesConfigDump.DynamicRouteConfig",
    ),
    (
        "inline_scoped_route_configs",
        "ScopedRoutesConfigDump.InlineScopedRouteConfigs",
    ),
    (
        "dynamic_scoped_route_configs",
        "ScopedRoutesConfigDump.DynamicScopedRouteConfigs",
    ),
    ("static_secrets", "SecretsConfigDump.StaticSecret"),
    ("dynamic_active_secrets", "SecretsConfigDump.DynamicSecret"),
    ("dynamic_warming_secrets", "SecretsConfigDump.DynamicSecret"),
    (
        "static_endpoint_configs",
        "EndpointsConfigDump.StaticEndpointConfig",
    ),
    (
        "dynamic_endpoint_configs",
        "EndpointsConfigDump.DynamicEndpointConfig",
    ),
];

/// Fields of the dump that hold one value.
const SINGLE: [&str; 3] = ["bootstrap", "last_updated", "version_info"];

/// The members of a list, each with its type; none where nothing is in it.
///
/// # Errors
/// The answer to a name that no list has.
pub(super) fn list(dump: &Value, name: &str) -> Result<Vec<Value>, Reply> {
    let known = LISTS.iter().find(|(known, _)| *known == name);
    let (_, message) = known.ok_or_else(|| refusal(name))?;
    let configs = dump["configs"].as_array().into_iter().flatten();
    let mut members: Vec<Value> = configs
        .filter_map(|config| config[name].as_array())
        .flatten()
        .cloned()
        .collect();
    for fields in members.iter_mut().filter_map(Value::as_object_mut) {
        fields.insert(
            "@type".to_owned(),
            json!(format!("type.googleapis.com/envoy.admin.v3.{message}")),
        );
    }
    Ok(members)
}

fn refusal(name: &str) -> Reply {
    match SINGLE.contains(&name) {
        true => Reply::text(
            StatusCode::BAD_REQUEST,
            format!("{name} is not a repeated field. Use ?mask={name} to get only this field\n"),
        ),
        false => Reply::text(
            StatusCode::NOT_FOUND,
            format!("{name} not found in config dump\n"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_say_what_they_are_and_a_list_may_be_empty() {
        let dump = json!({"configs": [{"static_clusters": [{"cluster": {"name": "a"}}]}]});

        let clusters = list(&dump, "static_clusters").expect("a list");

        assert_eq!(
            clusters,
            [json!({
                "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
                "cluster": {"name": "a"},
            })]
        );
        assert_eq!(list(&dump, "dynamic_listeners").ok(), Some(vec![]));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let status = |name| list(&json!({}), name).map_err(|refusal| refusal.status());

        assert_eq!(status("nothing"), Err(StatusCode::NOT_FOUND));
        assert_eq!(status("bootstrap"), Err(StatusCode::BAD_REQUEST));
    }
}

//! What a route says of upgrades and CONNECT.

use weft_proto::envoy::config::route::v3::route_action::UpgradeConfig;
use weft_proto::envoy::config::route::v3::route_action::upgrade_config::ConnectConfig;

use super::at::{At, Invalid, nonempty};
use super::proxied_transport::version;
use crate::config::upgrade::{CONNECT, RouteUpgrade, RouteUpgrades, Termination};

/// Which upgrades are allowed, and whether CONNECT ends here. Envoy's rules: a kind is named once.
pub(super) fn route_upgrades(
    at: &At<'_>,
    wire: &[UpgradeConfig],
) -> Result<RouteUpgrades, Invalid> {
    let mut upgrades: Vec<RouteUpgrade> = vec![];
    for (index, upgrade) in wire.iter().enumerate() {
        let at = at.index(index);
        let UpgradeConfig {
            upgrade_type,
            enabled,
            connect_config,
        } = upgrade;
        let at_type = at.field("upgrade_type");
        let name = nonempty(&at_type, upgrade_type)?.to_ascii_lowercase();
        if upgrades.iter().any(|other| *other.name == *name) {
            return Err(at_type.refuse(format_args!("{upgrade_type} is named twice")));
        }
        let termination = connect_config
            .as_ref()
            .map(|wire| termination(&at.field("connect_config"), wire, &name))
            .transpose()?;
        upgrades.push(RouteUpgrade {
            name: name.into(),
            is_enabled: enabled.unwrap_or(true),
            termination,
        });
    }
    Ok(RouteUpgrades::new(upgrades))
}

fn termination(at: &At<'_>, wire: &ConnectConfig, name: &str) -> Result<Termination, Invalid> {
    if name != CONNECT {
        return Err(at.refuse("only CONNECT has one"));
    }
    let ConnectConfig {
        proxy_protocol_config,
        allow_post,
    } = wire;
    let announces = proxy_protocol_config
        .as_ref()
        .map(|wire| version(&at.field("proxy_protocol_config"), wire))
        .transpose()?;
    Ok(Termination {
        takes_post: *allow_post,
        announces,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    fn translated(json: serde_json::Value) -> Result<RouteUpgrades, Invalid> {
        let wire: Vec<UpgradeConfig> = json
            .as_array()
            .expect("a list")
            .iter()
            .map(|each| from_json(each.clone()).expect("an upgrade"))
            .collect();
        let notes = Notes::default();
        let root = At::root(&notes);
        route_upgrades(&root.field("upgrade_configs"), &wire)
    }

    #[test]
    fn connect_ends_where_it_has_a_configuration() {
        let upgrades = translated(json!([
            {"upgrade_type": "CONNECT", "connect_config": {}},
            {"upgrade_type": "websocket", "enabled": false},
        ]))
        .expect("valid");

        assert_eq!(upgrades.termination(), Some(Termination::default()));
        assert_eq!(upgrades.allows("connect"), Some(true));
        assert_eq!(upgrades.allows("websocket"), Some(false));
    }

    #[test]
    fn what_a_tunnel_cannot_do_is_refused_by_its_path() {
        for (json, path) in [
            (
                json!([{"upgrade_type": "websocket", "connect_config": {}}]),
                "upgrade_configs[0].connect_config",
            ),
            (
                json!([{"upgrade_type": "a"}, {"upgrade_type": "A"}]),
                "upgrade_configs[1].upgrade_type",
            ),
        ] {
            let error = translated(json).expect_err(path);
            assert!(error.to_string().starts_with(path), "{error}");
        }
    }
}

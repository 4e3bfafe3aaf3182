//! What a route says of upgrades and CONNECT: which are allowed there, and which end here.

use std::sync::Arc;

use crate::proxy_protocol::Version;

/// `CONNECT` among the names of upgrades, as Envoy has it.
pub const CONNECT: &str = "connect";

/// What a route says of upgrades; it goes before what its connection manager says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteUpgrades(Vec<RouteUpgrade>);

/// One kind of upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteUpgrade {
    /// The protocol, or [`CONNECT`]; lower case.
    pub name: Arc<str>,
    /// Whether it is allowed.
    pub is_enabled: bool,
    /// Of CONNECT, where the upstream gets the bytes of the tunnel, and not the request.
    pub termination: Option<Termination>,
}

/// How a tunnel ends at the proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Termination {
    /// Whether a POST is a tunnel, too: its body and that of the response are the two directions.
    pub takes_post: bool,
    /// The version of the PROXY header that the upstream is told the client in.
    pub announces: Option<Version>,
}

impl RouteUpgrades {
    /// Of these kinds.
    pub fn new(upgrades: Vec<RouteUpgrade>) -> Self {
        RouteUpgrades(upgrades)
    }

    /// Whether a kind is allowed, where the route says anything of it.
    pub fn allows(&self, name: &str) -> Option<bool> {
        self.of(name).map(|upgrade| upgrade.is_enabled)
    }

    /// How CONNECT ends here, where it does.
    pub fn termination(&self) -> Option<Termination> {
        self.of(CONNECT)?.termination
    }

    fn of(&self, name: &str) -> Option<&RouteUpgrade> {
        let mut all = self.0.iter();
        all.find(|upgrade| upgrade.name.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_speaks_of_the_kinds_it_names() {
        let upgrades = RouteUpgrades::new(vec![
            RouteUpgrade {
                name: "websocket".into(),
                is_enabled: false,
                termination: None,
            },
            RouteUpgrade {
                name: CONNECT.into(),
                is_enabled: true,
                termination: Some(Termination::default()),
            },
        ]);

        assert_eq!(upgrades.allows("WebSocket"), Some(false));
        assert_eq!(upgrades.allows("connect"), Some(true));
        assert_eq!(upgrades.allows("other"), None);
        assert!(upgrades.termination().is_some());
        assert!(RouteUpgrades::default().termination().is_none());
    }
}

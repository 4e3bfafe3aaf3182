//! What a route says of upgrades and CONNECT: which are allowed there, and which end here.

use std::sync::Arc;

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
    /// Of CONNECT: whether the upstream gets the bytes of the tunnel, and not the request.
    pub ends_here: bool,
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

    /// Whether CONNECT ends here.
    pub fn end_connect(&self) -> bool {
        self.of(CONNECT).is_some_and(|upgrade| upgrade.ends_here)
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
                ends_here: false,
            },
            RouteUpgrade {
                name: CONNECT.into(),
                is_enabled: true,
                ends_here: true,
            },
        ]);

        assert_eq!(upgrades.allows("WebSocket"), Some(false));
        assert_eq!(upgrades.allows("connect"), Some(true));
        assert_eq!(upgrades.allows("other"), None);
        assert!(upgrades.end_connect());
        assert!(!RouteUpgrades::default().end_connect());
    }
}

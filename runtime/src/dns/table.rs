//! Names of the mesh. A short name answers to clients of its own namespace, a full one to all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use weft_proto::names::{SERVICE_SUFFIX, is_service_address};

use crate::network::addresses;

/// Everything below is the mesh's, so a name that isn't there does not exist.
const DOMAIN: &str = "cluster.local";
const IPV4_REVERSE: &str = ".in-addr.arpa";
const IPV6_REVERSE: &str = ".ip6.arpa";

/// One name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) addresses: Vec<IpAddr>,
}

/// What the table says of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// The name exists, perhaps with no address of the family asked for.
    Addresses(Arc<[IpAddr]>),
    /// The name of an address.
    Name(String),
    /// It would be the mesh's, and does not exist.
    NoSuchName,
    /// Somebody else's.
    NotOurs,
}

/// The names, and the namespace of each client.
#[derive(Debug, Default)]
pub(crate) struct NameTable {
    names: RwLock<Names>,
    clients: RwLock<HashMap<IpAddr, String>>,
}

#[derive(Debug, Default)]
struct Names {
    /// By namespace, then name, so that looking up makes no copies.
    forward: HashMap<String, HashMap<String, Arc<[IpAddr]>>>,
    reverse: HashMap<IpAddr, String>,
}

impl NameTable {
    /// Replaces all names at once.
    pub(crate) fn replace(&self, entries: Vec<Entry>) {
        let mut names = Names::default();
        for entry in entries {
            let (name, namespace) = (
                entry.name.to_ascii_lowercase(),
                entry.namespace.to_ascii_lowercase(),
            );
            for address in &entry.addresses {
                let full = format!("{name}.{namespace}.{SERVICE_SUFFIX}.");
                names.reverse.entry(*address).or_insert(full);
            }
            names
                .forward
                .entry(namespace)
                .or_default()
                .insert(name, entry.addresses.into());
        }
        *self.names.write() = names;
    }

    /// Notes that a client belongs to a namespace.
    pub(crate) fn add_client(&self, addresses: [IpAddr; 2], namespace: &str) {
        let mut clients = self.clients.write();
        for address in addresses {
            clients.insert(address, namespace.to_ascii_lowercase());
        }
    }

    pub(crate) fn remove_client(&self, addresses: [IpAddr; 2]) {
        let mut clients = self.clients.write();
        for address in addresses {
            clients.remove(&address);
        }
    }

    /// A question for addresses; the name is in lower case.
    pub(crate) fn find(&self, name: &str, client: IpAddr) -> Found {
        let name = name.strip_suffix('.').unwrap_or(name);
        let names = self.names.read();
        let own = self
            .clients
            .read()
            .get(&client)
            .and_then(|namespace| names.get(namespace, name));
        if let Some(addresses) = own.or_else(|| names.find_full(name)) {
            return Found::Addresses(addresses);
        }
        let is_ours = name == DOMAIN
            || name
                .strip_suffix(DOMAIN)
                .is_some_and(|rest| rest.ends_with('.'));
        if is_ours {
            Found::NoSuchName
        } else {
            Found::NotOurs
        }
    }

    /// A question for the name of an address.
    pub(crate) fn find_reverse(&self, question: &str) -> Found {
        let Some(address) = parse_reverse(question.strip_suffix('.').unwrap_or(question)) else {
            return Found::NotOurs;
        };
        match self.names.read().reverse.get(&address) {
            Some(name) => Found::Name(name.clone()),
            None if is_mesh_address(address) => Found::NoSuchName,
            None => Found::NotOurs,
        }
    }
}

impl Names {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<[IpAddr]>> {
        self.forward.get(namespace)?.get(name).cloned()
    }

    /// NAME.NAMESPACE, with the domain of services or a part of it.
    fn find_full(&self, name: &str) -> Option<Arc<[IpAddr]>> {
        let name = name
            .strip_suffix(&format!(".{SERVICE_SUFFIX}"))
            .unwrap_or(name);
        let name = name.strip_suffix(".svc").unwrap_or(name);
        let (name, namespace) = name.rsplit_once('.')?;
        self.get(namespace, name)
    }
}

fn is_mesh_address(address: IpAddr) -> bool {
    let is_sandbox = match address {
        IpAddr::V4(address) => address.octets()[..2] == addresses::GATEWAY_IPV4.octets()[..2],
        IpAddr::V6(address) => address.octets()[..8] == addresses::GATEWAY_IPV6.octets()[..8],
    };
    is_sandbox || is_service_address(address)
}

/// `1.0.96.10.in-addr.arpa`, or 32 nibbles below ip6.arpa.
fn parse_reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(IPV4_REVERSE) {
        let octets: Vec<u8> = labels
            .rsplit('.')
            .map(|label| label.parse().ok())
            .collect::<Option<_>>()?;
        let octets: [u8; 4] = octets.try_into().ok()?;
        return Some(Ipv4Addr::from(octets).into());
    }
    let labels = name.strip_suffix(IPV6_REVERSE)?;
    let mut nibbles = Vec::with_capacity(32);
    for label in labels.rsplit('.') {
        let digit = label.chars().next().filter(|_| label.len() == 1)?;
        nibbles.push(digit.to_digit(16)?);
    }
    let nibbles: [u32; 32] = nibbles.try_into().ok()?;
    let bits = nibbles
        .iter()
        .fold(0_u128, |bits, nibble| (bits << 4) | u128::from(*nibble));
    Some(Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "10.96.0.2";

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn table() -> NameTable {
        let table = NameTable::default();
        let entry = |name: &str, namespace: &str, addresses: &[&str]| Entry {
            name: name.into(),
            namespace: namespace.into(),
            addresses: addresses.iter().map(|text| address(text)).collect(),
        };
        table.replace(vec![
            entry("reviews", "default", &["240.240.0.7", "fd57:f0f0::7"]),
            entry("ratings", "other", &["240.240.0.8"]),
            entry("db.internal", "default", &["240.240.0.9"]),
        ]);
        table.add_client([address(CLIENT), address("fd57:6060::2")], "default");
        table
    }

    fn first(found: Found) -> Option<String> {
        match found {
            Found::Addresses(addresses) => addresses.first().map(ToString::to_string),
            _ => None,
        }
    }

    #[test]
    fn a_short_name_answers_in_its_own_namespace_only() {
        let table = table();

        assert_eq!(
            first(table.find("reviews.", address(CLIENT))).as_deref(),
            Some("240.240.0.7")
        );
        assert_eq!(table.find("ratings.", address(CLIENT)), Found::NotOurs);
        assert_eq!(
            table.find("reviews.", address("10.96.0.99")),
            Found::NotOurs
        );
    }

    #[test]
    fn a_full_name_answers_to_everybody() {
        let table = table();

        for name in [
            "ratings.other",
            "ratings.other.svc",
            "ratings.other.svc.cluster.local.",
        ] {
            assert_eq!(
                first(table.find(name, address(CLIENT))).as_deref(),
                Some("240.240.0.8"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_name_with_dots_is_a_name() {
        assert_eq!(
            first(table().find("db.internal.", address(CLIENT))).as_deref(),
            Some("240.240.0.9")
        );
    }

    #[test]
    fn below_the_meshs_domain_what_is_not_there_does_not_exist() {
        let table = table();

        assert_eq!(
            table.find("nobody.default.svc.cluster.local.", address(CLIENT)),
            Found::NoSuchName
        );
        assert_eq!(table.find("example.com.", address(CLIENT)), Found::NotOurs);
        assert_eq!(
            table.find("notcluster.local.", address(CLIENT)),
            Found::NotOurs
        );
    }

    #[test]
    fn an_address_leads_back_to_its_name() {
        let table = table();

        let name = "reviews.default.svc.cluster.local.".to_owned();
        assert_eq!(
            table.find_reverse("7.0.240.240.in-addr.arpa."),
            Found::Name(name)
        );
        assert_eq!(
            table.find_reverse("9.9.240.240.in-addr.arpa."),
            Found::NoSuchName
        );
        assert_eq!(table.find_reverse("8.8.8.8.in-addr.arpa."), Found::NotOurs);
    }

    #[test]
    fn reverse_names_that_are_no_addresses_are_nobodys() {
        for name in [
            "",
            ".in-addr.arpa",
            "1.2.3.in-addr.arpa",
            "999.0.0.1.in-addr.arpa",
            "g.ip6.arpa",
            "..ip6.arpa",
        ] {
            assert_eq!(parse_reverse(name), None, "{name}");
        }
    }
}

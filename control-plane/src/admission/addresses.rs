//! Virtual addresses of Services: one of each family, unique, kept for the Service's whole life.
//!
//! Both families share one 16-bit suffix. It starts from a hash of the name, so that a Service that comes back
//! usually finds its address again, and goes on to the next free one.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use weft_proto::names::{SERVICE_NETWORK_IPV4, SERVICE_NETWORK_IPV6};

use crate::kinds::{self, Kind};
use crate::refusal::{Cause, Refusal};
use crate::store::{Object, Snapshot};

/// Gives a Service its addresses: those it had, those it asks for, or free ones.
pub(super) fn assign(
    state: &Snapshot,
    kind: &'static Kind,
    value: &mut Value,
    existing: Option<&Object>,
) -> Result<(), Refusal> {
    if *kind != kinds::SERVICE {
        return Ok(());
    }
    let spec = &mut value["spec"];
    if spec["clusterIP"] == "None" || spec["clusterIPs"][0] == "None" {
        spec["clusterIP"] = json!("None");
        spec["clusterIPs"] = json!(["None"]);
        return Ok(());
    }
    if let Some(existing) = existing.map(Object::value)
        && existing["spec"]["clusterIPs"].is_array()
    {
        for field in ["clusterIP", "clusterIPs"] {
            let is_given = spec[field].as_str().is_some_and(|text| !text.is_empty())
                || spec[field].as_array().is_some_and(|list| !list.is_empty());
            if !is_given {
                spec[field] = existing["spec"][field].clone();
            }
        }
    }
    let name = value["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let namespace = value["metadata"]["namespace"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let used = used(state, &namespace, &name);
    let suffix = match wanted(&value["spec"]) {
        Some(suffix) if !used.contains(&suffix) => suffix,
        Some(_) => return Err(taken(kind, &name, &value["spec"]["clusterIP"])),
        None => free(&used, &namespace, &name).ok_or_else(|| exhausted(kind, &name))?,
    };
    write(&mut value["spec"], suffix);
    Ok(())
}

fn write(spec: &mut Value, suffix: u16) {
    let (ipv4, ipv6) = addresses(suffix);
    // Addresses outside the networks are left for validation to refuse by name.
    let is_foreign = spec["clusterIPs"].as_array().is_some_and(|list| {
        list.iter()
            .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok())
            .any(|address| address != IpAddr::V4(ipv4) && address != IpAddr::V6(ipv6))
    });
    if is_foreign {
        return;
    }
    spec["clusterIP"] = json!(ipv4.to_string());
    spec["clusterIPs"] = json!([ipv4.to_string(), ipv6.to_string()]);
    spec["ipFamilies"] = json!(["IPv4", "IPv6"]);
    spec["ipFamilyPolicy"] = json!("PreferDualStack");
}

/// The suffix of the address that the Service asks for.
fn wanted(spec: &Value) -> Option<u16> {
    let first = spec["clusterIP"]
        .as_str()
        .filter(|text| !text.is_empty())
        .or_else(|| spec["clusterIPs"][0].as_str())?;
    suffix(first.parse().ok()?)
}

fn suffix(address: IpAddr) -> Option<u16> {
    if !weft_proto::names::is_service_address(address) {
        return None;
    }
    Some(match address {
        IpAddr::V4(address) => u16::from_be_bytes([address.octets()[2], address.octets()[3]]),
        IpAddr::V6(address) => address.segments()[7],
    })
}

fn addresses(suffix: u16) -> (Ipv4Addr, Ipv6Addr) {
    let ipv4 = u32::from(SERVICE_NETWORK_IPV4.0) | u32::from(suffix);
    let ipv6 = u128::from(SERVICE_NETWORK_IPV6.0) | u128::from(suffix);
    (Ipv4Addr::from(ipv4), Ipv6Addr::from(ipv6))
}

fn used(state: &Snapshot, namespace: &str, name: &str) -> HashSet<u16> {
    state
        .list(&kinds::SERVICE, None)
        .filter(|other| {
            (other.name().namespace.as_str(), other.name().name.as_str()) != (namespace, name)
        })
        .filter_map(|other| wanted(&other.value()["spec"]))
        .collect()
}

/// Neither the first nor the last of the network, as everywhere.
fn free(used: &HashSet<u16>, namespace: &str, name: &str) -> Option<u16> {
    let digest = Sha256::digest(format!("{namespace}/{name}"));
    let start = u16::from_be_bytes([digest[0], digest[1]]);
    (0..=u16::MAX)
        .map(|offset| start.wrapping_add(offset))
        .find(|suffix| !matches!(*suffix, 0 | u16::MAX) && !used.contains(suffix))
}

fn taken(kind: &'static Kind, name: &str, address: &Value) -> Refusal {
    let cause = Cause::invalid(
        "spec.clusterIP",
        address,
        "another Service has this address",
    );
    Refusal::invalid(kind, name, vec![cause])
}

fn exhausted(kind: &'static Kind, name: &str) -> Refusal {
    let cause = Cause::forbidden(
        "spec.clusterIP",
        "all 65534 addresses of the mesh are taken",
    );
    Refusal::invalid(kind, name, vec![cause])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_share_a_suffix() {
        let (ipv4, ipv6) = addresses(0x0102);

        assert_eq!(ipv4.to_string(), "240.240.1.2");
        assert_eq!(ipv6.to_string(), "fd57:f0f0::102");
        assert_eq!(suffix(ipv4.into()), Some(0x0102));
        assert_eq!(suffix(ipv6.into()), Some(0x0102));
    }

    #[test]
    fn a_taken_address_is_not_given_twice() {
        let first = free(&HashSet::new(), "default", "reviews").unwrap();

        let second = free(&HashSet::from([first]), "default", "reviews").unwrap();

        assert_ne!(first, second);
        assert_eq!(free(&HashSet::new(), "default", "reviews"), Some(first));
    }

    #[test]
    fn a_full_network_has_no_free_address() {
        assert_eq!(free(&(0..=u16::MAX).collect(), "default", "reviews"), None);
    }
}

//! Firewall rules of a sandbox, as text for `iptables-restore` and `ip6tables-restore`.
//!
//! The launcher sends them to the node: [`closed`] before anything runs in a sandbox, [`open`] when its sidecar
//! has its first configuration, [`uninjected`] for pods that have no sidecar. The functions are pure; each text
//! replaces the tables `nat` and `filter` as a whole, so applying one after another needs no clean-up.
//!
//! Two things about netfilter that the rules rest on: `REDIRECT` in `OUTPUT` makes the destination loopback,
//! but later chains still see the interface of the first routing decision, hence matches on `-d` beside `-o lo`; and
//! a connection that was redirected carries the state `DNAT`, one sent straight to the sidecar's port does not.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};

use weft_proto::names::{
    HEALTH_PORT, INBOUND_PORT, INBOUND_SOURCE_IPV4, INBOUND_SOURCE_IPV6, METRICS_PORT,
    OUTBOUND_PORT, SIDECAR_UID,
};

/// One text for each address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Input of `iptables-restore`.
    pub ipv4: String,
    /// Input of `ip6tables-restore`.
    pub ipv6: String,
}

/// What differs between the open rules of two sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The mesh DNS, the only peer that applications may send datagrams to.
    pub dns_ipv4: Ipv4Addr,
    /// The same for IPv6.
    pub dns_ipv6: Ipv6Addr,
    /// Destination ports that applications reach past the sidecar.
    pub exclude_outbound_ports: BTreeSet<u16>,
    /// Ports of the pod that are reached past the sidecar.
    pub exclude_inbound_ports: BTreeSet<u16>,
}

/// Nothing in, nothing out, except on loopback: how every sandbox with a sidecar begins.
pub fn closed() -> Rules {
    let write = |family: &Family| {
        let filter = [
            "-A INPUT -i lo -j ACCEPT".to_owned(),
            "-A OUTPUT -o lo -j ACCEPT".to_owned(),
        ];
        let neighbours = family.neighbour_discovery();
        restore(
            &[],
            &[filter.as_slice(), &neighbours].concat(),
            Policy::Drop,
        )
    };
    Rules {
        ipv4: write(&Family::ipv4()),
        ipv6: write(&Family::ipv6()),
    }
}

/// All TCP through the sidecar, DNS to the mesh's, nothing else.
pub fn open(redirect: &Redirect) -> Rules {
    let write = |family: &Family, dns: &dyn Display| {
        restore(
            &redirections(family, dns, redirect),
            &[
                guards(),
                family.neighbour_discovery(),
                inputs(family, redirect),
                outputs(family, dns, redirect),
            ]
            .concat(),
            Policy::Drop,
        )
    };
    Rules {
        ipv4: write(&Family::ipv4(), &redirect.dns_ipv4),
        ipv6: write(&Family::ipv6(), &redirect.dns_ipv6),
    }
}

/// No redirection and no limits: for pods that are in the mesh's network without a sidecar.
pub fn uninjected() -> Rules {
    let text = restore(&[], &[], Policy::Accept);
    Rules {
        ipv4: text.clone(),
        ipv6: text,
    }
}

/// Where IPv4 and IPv6 differ.
struct Family {
    loopback: &'static str,
    inbound_source: String,
    echo_request: &'static str,
    prohibited: &'static str,
    is_ipv6: bool,
}

impl Family {
    fn ipv4() -> Self {
        Self {
            loopback: "127.0.0.0/8",
            inbound_source: format!("{INBOUND_SOURCE_IPV4}/32"),
            echo_request: "-p icmp --icmp-type echo-request",
            prohibited: "icmp-admin-prohibited",
            is_ipv6: false,
        }
    }

    fn ipv6() -> Self {
        Self {
            loopback: "::1/128",
            inbound_source: format!("{INBOUND_SOURCE_IPV6}/128"),
            echo_request: "-p ipv6-icmp --icmpv6-type echo-request",
            prohibited: "icmp6-adm-prohibited",
            is_ipv6: true,
        }
    }

    /// IPv6 finds its neighbours with ICMPv6 (RFC 4861) and duplicate addresses with it, where IPv4 has ARP, which
    /// these tables do not see. A switch that snoops wants multicast reports (RFC 3810) too.
    fn neighbour_discovery(&self) -> Vec<String> {
        if !self.is_ipv6 {
            return Vec::new();
        }
        ["INPUT", "OUTPUT"]
            .iter()
            .flat_map(|chain| {
                ["neighbour-solicitation", "neighbour-advertisement", "143"]
                    .map(|kind| format!("-A {chain} -p ipv6-icmp --icmpv6-type {kind} -j ACCEPT"))
            })
            .collect()
    }
}

#[derive(Clone, Copy)]
enum Policy {
    Accept,
    Drop,
}

fn redirections(family: &Family, dns: &dyn Display, redirect: &Redirect) -> Vec<String> {
    let mut rules = Vec::new();
    for port in own_ports().chain(redirect.exclude_inbound_ports.iter().copied()) {
        rules.push(format!("-A PREROUTING -p tcp --dport {port} -j RETURN"));
    }
    rules.push(format!(
        "-A PREROUTING -p tcp -j REDIRECT --to-ports {INBOUND_PORT}"
    ));

    // What the sidecar sends to its own application. Before the next rule, which would send it back.
    let source = &family.inbound_source;
    rules.push(format!("-A OUTPUT -o lo -s {source} -j RETURN"));
    // A service whose endpoint is this very pod: through the inbound side, as any other caller.
    let loopback = family.loopback;
    rules.push(format!(
        "-A OUTPUT -o lo -p tcp ! -d {loopback} -m owner --uid-owner {SIDECAR_UID} -j REDIRECT --to-ports {INBOUND_PORT}"
    ));
    rules.push(format!(
        "-A OUTPUT -m owner --uid-owner {SIDECAR_UID} -j RETURN"
    ));
    rules.push(format!(
        "-A OUTPUT -m owner --gid-owner {SIDECAR_UID} -j RETURN"
    ));
    // Loopback, and the pod's own address: an application that speaks to itself.
    rules.push(format!("-A OUTPUT -d {loopback} -j RETURN"));
    rules.push("-A OUTPUT -o lo -j RETURN".to_owned());
    rules.push(format!("-A OUTPUT -d {dns} -p tcp --dport 53 -j RETURN"));
    for port in &redirect.exclude_outbound_ports {
        rules.push(format!("-A OUTPUT -p tcp --dport {port} -j RETURN"));
    }
    rules.push(format!(
        "-A OUTPUT -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}"
    ));
    rules
}

/// Ports of the sidecar that nothing is redirected from: what reaches them was meant for them.
fn own_ports() -> impl Iterator<Item = u16> {
    [OUTBOUND_PORT, INBOUND_PORT, METRICS_PORT, HEALTH_PORT].into_iter()
}

/// A connection that was not redirected has no original destination; taking it in would make the sidecar
/// dial itself, or let a caller choose which side of it to speak to.
fn guards() -> Vec<String> {
    ["INPUT", "OUTPUT"]
        .iter()
        .map(|chain| {
            format!(
                "-A {chain} -p tcp -m multiport --dports {OUTBOUND_PORT},{INBOUND_PORT} \
                 -m conntrack ! --ctstate DNAT -j REJECT --reject-with tcp-reset"
            )
        })
        .collect()
}

fn inputs(family: &Family, redirect: &Redirect) -> Vec<String> {
    let mut rules = vec![
        "-A INPUT -i lo -j ACCEPT".to_owned(),
        "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
        // Past the guards this is what was redirected.
        format!("-A INPUT -p tcp --dport {INBOUND_PORT} -j ACCEPT"),
        format!("-A INPUT -p tcp -m multiport --dports {METRICS_PORT},{HEALTH_PORT} -j ACCEPT"),
    ];
    for port in &redirect.exclude_inbound_ports {
        rules.push(format!("-A INPUT -p tcp --dport {port} -j ACCEPT"));
    }
    rules.push(format!("-A INPUT {} -j ACCEPT", family.echo_request));
    rules.push("-A INPUT -p tcp -j REJECT --reject-with tcp-reset".to_owned());
    rules
}

fn outputs(family: &Family, dns: &dyn Display, redirect: &Redirect) -> Vec<String> {
    let mut rules = vec![
        "-A OUTPUT -o lo -j ACCEPT".to_owned(),
        format!("-A OUTPUT -d {} -j ACCEPT", family.loopback),
        "-A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
        format!("-A OUTPUT -p tcp -m owner --uid-owner {SIDECAR_UID} -j ACCEPT"),
        format!("-A OUTPUT -p tcp -m owner --gid-owner {SIDECAR_UID} -j ACCEPT"),
    ];
    for protocol in ["udp", "tcp"] {
        rules.push(format!(
            "-A OUTPUT -d {dns} -p {protocol} --dport 53 -j ACCEPT"
        ));
    }
    for port in &redirect.exclude_outbound_ports {
        rules.push(format!("-A OUTPUT -p tcp --dport {port} -j ACCEPT"));
    }
    rules.push(format!("-A OUTPUT {} -j ACCEPT", family.echo_request));
    // Refused rather than dropped: an application learns it at once instead of waiting.
    rules.push("-A OUTPUT -p tcp -j REJECT --reject-with tcp-reset".to_owned());
    rules.push(format!(
        "-A OUTPUT -j REJECT --reject-with {}",
        family.prohibited
    ));
    rules
}

fn restore(nat: &[String], filter: &[String], policy: Policy) -> String {
    let policy = match policy {
        Policy::Accept => "ACCEPT",
        Policy::Drop => "DROP",
    };
    let mut text = String::from("*nat\n");
    for chain in ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"] {
        text.push_str(&format!(":{chain} ACCEPT [0:0]\n"));
    }
    nat.iter().for_each(|rule| text.extend([rule, "\n"]));
    text.push_str("COMMIT\n*filter\n");
    for chain in ["INPUT", "FORWARD", "OUTPUT"] {
        text.push_str(&format!(":{chain} {policy} [0:0]\n"));
    }
    filter.iter().for_each(|rule| text.extend([rule, "\n"]));
    text.push_str("COMMIT\n");
    text
}

#[cfg(test)]
mod tests;

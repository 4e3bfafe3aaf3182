//! Ports that a service publishes on the host, and ports that it only listens on.

use std::net::{IpAddr, Ipv4Addr};

use super::document::{Node, Value};
use super::error::{ComposeError, Location, Warning};
use super::{read, schema};

/// A port of the container, published on the host where `published` says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) target: u16,
    pub(super) published: Option<u16>,
    pub(super) host_ip: IpAddr,
    pub(super) app_protocol: Option<String>,
    pub(super) at: Location,
}

/// More ports in one range than anyone means.
const MAX_RANGE: u16 = 1000;

/// Reads `ports`.
pub(super) fn read_all(
    node: Option<&Node>,
    what: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Port>, ComposeError> {
    let mut ports = Vec::new();
    for item in node.map_or(Ok(&[][..]), |node| read::list(node, what))? {
        match &item.value {
            Value::Mapping(_) => ports.push(long(item, what, warnings)?),
            _ => ports.extend(short(item, what)?),
        }
    }
    Ok(ports)
}

/// Reads a list of port numbers and ranges.
pub(super) fn read_exposed(node: Option<&Node>, what: &str) -> Result<Vec<u16>, ComposeError> {
    let mut ports = Vec::new();
    for item in node.map_or(Ok(&[][..]), |node| read::list(node, what))? {
        let text = tcp_only(item, what)?;
        ports.extend(
            range(&text).ok_or_else(|| read::expected(item, what, "ports between 1 and 65535"))?,
        );
    }
    Ok(ports)
}

fn long(node: &Node, what: &str, warnings: &mut Vec<Warning>) -> Result<Port, ComposeError> {
    schema::check(node, what, schema::PORT, warnings)?;
    let target = node
        .get("target")
        .ok_or_else(|| ComposeError::at(&node.at, format!("{what}: a port has no target")))?;
    if let Some(protocol) = node.get("protocol")
        && read::text(protocol, what)? != "tcp"
    {
        return Err(read::expected(
            protocol,
            &format!("{what}.protocol"),
            "tcp: the mesh carries TCP",
        ));
    }
    let host_ip = match node.get("host_ip") {
        Some(node) => address(node, &read::text(node, what)?, what)?,
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    Ok(Port {
        target: read::port(target, &format!("{what}.target"))?,
        published: node
            .get("published")
            .map(|node| read::port(node, &format!("{what}.published")))
            .transpose()?,
        host_ip,
        app_protocol: node
            .get("app_protocol")
            .map(|node| read::text(node, what))
            .transpose()?,
        at: node.at.clone(),
    })
}

/// `[[address:]host:]container[/tcp]`; host and container may be ranges of one length.
fn short(node: &Node, what: &str) -> Result<Vec<Port>, ComposeError> {
    let wrong = || {
        read::expected(
            node,
            what,
            "a port like \"80\", \"8080:80\" or \"127.0.0.1:8080:80\"",
        )
    };
    let text = tcp_only(node, what)?;
    let (host, container) = match text.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, text.as_str()),
    };
    let targets = range(container).ok_or_else(wrong)?;
    let (host_ip, published) = match host.map(|host| host.rsplit_once(':').unwrap_or(("", host))) {
        None => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), None),
        Some((ip, published)) => {
            let ip = if ip.is_empty() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            } else {
                address(node, ip, what)?
            };
            (ip, Some(range(published).ok_or_else(wrong)?))
        }
    };
    if published
        .as_ref()
        .is_some_and(|published| published.len() != targets.len())
    {
        return Err(ComposeError::at(
            &node.at,
            format!("{what}: the two ranges of {text:?} differ in length"),
        ));
    }
    let port = |(index, target): (usize, &u16)| Port {
        target: *target,
        published: published
            .as_ref()
            .and_then(|published| published.get(index).copied()),
        host_ip,
        app_protocol: None,
        at: node.at.clone(),
    };
    Ok(targets.iter().enumerate().map(port).collect())
}

fn tcp_only(node: &Node, what: &str) -> Result<String, ComposeError> {
    let text = read::text(node, what)?;
    match text.split_once('/') {
        None => Ok(text),
        Some((port, "tcp")) => Ok(port.to_owned()),
        Some(_) => Err(read::expected(
            node,
            what,
            "TCP: the mesh carries nothing else",
        )),
    }
}

fn address(node: &Node, text: &str, what: &str) -> Result<IpAddr, ComposeError> {
    let text = text.trim_matches(['[', ']']);
    text.parse()
        .map_err(|_| read::expected(node, what, "published at an IP address"))
}

fn range(text: &str) -> Option<Vec<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last && last - first < MAX_RANGE).then(|| (first..=last).collect())
}

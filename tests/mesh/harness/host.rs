//! The host's network and what else of the host a mesh must leave alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::command::{peer, run};

/// The host's network configuration as the usual tools print it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network(Vec<(String, Vec<String>)>);

impl Network {
    /// Firewall rules are for root's eyes only; an ordinary user could not have changed them either.
    pub(crate) fn look() -> Self {
        let mut commands = vec![
            vec!["ip", "-br", "link"],
            vec!["ip", "-br", "addr"],
            vec!["ip", "route", "show", "table", "all"],
            vec!["ip", "-6", "route", "show", "table", "all"],
            vec!["ip", "rule"],
            vec!["ip", "netns"],
            vec![
                "sysctl",
                "net.ipv4.ip_forward",
                "net.ipv6.conf.all.forwarding",
                "net.ipv4.conf.all.route_localnet",
            ],
        ];
        if nix::unistd::geteuid().is_root() {
            commands.extend([
                vec!["iptables-save"],
                vec!["ip6tables-save"],
                vec!["nft", "list", "ruleset"],
            ]);
        }
        let print = |words: Vec<&str>| {
            let text = run(peer(words[0]).args(&words[1..])).ok();
            (words.join(" "), stable_lines(&text))
        };
        Self(commands.into_iter().map(print).collect())
    }

    /// Fails where anything differs.
    pub(crate) fn assert_same(&self, other: &Self) {
        for ((command, before), (_, after)) in self.0.iter().zip(&other.0) {
            assert_eq!(before, after, "the host's `{command}` has changed");
        }
    }
}

/// Without comments, which hold the time, and without counters.
fn stable_lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| match line.find(" [") {
        Some(counters) if line.starts_with(':') => line[..counters].to_owned(),
        _ => line
            .split(" expires ")
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned(),
    });
    let mut lines: Vec<String> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    lines.sort();
    lines
}

/// Names in the places where programs leave things behind.
pub(crate) fn places() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in [
        "/run",
        "/run/netns",
        "/var/lib",
        "/etc",
        "/dev/shm",
        "/run/user",
    ] {
        found.extend(names(Path::new(folder)));
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect()
}

/// Mounts of the host that mention a path.
pub(crate) fn mounts_of(path: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let path = path.to_string_lossy();
    table
        .lines()
        .filter(|line| line.contains(&*path))
        .map(str::to_owned)
        .collect()
}

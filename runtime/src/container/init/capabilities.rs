//! What root of a container may do.
//!
//! Docker's default set without NET_RAW: with it, or with NET_ADMIN, an application could get around the rules
//! that lead its traffic through the sidecar.

use std::collections::HashSet;
use std::str::FromStr as _;

use caps::{CapSet, Capability, CapsHashSet};

use super::InitError;

/// Granted unless dropped.
const DEFAULT: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Not even part of `ALL`: only whoever names them gets them.
const BY_NAME_ONLY: [&str; 2] = ["NET_ADMIN", "NET_RAW"];

/// The capabilities of a container, from what is added to and dropped from the default.
///
/// # Errors
/// A name that is no capability.
pub(crate) fn choose(added: &[String], dropped: &[String]) -> Result<Vec<String>, InitError> {
    let added = canonical(added)?;
    let dropped = canonical(dropped)?;
    let mut chosen: HashSet<String> = HashSet::new();
    if !dropped.contains("ALL") {
        chosen.extend(DEFAULT.map(str::to_owned));
    }
    if added.contains("ALL") {
        let all = caps::all()
            .into_iter()
            .map(|capability| short_name(&capability.to_string()));
        chosen.extend(all.filter(|name| !BY_NAME_ONLY.contains(&name.as_str())));
    }
    chosen.retain(|name| !dropped.contains(name));
    chosen.extend(added.into_iter().filter(|name| name != "ALL"));
    let mut chosen: Vec<String> = chosen.into_iter().collect();
    chosen.sort();
    Ok(chosen)
}

fn canonical(names: &[String]) -> Result<HashSet<String>, InitError> {
    let canonical = |name: &String| {
        let short = short_name(name);
        if short == "ALL" || Capability::from_str(&format!("CAP_{short}")).is_ok() {
            return Ok(short);
        }
        Err(InitError::Capability(name.clone()))
    };
    names.iter().map(canonical).collect()
}

fn short_name(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

/// Takes everything else out of reach, for this process and all it will ever execute.
pub(super) fn bound(names: &[String]) -> Result<(), InitError> {
    let kept = parse(names)?;
    let known = caps::runtime::procfs_all_supported(None).unwrap_or_else(|_| caps::all());
    for capability in known.difference(&kept) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(refused)?;
    }
    Ok(())
}

/// Keeps only these, where the process is still root; none for anybody else.
pub(super) fn limit(names: &[String], uid: u32) -> Result<(), InitError> {
    let kept = if uid == 0 {
        parse(names)?
    } else {
        CapsHashSet::new()
    };
    caps::clear(None, CapSet::Ambient).map_err(refused)?;
    caps::clear(None, CapSet::Inheritable).map_err(refused)?;
    caps::set(None, CapSet::Effective, &kept).map_err(refused)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(refused)
}

fn parse(names: &[String]) -> Result<CapsHashSet, InitError> {
    let parse = |name: &String| {
        Capability::from_str(&format!("CAP_{name}"))
            .map_err(|_| InitError::Capability(name.clone()))
    };
    names.iter().map(parse).collect()
}

fn refused(error: caps::errors::CapsError) -> InitError {
    InitError::System {
        doing: "setting capabilities".to_owned(),
        source: std::io::Error::other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn network_capabilities_are_never_granted_by_default_or_by_all() {
        for added in [vec![], names(&["ALL"])] {
            let chosen = choose(&added, &[]).expect("capabilities");

            assert!(
                !chosen
                    .iter()
                    .any(|name| name == "NET_ADMIN" || name == "NET_RAW")
            );
        }
    }

    #[test]
    fn dropping_all_leaves_what_is_added() {
        let chosen =
            choose(&names(&["cap_net_bind_service"]), &names(&["ALL"])).expect("capabilities");

        assert_eq!(chosen, names(&["NET_BIND_SERVICE"]));
    }

    #[test]
    fn an_unknown_capability_is_named() {
        let error = choose(&names(&["FLY"]), &[]).expect_err("no such capability");

        assert!(error.to_string().contains("FLY"));
    }
}

//! Can this machine run weft? What works, what does not, and what to do about it.
//!
//! What can be tried is tried, in a scratch namespace like the mesh's own; the rest is read. Nothing is changed.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use crate::cgroup::{Delegation, Hierarchies, Version};
use crate::network::rules;
use crate::node::{IdPlan, user_name};

mod scratch;

pub(crate) use scratch::main as scratch_main;

/// Overlays in user namespaces came with 5.11, mount_setattr(2) with 5.12.
const OLDEST_KERNEL: (u32, u32) = (5, 12);
/// Two for each connection that a sidecar forwards.
const ENOUGH_FILES: u64 = 65536;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It works.
    Ok,
    /// weft runs, with something missing or slower.
    Warning,
    /// weft cannot run.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub name: String,
    /// How it went.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do, where it is not well.
    pub fix: Option<String>,
}

impl Finding {
    fn ok(name: &str, detail: impl Into<String>) -> Finding {
        Finding {
            name: name.to_owned(),
            status: Status::Ok,
            detail: detail.into(),
            fix: None,
        }
    }

    fn warning(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            status: Status::Warning,
            fix: Some(fix.into()),
            ..Finding::ok(name, detail)
        }
    }

    fn failed(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            status: Status::Failed,
            ..Finding::warning(name, detail, fix)
        }
    }
}

/// Looks at everything that weft needs of the machine.
pub fn check() -> Vec<Finding> {
    let mut findings = vec![
        kernel(),
        user_namespaces(),
        ids(),
        mapping_programs(),
        rule_programs(),
    ];
    findings.extend(tried());
    findings.extend([cgroups(), system_call_filter(), open_files()]);
    findings
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    match parse_version(&release) {
        Some(version) if version >= OLDEST_KERNEL => Finding::ok("kernel", release),
        _ => Finding::failed("kernel", release, "weft needs Linux 5.12 or newer"),
    }
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn user_namespaces() -> Finding {
    let name = "user namespaces";
    if read("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return Finding::failed(
            name,
            "user.max_user_namespaces is 0",
            "run `sysctl user.max_user_namespaces=10000`",
        );
    }
    let is_root = Uid::effective().is_root();
    if !is_root && read("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return Finding::failed(
            name,
            "kernel.unprivileged_userns_clone is 0",
            "as root, run `sysctl kernel.unprivileged_userns_clone=1`, or run weft as root",
        );
    }
    let apparmor = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    if !is_root && read(apparmor).as_deref() == Some("1") {
        return Finding::warning(
            name,
            "AppArmor restricts user namespaces of ordinary users",
            "as root, run `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or give weft a profile with `userns,`",
        );
    }
    Finding::ok(name, "available")
}

fn ids() -> Finding {
    match IdPlan::of_this_user() {
        Ok(IdPlan::Root { uids, .. }) => Finding::ok(
            "ids",
            format!("the mesh's root is uid {} of the host", uids.first),
        ),
        Ok(IdPlan::User { uid, uids, .. }) => Finding::ok(
            "ids",
            format!(
                "{} and {} from {}",
                user_name(Uid::from_raw(uid)),
                uids.count,
                uids.first
            ),
        ),
        Err(error) => {
            let user = user_name(Uid::effective());
            let fix = format!(
                "as root, add the line `{user}:100000:65536` to /etc/subuid and /etc/subgid"
            );
            Finding::failed("ids", error.to_string(), fix)
        }
    }
}

fn mapping_programs() -> Finding {
    let name = "newuidmap";
    if Uid::effective().is_root() {
        return Finding::ok(name, "not needed for root");
    }
    match (rules::find("newuidmap"), rules::find("newgidmap")) {
        (Some(path), Some(_)) => Finding::ok(name, path.display().to_string()),
        _ => Finding::failed(
            name,
            "newuidmap or newgidmap is missing",
            "install the package `uidmap`",
        ),
    }
}

fn rule_programs() -> Finding {
    match (
        rules::find("iptables-restore"),
        rules::find("ip6tables-restore"),
    ) {
        (Some(path), Some(_)) => Finding::ok("iptables", path.display().to_string()),
        _ => Finding::failed(
            "iptables",
            "iptables-restore or ip6tables-restore is missing",
            "install the package `iptables`",
        ),
    }
}

/// What a process in a scratch namespace has found out.
fn tried() -> Vec<Finding> {
    let output = Command::new("/proc/self/exe")
        .arg("node-check")
        .stdin(Stdio::null())
        .output();
    let found = output
        .map_err(|error| error.to_string())
        .and_then(|output| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            serde_json::from_slice::<Vec<Finding>>(&output.stdout).map_err(|_| said)
        });
    found.unwrap_or_else(|reason| {
        let fix = "see the findings above; without namespaces nothing else can be tried";
        vec![Finding::failed("namespaces", reason, fix)]
    })
}

fn cgroups() -> Finding {
    let name = "cgroups";
    let version = Hierarchies::of_this_process().map_or(Version::None, |found| found.version());
    let version = match version {
        Version::None => {
            return Finding::warning(
                name,
                "not mounted",
                "without cgroups limits are not enforced",
            );
        }
        Version::One => "version 1",
        Version::Two => "version 2",
    };
    let scratch = std::env::temp_dir().join(format!("weft-check-{}", std::process::id()));
    let delegation = Delegation::probe(&scratch);
    let is_possible = !delegation.is_empty();
    delegation.remove();
    if is_possible {
        return Finding::ok(name, format!("{version}, limits are enforced"));
    }
    Finding::warning(
        name,
        format!("{version}, not delegated to this user: limits are not enforced"),
        "run the daemon as root, or on version 2 under `systemd-run --user --scope -p Delegate=yes`",
    )
}

fn system_call_filter() -> Finding {
    match read("/proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) if actions.contains("errno") => Finding::ok("seccomp", "available"),
        _ => Finding::failed(
            "seccomp",
            "the kernel has no system call filters",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

fn open_files() -> Finding {
    let name = "open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= ENOUGH_FILES => Finding::ok(name, format!("at most {hard}")),
        Ok((_, hard)) => Finding::warning(
            name,
            format!("at most {hard} for a process"),
            format!(
                "raise the hard limit to {ENOUGH_FILES} (`ulimit -Hn`, /etc/security/limits.conf) for many connections"
            ),
        ),
        Err(errno) => Finding::warning(name, errno.to_string(), "see getrlimit(2)"),
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_are_understood() {
        assert_eq!(parse_version("6.1.0-26-amd64"), Some((6, 1)));
        assert_eq!(parse_version("5.12"), Some((5, 12)));
        assert_eq!(parse_version("unknown"), None);
        assert!(parse_version("5.10.0-33").expect("a version") < OLDEST_KERNEL);
    }
}

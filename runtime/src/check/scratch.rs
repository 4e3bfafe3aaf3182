//! `weft node-check`: tries in namespaces of its own what the node will do in the mesh's.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::mount::{MsFlags, mount};

use super::Finding;
use crate::bootstrap::NodeOptions;
use crate::network::{Network, NetworkError, rules};
use crate::node::{IdPlan, NodeError, chain, enter_scratch};

/// The two extensions that interception rests on.
const RULES: &str = "*nat\n-A OUTPUT -p tcp -m owner --uid-owner 1337 -j RETURN\n\
    -A OUTPUT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n";

/// Prints findings in JSON; an error on the other stream means that there are no namespaces to try things in.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    match run(arguments) {
        Ok(findings) => {
            println!("{}", serde_json::to_string(&findings).unwrap_or_default());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[OsString]) -> Result<Vec<Finding>, NodeError> {
    let options = NodeOptions::from_arguments(arguments).map_err(NodeError::Usage)?;
    let plan = IdPlan::of_this_user()?;
    let directory =
        scratch_directory(&options, &plan).map_err(NodeError::io("making a scratch directory"));
    enter_scratch(&plan)?;
    let overlay = match &directory {
        Ok(directory) => overlay(directory.path()),
        Err(error) => Finding::warning(
            "overlay",
            chain(error),
            "make WEFT_HOME a directory that you may write to",
        ),
    };
    // Outside ids may own it; inside we are their root and may remove it.
    drop(directory);
    Ok(vec![
        overlay,
        bridge(),
        redirect("iptables-restore"),
        redirect("ip6tables-restore"),
    ])
}

/// Beside the state directory, where overlays will be.
fn scratch_directory(options: &NodeOptions, plan: &IdPlan) -> io::Result<tempfile::TempDir> {
    let existing = options.state_dir.ancestors().find(|path| path.is_dir());
    let base = existing.map_or_else(std::env::temp_dir, Path::to_owned);
    let directory = tempfile::Builder::new()
        .prefix(".weft-check")
        .tempdir_in(base)?;
    if let Some((uid, gid)) = plan.foreign_root() {
        chown(directory.path(), Some(uid), Some(gid))?;
    }
    Ok(directory)
}

fn overlay(directory: &Path) -> Finding {
    let part = |name: &str| -> io::Result<PathBuf> {
        let path = directory.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    };
    let attempt = || -> io::Result<()> {
        let (lower, upper, work, target) = (
            part("lower")?,
            part("upper")?,
            part("work")?,
            part("target")?,
        );
        let options = format!(
            "lowerdir={},upperdir={},workdir={},userxattr",
            lower.display(),
            upper.display(),
            work.display()
        );
        mount(
            Some("overlay"),
            &target,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )?;
        fs::write(target.join("file"), b"")?;
        nix::mount::umount2(&target, nix::mount::MntFlags::MNT_DETACH)?;
        Ok(())
    };
    match attempt() {
        Ok(()) => Finding::ok("overlay", "works in a user namespace"),
        Err(error) => Finding::failed(
            "overlay",
            error.to_string(),
            "use a kernel with overlayfs (5.11 or newer), and a WEFT_HOME on a file system such as ext4, xfs or btrfs",
        ),
    }
}

fn bridge() -> Finding {
    let attempt = || -> Result<(), NetworkError> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(NetworkError::system("starting a runtime"))?
            .block_on(Network::probe())
    };
    match attempt() {
        Ok(()) => Finding::ok("network", "bridge and veth pairs can be made"),
        Err(error) => Finding::failed(
            "network",
            chain(&error),
            "load the kernel modules `bridge` and `veth`",
        ),
    }
}

fn redirect(program: &'static str) -> Finding {
    match rules::restore(program, RULES) {
        Ok(()) => Finding::ok(program, "REDIRECT and owner matches can be loaded"),
        Err(error) => Finding::failed(
            program,
            chain(&error),
            "install the package `iptables`, and load the modules xt_REDIRECT, xt_owner, nf_nat (modprobe)",
        ),
    }
}

//! What is mounted into a container: what the request says, and the few files every container has.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Component, Path, PathBuf};

use weft_proto::names::SIDECAR_STATE_DIR;
use weft_proto::weft::node::v1::mount::Source as WireSource;
use weft_proto::weft::node::v1::{CreateContainerRequest, Mount as WireMount};

use super::failure::{Failure, check_id};
use super::sandboxes::Record;
use super::{Shared, blueprint};
use crate::container::Place;
use crate::container::bundle::{Mount, Source};
use crate::image::ImageConfig;

const MAX_MOUNTS: usize = 256;
/// What a tmpfs is given where the request names no size.
const DEFAULT_TMPFS_BYTES: u64 = 64 * 1024 * 1024;

/// In the order in which they are mounted.
pub(super) fn of(
    shared: &Shared,
    request: &CreateContainerRequest,
    config: &ImageConfig,
    sandbox: &Record,
    place: &Place,
) -> Result<Vec<Mount>, Failure> {
    if request.mounts.len() > MAX_MOUNTS {
        return Err(Failure::invalid(
            "mounts",
            format!("more than {MAX_MOUNTS}"),
        ));
    }
    let mut mounts = standard_files(shared, request, sandbox, place)?;
    let sidecar_state = blueprint::sidecar_state(shared, request)?;
    for (number, mount) in request.mounts.iter().enumerate() {
        // The sandbox's own directory takes this place.
        if sidecar_state.is_some() && Path::new(&mount.target) == Path::new(SIDECAR_STATE_DIR) {
            continue;
        }
        mounts.push(requested(shared, mount, number, place)?);
    }
    if let Some(path) = sidecar_state {
        mounts.push(bind(path, SIDECAR_STATE_DIR));
    }
    mounts.extend(image_volumes(request, config, place)?);
    Ok(mounts)
}

fn bind(path: PathBuf, target: &str) -> Mount {
    Mount {
        target: target.into(),
        source: Source::Bind(path),
        read_only: false,
    }
}

/// resolv.conf, hosts and hostname; a container may write to its own.
fn standard_files(
    shared: &Shared,
    request: &CreateContainerRequest,
    sandbox: &Record,
    place: &Place,
) -> Result<Vec<Mount>, Failure> {
    let gateway = shared.network.gateway().0;
    let contents = [
        (
            "resolv.conf",
            resolv_conf(gateway.into(), &request.dns_search),
        ),
        (
            "hosts",
            hosts(&sandbox.hostname, sandbox.addresses(), &request.hosts),
        ),
        ("hostname", format!("{}\n", sandbox.hostname)),
    ];
    let mut mounts = Vec::new();
    for (name, content) in contents {
        let path = place.files().join(name);
        write_file(&path, content.as_bytes(), 0o644, 0)
            .map_err(Failure::system(format!("writing {name} of the container")))?;
        mounts.push(bind(path, &format!("/etc/{name}")));
    }
    Ok(mounts)
}

fn resolv_conf(gateway: IpAddr, search: &[String]) -> String {
    let mut text = format!("nameserver {gateway}\n");
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    // With a search list, names with a dot or two may be short: NAME.NAMESPACE is found without it anyway.
    text.push_str("options ndots:1\n");
    text
}

fn hosts(hostname: &str, addresses: [IpAddr; 2], extra: &[String]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for address in addresses {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    for line in extra {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn requested(
    shared: &Shared,
    mount: &WireMount,
    number: usize,
    place: &Place,
) -> Result<Mount, Failure> {
    let target = target(&mount.target)?;
    let source = match &mount.source {
        None => {
            return Err(Failure::invalid(
                "mounts",
                format!("{} has no source", mount.target),
            ));
        }
        Some(WireSource::HostPath(path)) => {
            if !Path::new(path).is_absolute() {
                return Err(Failure::invalid(
                    "mounts",
                    format!("{path} is not an absolute path"),
                ));
            }
            Source::Bind(path.into())
        }
        Some(WireSource::Volume(name)) => Source::Volume(volume(shared, name)?),
        Some(WireSource::TmpfsBytes(bytes)) => Source::Tmpfs {
            bytes: if *bytes == 0 {
                DEFAULT_TMPFS_BYTES
            } else {
                *bytes
            },
            mode: if mount.mode == 0 {
                0o755
            } else {
                mount.mode & 0o7777
            },
            uid: mount.uid,
        },
        Some(WireSource::Content(content)) => {
            let path = place.files().join(number.to_string());
            let mode = if mount.mode == 0 {
                0o444
            } else {
                mount.mode & 0o7777
            };
            write_file(&path, content, mode, mount.uid).map_err(Failure::system(format!(
                "writing the content of {}",
                mount.target
            )))?;
            Source::Bind(path)
        }
    };
    Ok(Mount {
        target,
        source,
        read_only: mount.read_only,
    })
}

/// Absolute, and without steps up: it is looked up inside the container, but must mean what it says.
fn target(text: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(text);
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && is_plain && path != Path::new("/") && !text.contains('\0') {
        return Ok(path.to_owned());
    }
    Err(Failure::invalid(
        "mounts",
        format!("{text:?} is not an absolute path below /"),
    ))
}

fn volume(shared: &Shared, name: &str) -> Result<PathBuf, Failure> {
    let path = volume_path(shared, name)?;
    fs::create_dir_all(&path).map_err(Failure::system(format!("making volume {name}")))?;
    Ok(path)
}

/// Removes a named volume. Whoever asks has made sure that no container has it.
pub(super) fn remove_volume(shared: &Shared, name: &str) -> Result<(), Failure> {
    let path = volume_path(shared, name)?;
    fs::remove_dir_all(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Failure::NotFound {
            kind: "volume",
            id: name.to_owned(),
        },
        _ => Failure::system(format!("removing volume {name}"))(source),
    })
}

fn volume_path(shared: &Shared, name: &str) -> Result<PathBuf, Failure> {
    check_id("volume", name)?;
    Ok(shared.options.state_dir.join("volumes").join(name))
}

/// Volumes that the image declares and nobody mounts get a directory that goes with the container.
fn image_volumes(
    request: &CreateContainerRequest,
    config: &ImageConfig,
    place: &Place,
) -> Result<Vec<Mount>, Failure> {
    let is_mounted = |path: &Path| {
        request
            .mounts
            .iter()
            .any(|mount| Path::new(&mount.target) == path)
    };
    let mut mounts = Vec::new();
    for (number, declared) in config.volumes.iter().enumerate() {
        let target = target(declared)?;
        if is_mounted(&target) {
            continue;
        }
        let path = place.state.join("volumes").join(number.to_string());
        fs::create_dir_all(&path).map_err(Failure::system("making a volume of the image"))?;
        mounts.push(Mount {
            target,
            source: Source::Volume(path),
            read_only: false,
        });
    }
    Ok(mounts)
}

fn write_file(path: &Path, content: &[u8], mode: u32, uid: u32) -> io::Result<()> {
    fs::write(path, content)?;
    chown(path, Some(uid), Some(uid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_climbs_or_is_relative_is_refused() {
        assert!(target("/data/x").is_ok());
        for text in ["", "/", "data", "/data/../etc", "../x"] {
            assert!(target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_resolver_asks_the_gateway() {
        let text = resolv_conf(
            "10.96.0.1".parse().expect("address"),
            &["default.svc.cluster.local".into()],
        );

        assert_eq!(
            text,
            "nameserver 10.96.0.1\nsearch default.svc.cluster.local\noptions ndots:1\n"
        );
    }

    #[test]
    fn a_pod_knows_its_own_name_and_the_lines_it_was_given() {
        let addresses = ["10.96.0.2", "fd57:6060::2"].map(|text| text.parse().expect("address"));

        let text = hosts("pod", addresses, &["192.0.2.1 db".into()]);

        assert!(
            text.ends_with("10.96.0.2\tpod\nfd57:6060::2\tpod\n192.0.2.1 db\n"),
            "{text}"
        );
    }
}

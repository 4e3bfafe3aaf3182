//! From a request to a bundle: everything is checked and resolved here, before anything is made.

use std::path::PathBuf;
use std::str::FromStr as _;

use nix::sys::signal::Signal;
use weft_proto::weft::node::v1::{CreateContainerRequest, RestartPolicy as WireRestart};

use super::failure::{Failure, check_id};
use super::programs::Programs;
use super::{Shared, mounts, sandboxes};
use crate::cgroup::{Group, Limits};
use crate::container::Place;
use crate::container::bundle::{Bundle, Network, Process, Root};
use crate::container::init::capabilities;
use crate::container::restart::RestartPolicy;
use crate::image::{ImageConfig, ImageRecord};

/// Where weft lies in a container of the host's programs.
const HOST_PROGRAM: &str = "/weft";
/// Applications end before sidecars when memory runs out.
const APPLICATION_OOM_SCORE: i32 = 100;
const MAX_ARGUMENTS_BYTES: usize = 128 * 1024;

/// Turns a request into a bundle. Files and directories of the container are made by the way.
pub(super) fn draw(
    shared: &Shared,
    request: &CreateContainerRequest,
    image: Option<&ImageRecord>,
    place: &Place,
) -> Result<Bundle, Failure> {
    check_size(request)?;
    let sandbox = shared.sandboxes.find(&request.sandbox_id)?;
    let config = image.map(|image| image.config.clone()).unwrap_or_default();
    let added = &request.capabilities_added;
    let capabilities =
        capabilities::choose(added, &request.capabilities_dropped).map_err(|error| {
            Failure::invalid(
                "capabilities_added, capabilities_dropped",
                error.to_string(),
            )
        })?;
    Ok(Bundle {
        id: request.id.clone(),
        hostname: sandbox.hostname.clone(),
        root: root(shared, image, place),
        root_directory: place.root(),
        read_only_root: request.read_only_root,
        network: Network::Sandbox(sandbox.attachment.namespace.clone()),
        mounts: mounts::of(shared, request, &config, &sandbox, place)?,
        process: Process {
            command: command(request, &config)?,
            environment: [&config.env[..], &request.environment[..]].concat(),
            working_directory: first_not_empty(&request.working_directory, &config.working_dir),
            user: first_not_empty(&request.user, &config.user),
            capabilities,
            terminal: request.terminal,
        },
        group: group(shared, request)?,
        restart: restart(request.restart())?,
        stop_signal: stop_signal(&first_not_empty(&request.stop_signal, &config.stop_signal))?,
        oom_score_adjust: if request.host_programs {
            0
        } else {
            APPLICATION_OOM_SCORE
        },
    })
}

/// What needs no look at anything else.
pub(super) fn check(request: &CreateContainerRequest) -> Result<(), Failure> {
    check_id("id", &request.id)?;
    if request.host_programs != request.image.is_empty() {
        return Err(Failure::invalid(
            "image",
            "give an image or host_programs, not both and not neither",
        ));
    }
    Ok(())
}

fn check_size(request: &CreateContainerRequest) -> Result<(), Failure> {
    let texts = request
        .arguments
        .iter()
        .chain(&request.entrypoint)
        .chain(&request.environment);
    let mut bytes = 0;
    for text in texts {
        bytes += text.len() + 1;
        if text.contains('\0') {
            return Err(Failure::invalid(
                "arguments, environment",
                "a NUL byte in a text",
            ));
        }
    }
    if bytes > MAX_ARGUMENTS_BYTES {
        return Err(Failure::invalid(
            "arguments, environment",
            "more than 128 KiB in all",
        ));
    }
    Ok(())
}

fn root(shared: &Shared, image: Option<&ImageRecord>, place: &Place) -> Root {
    match image {
        Some(image) => Root::Overlay {
            layers: image.layers.clone(),
            upper: place.upper(),
            work: place.work(),
        },
        None => Root::HostPrograms {
            program: Programs::below(&shared.options.state_dir)
                .in_use()
                .unwrap_or_else(|| shared.options.program()),
        },
    }
}

/// As every runtime: an entry point given here also replaces the image's arguments.
fn command(request: &CreateContainerRequest, config: &ImageConfig) -> Result<Vec<String>, Failure> {
    let (entrypoint, default_arguments) = match (&request.entrypoint[..], request.host_programs) {
        ([], true) => (vec![HOST_PROGRAM.to_owned()], &[][..]),
        ([], false) => (config.entrypoint.clone(), &config.cmd[..]),
        (entrypoint, _) => (entrypoint.to_vec(), &[][..]),
    };
    let arguments = if request.arguments.is_empty() {
        default_arguments
    } else {
        &request.arguments
    };
    let command = [&entrypoint[..], arguments].concat();
    if command.first().is_none_or(String::is_empty) {
        return Err(Failure::invalid(
            "entrypoint",
            format!(
                "image {} has no command of its own, and none was given",
                request.image
            ),
        ));
    }
    Ok(command)
}

fn group(shared: &Shared, request: &CreateContainerRequest) -> Result<Group, Failure> {
    let limits = Limits {
        memory_bytes: request.memory_bytes,
        cpu_millis: request.cpu_millis,
        pids: request.pids,
    };
    if limits.is_none() {
        return Ok(Group::default());
    }
    if shared.boot.delegation.is_empty() {
        tracing::warn!(
            container = request.id,
            "limits are not enforced: this user has no cgroup of his own; `weft check` says what to do"
        );
        return Ok(Group::default());
    }
    let doing = format!("setting the limits of container {}", request.id);
    shared
        .boot
        .delegation
        .create(&request.id, limits)
        .map_err(Failure::system(doing))
}

fn restart(policy: WireRestart) -> Result<RestartPolicy, Failure> {
    Ok(match policy {
        WireRestart::Unspecified | WireRestart::Never => RestartPolicy::Never,
        WireRestart::OnFailure => RestartPolicy::OnFailure,
        WireRestart::Always => RestartPolicy::Always,
    })
}

/// By name, with or without SIG, or by number; SIGRTMIN+n as some images have it.
fn stop_signal(name: &str) -> Result<i32, Failure> {
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if name.is_empty() {
        return Ok(libc::SIGTERM);
    }
    if let Ok(number) = name.parse::<i32>()
        && (1..=libc::SIGRTMAX()).contains(&number)
    {
        return Ok(number);
    }
    if let Some(offset) = name
        .strip_prefix("RTMIN+")
        .and_then(|offset| offset.parse::<i32>().ok())
        && (0..=libc::SIGRTMAX() - libc::SIGRTMIN()).contains(&offset)
    {
        return Ok(libc::SIGRTMIN() + offset);
    }
    Signal::from_str(&format!("SIG{name}"))
        .map(|signal| signal as i32)
        .map_err(|_| Failure::invalid("stop_signal", format!("{name} is not a signal")))
}

fn first_not_empty(first: &str, second: &str) -> String {
    if first.is_empty() {
        second.to_owned()
    } else {
        first.to_owned()
    }
}

/// The directories that a container's root filesystem needs.
pub(super) fn directories(place: &Place) -> [PathBuf; 5] {
    [
        place.upper(),
        place.work(),
        place.root(),
        place.files(),
        place.runtime.clone(),
    ]
}

/// Where a sidecar keeps its things, if this container is one.
pub(super) fn sidecar_state(
    shared: &Shared,
    request: &CreateContainerRequest,
) -> Result<Option<PathBuf>, Failure> {
    match request.host_programs {
        true => sandboxes::mount_sidecar_state(shared, &request.sandbox_id).map(Some),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["serve".into()],
            ..ImageConfig::default()
        }
    }

    fn words(command: Result<Vec<String>, Failure>) -> String {
        command.expect("a command").join(" ")
    }

    #[test]
    fn an_image_runs_its_own_command() {
        assert_eq!(
            words(command(&CreateContainerRequest::default(), &image())),
            "/entry serve"
        );
    }

    #[test]
    fn arguments_replace_the_images_and_an_entry_point_replaces_both() {
        let arguments = CreateContainerRequest {
            arguments: vec!["check".into()],
            ..CreateContainerRequest::default()
        };
        let entrypoint = CreateContainerRequest {
            entrypoint: vec!["/bin/sh".into()],
            ..CreateContainerRequest::default()
        };

        assert_eq!(words(command(&arguments, &image())), "/entry check");
        assert_eq!(words(command(&entrypoint, &image())), "/bin/sh");
    }

    #[test]
    fn no_command_at_all_is_refused() {
        assert!(command(&CreateContainerRequest::default(), &ImageConfig::default()).is_err());
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("", 15),
            ("SIGQUIT", 3),
            ("usr1", 10),
            ("9", 9),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
        ] {
            assert_eq!(stop_signal(text).expect("a signal"), number, "{text}");
        }
        for text in ["SIGNAL", "0", "99", "-1"] {
            assert!(stop_signal(text).is_err(), "{text}");
        }
    }
}

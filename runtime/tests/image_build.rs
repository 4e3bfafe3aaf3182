//! Dockerfile builds from outside: contexts in, images out. Commands are carried out by fakes.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

#[path = "image/fixture.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod fixture;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use fixture::{Oci, Run, Store, Tar, chain, gzip, ran_as_root};
use weft_runtime::image::{BuildRequest, ImageError, ImageRecord, RunCommand, RunStep};

fn context(dockerfile: &str) -> Tar {
    Tar::new()
        .file("Dockerfile", dockerfile)
        .file("app.py", "print()")
        .file("b.py", "b")
        .entry("run.sh", tar::EntryType::Regular, 0o755, "", b"#!/bin/sh")
        .file("data/one", "1")
        .file("data/sub/two", "2")
        .link("data/link", "one")
}

fn base(store: &Store) {
    let base = Tar::new()
        .folder("etc/", 0o755)
        .file("etc/passwd", "root:x:0:0::/:\napp:x:0:0::/:\n")
        .folder("srv/", 0o701)
        .link("app", "srv")
        .file("file", "x")
        .done();
    store
        .import(
            &Oci {
                name: "docker.io/library/base:latest",
                ..Oci::of(&[base])
            }
            .archive(),
        )
        .unwrap();
}

/// Looks a path up in the layers, highest first.
fn find(image: &ImageRecord, path: &str) -> Option<PathBuf> {
    let mut layers = image.layers.iter().rev().map(|layer| layer.join(path));
    layers.find(|path| fs::symlink_metadata(path).is_ok())
}

fn read(image: &ImageRecord, path: &str) -> String {
    let file = find(image, path).unwrap_or_else(|| panic!("{path} is missing"));
    fs::read_to_string(file).unwrap()
}

fn refusal(dockerfile: &str) -> String {
    let store = Store::new();
    base(&store);
    let error = store.build(&context(dockerfile).done()).unwrap_err();
    chain(&error)
}

#[test]
fn copy_follows_dockers_rules_for_files_folders_and_wildcards() {
    if ran_as_root("copy_follows_dockers_rules_for_files_folders_and_wildcards") {
        return;
    }
    let store = Store::new();
    let dockerfile = "FROM scratch\nWORKDIR /work\nCOPY app.py .\nCOPY app.py renamed\nCOPY *.py run.sh /all/\n\
        COPY data /d\nCOPY data/s* /d2/\nCOPY --chmod=600 app.py /modes/\nCOPY <<EOF /inline\nhello\nEOF\n";

    let (image, _) = store.build(&context(dockerfile).done()).unwrap();

    assert_eq!(read(&image, "work/app.py"), "print()");
    assert_eq!(read(&image, "work/renamed"), "print()");
    assert_eq!(read(&image, "all/b.py"), "b");
    assert_eq!(
        fs::metadata(find(&image, "all/run.sh").unwrap())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o755
    );
    assert_eq!(read(&image, "d/sub/two"), "2");
    assert_eq!(
        fs::read_link(find(&image, "d/link").unwrap())
            .unwrap()
            .to_str(),
        Some("one")
    );
    assert_eq!(read(&image, "d2/two"), "2");
    assert_eq!(
        fs::metadata(find(&image, "modes/app.py").unwrap())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    assert_eq!(
        fs::metadata(find(&image, "work/app.py").unwrap())
            .unwrap()
            .mtime(),
        1_700_000_000
    );
    assert_eq!(read(&image, "inline"), "hello\n");
    assert_eq!(image.config.working_dir, "/work");
}

#[test]
fn copy_lands_where_links_and_folders_of_the_base_lead() {
    if ran_as_root("copy_lands_where_links_and_folders_of_the_base_lead") {
        return;
    }
    let store = Store::new();
    base(&store);

    let (image, _) = store
        .build(&context("FROM base\nCOPY --chown=app app.py /app/\n").done())
        .unwrap();

    let copied = find(&image, "srv/app.py").unwrap();
    assert_eq!(fs::metadata(&copied).unwrap().uid(), 0);
    let folder = fs::metadata(copied.parent().unwrap()).unwrap();
    assert_eq!(
        folder.permissions().mode() & 0o777,
        0o701,
        "a folder of the base keeps its mode"
    );
    assert_eq!(
        image.config.cmd,
        ["/bin/app"],
        "the base's configuration is inherited"
    );
}

#[test]
fn an_unchanged_context_is_built_from_the_cache_with_the_same_id() {
    if ran_as_root("an_unchanged_context_is_built_from_the_cache_with_the_same_id") {
        return;
    }
    let store = Store::new();
    let dockerfile = "FROM scratch\nCOPY app.py /\nRUN make\nCOPY data /d/\n";
    let runs = RefCell::new(0);
    let runner = Run(|step: &mut RunCommand<'_>| {
        *runs.borrow_mut() += 1;
        fs::write(step.upper.join("made"), "x").unwrap();
        0
    });
    let build = |context: Tar, no_cache| {
        let request = BuildRequest {
            no_cache,
            ..BuildRequest::default()
        };
        store.build_with(&context.done(), request, &runner).unwrap()
    };

    let (first, _) = build(context(dockerfile), false);
    let (second, lines) = build(context(dockerfile), false);
    assert_eq!(first, second);
    assert_eq!(
        lines.iter().filter(|line| line.contains("cached")).count(),
        3
    );
    assert_eq!(*runs.borrow(), 1);

    let (third, _) = build(context(dockerfile).file("data/three", "3"), false);
    assert_ne!(third.id, first.id);
    assert_eq!(third.layers[..2], first.layers[..2]);
    assert_eq!(
        *runs.borrow(),
        1,
        "what comes before the change is not run again"
    );

    build(context(dockerfile).file("app.py", "changed"), false);
    assert_eq!(*runs.borrow(), 2);
    build(context(dockerfile), true);
    assert_eq!(*runs.borrow(), 3);
}

#[test]
fn stages_are_built_only_where_needed_and_copied_from() {
    if ran_as_root("stages_are_built_only_where_needed_and_copied_from") {
        return;
    }
    let store = Store::new();
    base(&store);
    let dockerfile = "FROM scratch AS one\nCOPY data /out/\nFROM scratch AS unused\nRUN never\nFROM one AS two\nCOPY app.py /out/\n\
        FROM base AS final\nCOPY --from=two /out/ /result/\nCOPY --from=0 /out/one /first\nCOPY --from=base /file /from-image\n";

    let (image, _) = store.build(&context(dockerfile).done()).unwrap();

    assert_eq!(read(&image, "result/app.py"), "print()");
    assert_eq!(read(&image, "result/sub/two"), "2");
    assert_eq!(read(&image, "first"), "1");
    assert_eq!(read(&image, "from-image"), "x");

    let request = BuildRequest {
        target: "one".to_owned(),
        ..BuildRequest::default()
    };
    let (target, _) = store
        .build_with(&context(dockerfile).done(), request, &fixture::NoRun)
        .unwrap();
    assert_eq!(target.layers.len(), 1);
}

#[test]
fn a_command_is_run_with_the_stages_environment_and_its_changes_become_a_layer() {
    if ran_as_root("a_command_is_run_with_the_stages_environment_and_its_changes_become_a_layer") {
        return;
    }
    let store = Store::new();
    base(&store);
    let dockerfile = "ARG TAG=latest\nFROM base:$TAG\nARG VERSION=1\nARG HIDDEN=arg\nENV HIDDEN=env NAME=\"a b\"\nWORKDIR /srv\nUSER app\nRUN make $VERSION\nSHELL [\"/bin/bash\", \"-ec\"]\nRUN two\nRUN [\"exec\", \"$VERSION\"]\n";
    let seen = RefCell::new(Vec::new());
    let runner = Run(|step: &mut RunCommand<'_>| {
        seen.borrow_mut().push((
            step.command.clone(),
            step.environment.clone(),
            step.working_directory.clone(),
            step.user.clone(),
        ));
        let name = format!("made{}", seen.borrow().len());
        fs::write(step.upper.join(name), "x").unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            step.upper.join("file"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        )
        .unwrap();
        (step.output)(b"line one\nline ");
        (step.output)(b"two");
        assert!(step.layers.iter().all(|layer| layer.is_dir()) && step.work.is_dir());
        0
    });
    let request = BuildRequest {
        arguments: BTreeMap::from([
            ("VERSION".to_owned(), "2".to_owned()),
            ("TYPO".to_owned(), "x".to_owned()),
        ]),
        reference: "built".to_owned(),
        ..BuildRequest::default()
    };

    let (image, lines) = store
        .build_with(&context(dockerfile).done(), request, &runner)
        .unwrap();

    let seen = seen.borrow();
    assert_eq!(seen[0].0, ["/bin/sh", "-c", "make $VERSION"]);
    assert_eq!(
        seen[0].1,
        ["PATH=/bin", "HIDDEN=env", "NAME=a b", "VERSION=2"]
    );
    assert_eq!((seen[0].2.as_str(), seen[0].3.as_str()), ("/srv", "app"));
    assert_eq!(seen[1].0, ["/bin/bash", "-ec", "two"]);
    assert_eq!(seen[2].0, ["exec", "$VERSION"]);
    assert!(lines.contains(&"line one".to_owned()) && lines.contains(&"line two".to_owned()));
    assert!(lines.iter().any(|line| line.contains("TYPO")));
    assert_eq!(image.references, ["built:latest"]);
    assert!(find(&image, "made3").is_some());

    let mut out = Vec::new();
    store.store.export("built", &mut out).unwrap();
    let again = Store::new();
    let imported = again.import(&out).unwrap();
    assert_eq!(imported.id, image.id);
    let top = imported.layers.last().unwrap();
    assert_eq!(
        fs::symlink_metadata(top.join("file")).unwrap().rdev(),
        0,
        "the deletion survived the round trip"
    );
}

#[test]
fn instructions_without_files_change_the_configuration() {
    if ran_as_root("instructions_without_files_change_the_configuration") {
        return;
    }
    let store = Store::new();
    base(&store);
    let dockerfile = "FROM base\nENV P=8080 PATH=$PATH:/x\nEXPOSE $P 53/udp\nVOLUME /v [\"x\"]\nVOLUME [\"/data\"]\nLABEL a=\"b c\" d=${P}\nSTOPSIGNAL SIGINT\nUSER 5:6\nENTRYPOINT [\"/e\"]\nHEALTHCHECK --interval=2s CMD curl x\nWORKDIR a\nWORKDIR ../b\n";

    let (image, _) = store.build(&context(dockerfile).done()).unwrap();

    let config = &image.config;
    assert_eq!(config.env, ["PATH=/bin:/x", "P=8080"]);
    assert_eq!(config.exposed_ports, ["53/udp", "80/tcp", "8080/tcp"]);
    assert!(config.volumes.contains(&"/data".to_owned()));
    assert_eq!(config.labels["a"], "b c");
    assert_eq!(config.labels["d"], "8080");
    assert_eq!(
        (config.stop_signal.as_str(), config.user.as_str()),
        ("SIGINT", "5:6")
    );
    assert_eq!(config.entrypoint, ["/e"]);
    assert!(config.cmd.is_empty(), "an ENTRYPOINT clears the base's CMD");
    assert_eq!(
        config.healthcheck.as_ref().unwrap().test,
        ["CMD-SHELL", "curl x"]
    );
    assert_eq!(config.working_dir, "/b");
}

#[test]
fn add_unpacks_archives_and_copy_does_not() {
    if ran_as_root("add_unpacks_archives_and_copy_does_not") {
        return;
    }
    let store = Store::new();
    let inner = Tar::new().file("x/y", "inside").link("x/l", "/etc").done();
    let context =
        context("FROM scratch\nADD a.tgz /added/\nADD app.py /added/\nCOPY a.tgz /copied/\n")
            .file("a.tgz", gzip(&inner));

    let (image, _) = store.build(&context.done()).unwrap();

    assert_eq!(read(&image, "added/x/y"), "inside");
    assert_eq!(read(&image, "added/app.py"), "print()");
    assert!(find(&image, "copied/a.tgz").is_some());
}

#[test]
fn dockerignore_keeps_files_out_and_says_so() {
    if ran_as_root("dockerignore_keeps_files_out_and_says_so") {
        return;
    }
    let store = Store::new();
    let context = |dockerfile| context(dockerfile).file(".dockerignore", "data/sub\n*.sh\n");

    let (image, _) = store
        .build(&context("FROM scratch\nCOPY . /all/\n").done())
        .unwrap();
    assert!(find(&image, "all/data/one").is_some());
    assert!(find(&image, "all/data/sub").is_none() && find(&image, "all/run.sh").is_none());

    let error = store
        .build(&context("FROM scratch\nCOPY run.sh /\n").done())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Dockerfile:2") && error.contains(".dockerignore"),
        "{error}"
    );
}

#[test]
fn mistakes_are_reported_with_file_line_and_text() {
    if ran_as_root("mistakes_are_reported_with_file_line_and_text") {
        return;
    }
    let doubling = format!("FROM scratch\nENV A=aa\n{}", "ENV A=$A$A\n".repeat(40));
    for (dockerfile, line, word) in [
        ("FROM nope\n", 1, "nope"),
        ("FROM scratch\nCOPY missing /\n", 2, "missing"),
        ("FROM scratch\nCOPY ../x /\n", 2, "outside"),
        ("FROM scratch\nCOPY app.py b.py /x\n", 2, "ends with /"),
        ("FROM base\nCOPY data /file\n", 2, "file"),
        ("FROM base\nCOPY app.py /file/\n", 2, "not a folder"),
        (
            "FROM scratch\nCOPY --chown=nobody app.py /\n",
            2,
            "/etc/passwd",
        ),
        ("FROM scratch\nCOPY --chmod=u+x app.py /\n", 2, "octal"),
        (
            "FROM scratch\nCOPY --from=later app.py /\nFROM scratch AS later\n",
            0,
            "",
        ),
        ("FROM scratch\nENV A=${B:?set B}\n", 2, "set B"),
        ("FROM --platform=windows/amd64 base\n", 1, "windows"),
        ("FROM scratch\nEXPOSE http\n", 2, "http"),
        (&doubling, 20, "128 KiB"),
        ("FROM base\nADD data/x.tar.xz /\n", 2, "no such file"),
    ] {
        if line == 0 {
            continue;
        }
        let error = refusal(dockerfile);
        assert!(
            error.contains(&format!("Dockerfile:{line}")) && error.contains(word),
            "{dockerfile}: {error}"
        );
    }
}

#[test]
fn a_failing_command_ends_the_build() {
    if ran_as_root("a_failing_command_ends_the_build") {
        return;
    }
    let store = Store::new();
    let runner = Run(|_: &mut RunCommand<'_>| 7);
    let context = context("FROM scratch\nRUN false\n").done();
    let error = store
        .build_with(&context, BuildRequest::default(), &runner)
        .unwrap_err();
    assert!(chain(&error).contains("status 7"), "{}", chain(&error));
    assert!(store.store.list().is_empty());
}

#[test]
fn a_context_from_a_stranger_cannot_leave_its_folder() {
    if ran_as_root("a_context_from_a_stranger_cannot_leave_its_folder") {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let target = outside.path().to_str().unwrap();
    let context = context("FROM scratch\nCOPY out/secret /\n")
        .link("out", target)
        .done();
    let error = Store::new().build(&context).unwrap_err();
    assert!(chain(&error).contains("no such file"), "{}", chain(&error));
}

/// Carries commands out in a real overlay of a mount namespace, with the machine's own programs.
struct Overlay;

impl RunStep for Overlay {
    fn run(&self, step: &mut RunCommand<'_>) -> Result<i32, ImageError> {
        let lower: Vec<&str> = step
            .layers
            .iter()
            .rev()
            .map(|layer| layer.to_str().unwrap())
            .collect();
        let options = format!(
            "userxattr,lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            step.upper.display(),
            step.work.display()
        );
        let merged = step.upper.with_file_name("merged");
        fs::create_dir(&merged).unwrap();
        let script = "mount -t overlay -o \"$1\" overlay \"$2\" && cd \"$2\" && eval \"$3\"";
        let output = Command::new("unshare")
            .args(["--mount", "--", "sh", "-ec", script, "sh", &options])
            .arg(&merged)
            .arg(&step.command[2])
            .output()
            .expect("unshare of util-linux runs: apt-get install util-linux");
        (step.output)(&output.stdout);
        (step.output)(&output.stderr);
        Ok(output.status.code().unwrap_or(1))
    }
}

/// Every path of the merged view of an image with its type, mode and content.
fn listing(image: &ImageRecord) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (upper, work) = (folder.path().join("upper"), folder.path().join("work"));
    [&upper, &work]
        .into_iter()
        .for_each(|path| fs::create_dir(path).unwrap());
    let mut listing = Vec::new();
    let script = "find . -mindepth 1 -not -name merged -printf '%P %y %m %l ' \\( -type f -exec cat {} ';' \\) -printf '\\n' -o -printf '\\n' | sort";
    let status = Overlay.run(&mut RunCommand {
        layers: &image.layers,
        upper: &upper,
        work: &work,
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        environment: Vec::new(),
        working_directory: "/".to_owned(),
        user: String::new(),
        output: &mut |bytes| listing.extend_from_slice(bytes),
    });
    assert_eq!(status.unwrap(), 0, "{}", String::from_utf8_lossy(&listing));
    String::from_utf8(listing).unwrap()
}

#[test]
fn what_a_command_did_to_a_real_overlay_survives_export_and_import() {
    if ran_as_root("what_a_command_did_to_a_real_overlay_survives_export_and_import") {
        return;
    }
    let store = Store::new();
    let dockerfile = "FROM scratch\nCOPY data /gone/\nCOPY data /replaced/\nCOPY data /kept/\nCOPY app.py /moved\n\
        RUN rm -r gone && rm kept/one && rm -r replaced && mkdir replaced && echo new > replaced/new && mv moved moved2 \
        && ln moved2 hard && ln -s ./moved2 soft && chmod 4711 moved2 && mkfifo pipe && mkdir -m 700 closed && touch closed/x\n";

    let (image, _) = store
        .build_with(
            &context(dockerfile).done(),
            BuildRequest::default(),
            &Overlay,
        )
        .unwrap();

    let built = listing(&image);
    for line in [
        "replaced/new f 644  new",
        "moved2 f 4711  print()",
        "hard f 4711  print()",
        "soft l 777 ./moved2",
        "closed d 700",
    ] {
        assert!(built.contains(line), "{line} is missing in:\n{built}");
    }
    for gone in ["gone", "kept/one", "replaced/one", "moved f"] {
        assert!(
            !built.lines().any(|line| line.starts_with(gone)),
            "{gone} is there in:\n{built}"
        );
    }
    let mut out = Vec::new();
    store.store.export(&image.id, &mut out).unwrap();
    let other = Store::new();
    assert_eq!(listing(&other.import(&out).unwrap()), built);
}

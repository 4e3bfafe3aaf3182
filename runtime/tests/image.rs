//! The image store from outside: archives in, layers and archives out.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

#[path = "image/fixture.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod fixture;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use fixture::{
    Oci, Store, Tar, archive, chain, docker_archive, gzip, ran_as_root, ran_with_one_id,
};
use weft_runtime::image::{ImageError, Removed};

fn layer() -> Vec<u8> {
    Tar::new()
        .folder("./", 0o755)
        .folder("bin/", 0o711)
        .entry("bin/app", tar::EntryType::Regular, 0o4755, "", b"program")
        .hard_link("bin/other", "bin/app")
        .folder("usr/lib/", 0o755)
        .link("lib", "/usr/lib")
        .file("lib/through-link", "x")
        .xattr("user.note", b"kept")
        .file("etc/conf", "conf")
        .done()
}

#[test]
fn an_oci_archive_becomes_an_image_with_unpacked_layers() {
    if ran_as_root("an_oci_archive_becomes_an_image_with_unpacked_layers") {
        return;
    }
    let store = Store::new();

    let image = store.import(&Oci::of(&[layer()]).archive()).unwrap();

    assert_eq!(image.references, ["test:1"]);
    assert_eq!(image.config.cmd, ["/bin/app"]);
    assert_eq!(image.config.exposed_ports, ["80/tcp"]);
    assert_eq!(image.created_at, 1_704_164_645);
    let root = &image.layers[0];
    let app = fs::metadata(root.join("bin/app")).unwrap();
    assert_eq!(app.permissions().mode() & 0o7777, 0o4755);
    assert_eq!(app.mtime(), 1_700_000_000);
    assert_eq!(
        app.ino(),
        fs::metadata(root.join("bin/other")).unwrap().ino()
    );
    assert_eq!(
        fs::metadata(root.join("bin")).unwrap().permissions().mode() & 0o7777,
        0o711
    );
    assert_eq!(
        fs::read_link(root.join("lib")).unwrap().to_str(),
        Some("/usr/lib")
    );
    assert_eq!(fs::read(root.join("usr/lib/through-link")).unwrap(), b"x");
    assert_eq!(
        xattr::get(root.join("etc/conf"), "user.note")
            .unwrap()
            .unwrap(),
        b"kept"
    );
}

#[test]
fn an_image_is_found_by_every_spelling_of_its_name_and_by_its_id() {
    if ran_as_root("an_image_is_found_by_every_spelling_of_its_name_and_by_its_id") {
        return;
    }
    let store = Store::new();
    let image = store.import(&Oci::of(&[layer()]).archive()).unwrap();

    for name in [
        "test:1",
        "library/test:1",
        "docker.io/library/test:1",
        &image.id,
        &image.id[7..19],
    ] {
        assert_eq!(store.store.find(name).unwrap().id, image.id, "{name}");
    }
    for name in [
        "test",
        "test:2",
        "sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "0000",
    ] {
        assert!(
            matches!(store.store.find(name), Err(ImageError::NotFound { .. })),
            "{name}"
        );
    }
    assert!(matches!(
        store.store.find("Test:1"),
        Err(ImageError::InvalidReference { .. })
    ));
}

#[test]
fn archives_may_be_compressed_as_a_whole_and_layers_each() {
    if ran_as_root("archives_may_be_compressed_as_a_whole_and_layers_each") {
        return;
    }
    let plain = Oci {
        compress: <[u8]>::to_vec,
        ..Oci::of(&[layer()])
    };
    let zstd = Oci {
        compress: |bytes| zstd::encode_all(bytes, 1).unwrap(),
        ..Oci::of(&[layer()])
    };
    let whole = Oci::of(&[layer()]).archive();

    for bytes in [
        plain.archive(),
        zstd.archive(),
        gzip(&whole),
        zstd::encode_all(&whole[..], 1).unwrap(),
    ] {
        let image = Store::new().import(&bytes).unwrap();
        assert_eq!(image.references, ["test:1"]);
    }
}

#[test]
fn a_docker_archive_becomes_the_image_that_an_oci_archive_would() {
    if ran_as_root("a_docker_archive_becomes_the_image_that_an_oci_archive_would") {
        return;
    }
    let store = Store::new();

    let image = store.import(&docker_archive(&layer())).unwrap();

    assert_eq!(image.references, ["shop:2"]);
    assert_eq!(image.config.entrypoint, ["/x"]);
    assert_eq!(image.layers.len(), 2);
    assert!(image.layers[1].join("bin/app").exists());
}

#[test]
fn the_image_for_this_platform_is_chosen_from_an_index() {
    if ran_as_root("the_image_for_this_platform_is_chosen_from_an_index") {
        return;
    }
    let (mut blobs, mut own) = Oci::of(&[layer()]).blobs();
    own["platform"] =
        serde_json::json!({"os": "linux", "architecture": fixture::host_architecture()});
    let (foreign_blobs, mut foreign) = Oci {
        architecture: "s390x",
        ..Oci::of(&[layer()])
    }
    .blobs();
    foreign["platform"] = serde_json::json!({"os": "linux", "architecture": "s390x"});
    blobs.extend(foreign_blobs);
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [foreign, own]})
        .to_string()
        .into_bytes();
    let digest = fixture::sha256(&index);
    let nested = serde_json::json!({
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": format!("sha256:{digest}"), "size": index.len(),
        "annotations": {"org.opencontainers.image.ref.name": "multi:3"},
    });
    blobs.insert(digest, index);

    let image = Store::new().import(&archive(&blobs, &[nested])).unwrap();

    assert_eq!(image.references, ["multi:3"]);
}

#[test]
fn an_image_for_other_machines_is_refused_with_what_it_is_for() {
    let bytes = Oci {
        architecture: "s390x",
        ..Oci::of(&[layer()])
    }
    .archive();
    let error = Store::new().import(&bytes).unwrap_err().to_string();
    assert!(error.contains("linux/s390x"), "{error}");
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    if ran_as_root("content_that_is_not_what_its_digest_says_is_refused") {
        return;
    }
    let (blobs, manifest) = Oci::of(&[layer()]).blobs();
    for digest in blobs.keys() {
        let mut damaged = blobs.clone();
        let bytes = damaged.get_mut(digest).unwrap();
        // A byte of a JSON string or of the gzip header's time: it still parses.
        let at = if bytes.starts_with(b"{") {
            bytes
                .windows(5)
                .position(|w| w == b"media" || w == b"linux")
                .unwrap_or(2)
                + 1
        } else {
            5
        };
        bytes[at] ^= 1;
        let store = Store::new();

        let error = store
            .import(&archive(&damaged, std::slice::from_ref(&manifest)))
            .unwrap_err();

        assert!(
            matches!(error, ImageError::DigestMismatch { .. }),
            "{digest}: {error}"
        );
        assert!(store.store.list().is_empty());
    }
}

#[test]
fn deletions_become_overlay_whiteouts_and_opaque_folders() {
    if ran_as_root("deletions_become_overlay_whiteouts_and_opaque_folders") {
        return;
    }
    let deleting = Tar::new()
        .file("bin/.wh.app", "")
        .file("etc/.wh..wh..opq", "")
        .file("etc/new", "x")
        .file(".wh..wh.plnk", "")
        .file("kept", "x")
        .file(".wh.kept", "")
        .file(".wh.again", "")
        .folder("again/", 0o755)
        .done();

    let image = Store::new();
    let image_record = image
        .import(&Oci::of(&[layer(), deleting]).archive())
        .unwrap();

    let top = &image_record.layers[1];
    let whiteout = fs::symlink_metadata(top.join("bin/app")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert_eq!(
        xattr::get(top.join("etc"), "user.overlay.opaque")
            .unwrap()
            .unwrap(),
        b"y"
    );
    assert!(top.join("etc/new").is_file());
    assert!(
        top.join("kept").is_file(),
        "deletions are about lower layers"
    );
    assert_eq!(
        xattr::get(top.join("again"), "user.overlay.opaque")
            .unwrap()
            .unwrap(),
        b"y"
    );
    assert_eq!(fs::read_dir(top).unwrap().count(), 4);
}

#[test]
fn hostile_layers_never_write_outside_of_their_folder() {
    if ran_as_root("hostile_layers_never_write_outside_of_their_folder") {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let contained = [
        Tar::new().link("out", target).file("out/written", "x"),
        Tar::new()
            .link("up", "../../../../../../../../../../")
            .file(&format!("up{target}/written"), "x"),
        Tar::new().entry(
            &format!("{target}/written"),
            tar::EntryType::Regular,
            0o644,
            "",
            b"x",
        ),
        Tar::new()
            .link("file", &format!("{target}/written"))
            .file("file", "x"),
        Tar::new()
            .link("a", "b")
            .link("b", target)
            .file("a/written", "x"),
        Tar::new()
            .link("proc", "/proc/self/root")
            .file("proc/written", "x"),
    ];
    let refused = [
        Tar::new().file("../written", "x"),
        Tar::new().file("a/../../written", "x"),
        Tar::new().hard_link("link", "/etc/passwd"),
        Tar::new().hard_link("link", "../../../../../../etc/passwd"),
        Tar::new()
            .link("out", target)
            .hard_link("link", "out/secret"),
        Tar::new().link("loop", "loop").file("loop/x", "x"),
        Tar::new().file("file", "x").file("file/x", "x"),
        Tar::new().file(".wh.", "").file(".wh...", ""),
    ];
    fs::write(outside.path().join("secret"), "secret").unwrap();

    for (number, tar) in contained.into_iter().enumerate() {
        // Where a link leads to a folder that the layer does not have, the entry is refused; that is fine too.
        let _ = Store::new().import(&Oci::of(&[tar.done()]).archive());
        assert!(
            !outside.path().join("written").exists(),
            "contained {number}"
        );
    }
    for (number, tar) in refused.into_iter().enumerate() {
        let store = Store::new();
        assert!(
            store.import(&Oci::of(&[tar.done()]).archive()).is_err(),
            "refused {number}"
        );
        assert!(store.store.list().is_empty());
        assert!(!store.path().join("written").exists());
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn devices_are_skipped_and_forged_overlay_notes_dropped() {
    if ran_as_root("devices_are_skipped_and_forged_overlay_notes_dropped") {
        return;
    }
    let layer = Tar::new()
        .entry("dev/null", tar::EntryType::Char, 0o666, "", b"")
        .entry("dev/sda", tar::EntryType::Block, 0o666, "", b"")
        .entry("pipe", tar::EntryType::Fifo, 0o644, "", b"")
        .xattr("user.overlay.whiteout", b"y")
        .file("f", "")
        .xattr("user.overlay.opaque", b"y")
        .folder("d/", 0o755)
        .done();

    let store = Store::new();
    let image = store.import(&Oci::of(&[layer]).archive()).unwrap();

    let root = &image.layers[0];
    assert!(!root.join("dev/null").exists() && !root.join("dev/sda").exists());
    assert!(
        fs::symlink_metadata(root.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    for name in ["f", "d"] {
        assert_eq!(
            xattr::list(root.join(name))
                .unwrap()
                .filter(|name| name.to_string_lossy().contains("overlay"))
                .count(),
            0
        );
    }
}

#[test]
fn an_owner_outside_of_the_id_range_is_named() {
    if ran_with_one_id("an_owner_outside_of_the_id_range_is_named") {
        return;
    }
    for uid in [70, u64::from(u32::MAX), u64::from(u32::MAX) + 1] {
        let layer = Tar::new().owned("srv/data", uid).done();
        let error = Store::new()
            .import(&Oci::of(&[layer]).archive())
            .unwrap_err();
        assert!(chain(&error).contains("srv/data"), "{}", chain(&error));
        assert_eq!(
            uid == 70,
            matches!(error, ImageError::UnmappedOwner { uid: 70, .. })
        );
    }
}

#[test]
fn folders_cannot_be_nested_so_deep_that_nobody_can_remove_them() {
    if ran_as_root("folders_cannot_be_nested_so_deep_that_nobody_can_remove_them") {
        return;
    }
    let deep = "d/".repeat(45);
    let mut tar = Tar::new().folder(&deep, 0o755);
    let mut name = "l0".to_owned();
    tar = tar.link(&name, &deep);
    for number in 1..39 {
        tar = tar.folder(&format!("{name}/{deep}"), 0o755);
        let next = format!("l{number}");
        tar = tar.link(&next, &format!("{name}/{deep}"));
        name = next;
    }
    let store = Store::new();

    let error = store.import(&Oci::of(&[tar.done()]).archive()).unwrap_err();

    assert!(chain(&error).contains("too long"), "{}", chain(&error));
    assert_eq!(
        fs::read_dir(store.path().join("temporary"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn what_is_no_image_archive_is_refused() {
    let store = Store::new();
    for bytes in [
        b"".to_vec(),
        b"hello".to_vec(),
        vec![0; 4096],
        gzip(b"x"),
        Tar::new().file("x", "y").done(),
    ] {
        let error = store.import(&bytes).unwrap_err();
        assert!(
            matches!(error, ImageError::Archive { .. } | ImageError::Io { .. }),
            "{error}"
        );
    }
}

#[test]
fn no_damage_to_an_archive_makes_it_panic() {
    if ran_as_root("no_damage_to_an_archive_makes_it_panic") {
        return;
    }
    let bytes = Oci {
        compress: <[u8]>::to_vec,
        ..Oci::of(&[Tar::new().file("a", "b").done()])
    }
    .archive();
    let mut state: u64 = 1;
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        for _ in 0..3 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (state >> 33) as usize % damaged.len();
            damaged[at] = (state >> 20) as u8;
        }
        let _ = Store::new().import(&damaged);
    }
}

#[test]
fn a_name_given_at_import_replaces_that_of_the_archive() {
    if ran_as_root("a_name_given_at_import_replaces_that_of_the_archive") {
        return;
    }
    let store = Store::new();
    let bytes = Oci::of(&[layer()]).archive();

    let image = store
        .store
        .import(&bytes[..], Some("mine"), &mut |_| {})
        .unwrap();

    assert_eq!(image.references, ["mine:latest"]);
    assert!(
        store
            .store
            .import(&bytes[..], Some("Not Valid"), &mut |_| {})
            .is_err()
    );
}

#[test]
fn a_name_moves_to_the_newer_image_and_the_older_keeps_its_id() {
    if ran_as_root("a_name_moves_to_the_newer_image_and_the_older_keeps_its_id") {
        return;
    }
    let store = Store::new();
    let old = store.import(&Oci::of(&[layer()]).archive()).unwrap();
    let new = store
        .import(&Oci::of(&[Tar::new().file("x", "y").done()]).archive())
        .unwrap();

    assert_eq!(store.store.find("test:1").unwrap().id, new.id);
    assert!(store.store.find(&old.id).unwrap().references.is_empty());
    assert_eq!(store.store.list().len(), 2);
}

#[test]
fn pruning_keeps_what_images_and_containers_need() {
    if ran_as_root("pruning_keeps_what_images_and_containers_need") {
        return;
    }
    let store = Store::new();
    let shared = layer();
    let first = store
        .import(&Oci::of(&[shared.clone(), Tar::new().file("1", "").done()]).archive())
        .unwrap();
    let second = Oci {
        name: "docker.io/library/second:1",
        ..Oci::of(&[shared, Tar::new().file("2", "").done()])
    };
    let second = store.import(&second.archive()).unwrap();
    assert_eq!(first.layers[0], second.layers[0]);

    assert_eq!(
        store.store.remove("test:1").unwrap(),
        Removed::Deleted(first.id.clone())
    );
    let kept = BTreeSet::from([first.layers[1].clone()]);
    assert_eq!(store.store.prune(&kept).unwrap().layers, 0);
    assert_eq!(store.store.prune(&BTreeSet::new()).unwrap().layers, 1);

    assert!(!first.layers[1].exists());
    assert!(second.layers.iter().all(|layer| layer.exists()));
    let mut out = Vec::new();
    store.store.export("second:1", &mut out).unwrap();
    assert!(matches!(
        store.store.remove("test:1"),
        Err(ImageError::NotFound { .. })
    ));
}

#[test]
fn an_exported_image_is_the_same_after_import() {
    if ran_as_root("an_exported_image_is_the_same_after_import") {
        return;
    }
    let store = Store::new();
    let image = store.import(&docker_archive(&layer())).unwrap();
    let tagged = store
        .store
        .tag("shop:2", "registry.example:5000/shop:3")
        .unwrap();
    assert_eq!(
        tagged.references,
        ["registry.example:5000/shop:3", "shop:2"]
    );

    let mut out = Vec::new();
    store
        .store
        .export("registry.example:5000/shop:3", &mut out)
        .unwrap();
    let again = Store::new().import(&out).unwrap();

    assert_eq!(again.id, image.id);
    assert_eq!(again.references, ["registry.example:5000/shop:3"]);
    assert_eq!(again.config, image.config);
}

#[test]
fn many_threads_may_import_at_once() {
    if ran_as_root("many_threads_may_import_at_once") {
        return;
    }
    let store = Store::new();
    let names = ["a:1", "b:1", "c:1", "d:1"];
    let bytes = Oci::of(&[layer(), Tar::new().file("x", "y").done()]).archive();

    std::thread::scope(|scope| {
        for name in names {
            let (store, bytes) = (&store.store, &bytes);
            scope.spawn(move || store.import(&bytes[..], Some(name), &mut |_| {}).unwrap());
        }
    });

    assert_eq!(store.store.list().len(), 1);
    assert_eq!(store.store.list()[0].references, names);
    assert_eq!(
        fs::read_dir(store.path().join("temporary"))
            .unwrap()
            .count(),
        0
    );
}

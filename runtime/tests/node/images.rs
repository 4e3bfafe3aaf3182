//! Images through the node: builds run in containers, volumes get what the image has.

use weft_proto::weft::node::v1::mount::Source;
use weft_proto::weft::node::v1::*;

use crate::runner::Tests;
use crate::support::{Mesh, script_of};

pub(crate) fn register(tests: &mut Tests) {
    tests.add("a_build_runs_its_commands_without_a_network", build);
    tests.add("a_build_whose_command_fails_says_which", failing_build);
    tests.add("a_new_volume_gets_what_the_image_has_there", volume);
    tests.add("an_image_in_use_is_not_removed", removal);
}

async fn build(mesh: Mesh) -> Mesh {
    let image = mesh
        .busybox(
            "RUN ls /sys/class/net > /links; id -u > /user\nCMD [\"cat\", \"/links\", \"/user\"]\n",
        )
        .await;
    assert!(
        image
            .references
            .iter()
            .any(|name| name.contains("busybox:test")),
        "{image:?}"
    );
    mesh.sandbox("one").await;
    let request = CreateContainerRequest {
        id: "c".into(),
        sandbox_id: "one".into(),
        image: "busybox:test".into(),
        ..CreateContainerRequest::default()
    };
    mesh.run(request).await;
    mesh.ended("c").await;

    let lines = mesh.log("c").await;

    assert_eq!(lines, vec!["lo", "0"]);
    mesh
}

async fn failing_build(mesh: Mesh) -> Mesh {
    let dockerfile = "FROM scratch\nCOPY busybox /bin/sh\nRUN echo words; exit 3\n";

    let refusal = mesh
        .build("broken:test", dockerfile)
        .await
        .expect_err("it fails");

    assert_eq!(refusal.code(), tonic::Code::FailedPrecondition, "{refusal}");
    assert!(
        refusal.message().contains("Dockerfile:3") && refusal.message().contains("words"),
        "{refusal}"
    );
    mesh
}

async fn volume(mesh: Mesh) -> Mesh {
    mesh.busybox("RUN mkdir /data; echo original > /data/file; chown 999:999 /data\n")
        .await;
    mesh.sandbox("one").await;
    for (id, script) in [
        (
            "first",
            "cat /data/file; stat -c %u /data; echo changed > /data/file",
        ),
        ("second", "cat /data/file"),
    ] {
        let mut request = script_of("busybox:test", "one", id, script);
        let source = Some(Source::Volume("data".into()));
        request.mounts = vec![Mount {
            target: "/data".into(),
            source,
            ..Mount::default()
        }];
        mesh.run(request).await;
        mesh.ended(id).await;
    }

    assert_eq!(mesh.log("first").await, vec!["original", "999"]);
    assert_eq!(mesh.log("second").await, vec!["changed"]);
    mesh
}

async fn removal(mesh: Mesh) -> Mesh {
    mesh.busybox("").await;
    mesh.sandbox("one").await;
    mesh.run(script_of("busybox:test", "one", "c", "true"))
        .await;
    mesh.ended("c").await;
    let mut client = mesh.node.client.clone();
    let remove = || RemoveImageRequest {
        reference: "busybox:test".into(),
    };

    let refusal = client
        .remove_image(remove())
        .await
        .expect_err("a container uses it");
    assert_eq!(refusal.code(), tonic::Code::FailedPrecondition);
    client
        .remove_container(RemoveContainerRequest { id: "c".into() })
        .await
        .expect("removed");
    client.remove_image(remove()).await.expect("removed");

    assert!(
        client
            .list_images(ListImagesRequest {})
            .await
            .expect("a list")
            .into_inner()
            .images
            .is_empty()
    );
    mesh
}

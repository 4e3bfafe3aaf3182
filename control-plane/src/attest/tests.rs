//! Attestation, of this very process and of others.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::mesh::Settings;
use crate::mesh::source::Objects;

use super::process::{Proof, start_time};
use super::*;

fn pod(name: &str, namespace: u64, phase: &str) -> serde_json::Value {
    json!({
        "metadata": {"namespace": "default", "name": name,
                     "annotations": {NETWORK_NAMESPACE: namespace.to_string()}},
        "spec": {"containers": [], "serviceAccountName": "reviews"},
        "status": {"phase": phase},
    })
}

fn mesh(pods: &[serde_json::Value]) -> Mesh {
    let pods = pods
        .iter()
        .cloned()
        .map(|pod| serde_json::from_value(pod).unwrap());
    let objects = Objects {
        pods: pods.collect(),
        ..Objects::default()
    };
    Mesh::build(&objects, Settings::default())
}

async fn caller_of_this_process() -> (Caller, u64) {
    let (_here, there) = UnixStream::pair().unwrap();
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    (Caller::of(&there), own)
}

#[tokio::test]
async fn a_caller_is_the_pod_whose_network_namespace_it_is_in() {
    let (caller, own) = caller_of_this_process().await;
    let mesh = mesh(&[
        pod("reviews-v1-abcde", own, "Running"),
        pod("other", own + 1, "Running"),
    ]);

    let workload = ByNetworkNamespace.attest(&mesh, &caller).unwrap();

    assert_eq!(workload.pod, ObjectName::new("default", "reviews-v1-abcde"));
    assert_eq!(
        workload.identity.to_string(),
        "spiffe://cluster.local/ns/default/sa/reviews"
    );
}

#[tokio::test]
async fn a_process_outside_of_every_sandbox_is_refused_with_the_reason() {
    let (caller, own) = caller_of_this_process().await;

    let refused = ByNetworkNamespace.attest(&mesh(&[]), &caller).unwrap_err();

    let message = refused.to_string();
    assert!(
        message.contains(&format!("network namespace {own}")),
        "{message}"
    );
    assert_eq!(Status::from(refused).code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn a_pod_that_has_ended_does_not_stand_in_the_way_of_its_successor() {
    let (caller, own) = caller_of_this_process().await;
    let mesh = mesh(&[pod("old", own, "Failed"), pod("new", own, "Running")]);

    assert_eq!(
        ByNetworkNamespace.attest(&mesh, &caller).unwrap().pod.name,
        "new"
    );
}

#[tokio::test]
async fn two_living_pods_that_claim_one_namespace_are_both_refused() {
    let (caller, own) = caller_of_this_process().await;
    let mesh = mesh(&[pod("a", own, "Running"), pod("b", own, "Running")]);

    let refused = ByNetworkNamespace.attest(&mesh, &caller).unwrap_err();

    assert!(matches!(refused, Unattested::Ambiguous { .. }), "{refused}");
}

#[test]
fn a_remote_caller_is_nobody() {
    let caller = Caller::Remote("127.0.0.1:1".parse().unwrap());

    assert!(ByNetworkNamespace.attest(&mesh(&[]), &caller).is_err());
}

#[tokio::test]
async fn a_process_that_has_ended_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    // Opens a connection, and ends at once.
    let program = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    let mut child = tokio::process::Command::new("python3")
        .arg("-c")
        .arg(program)
        .arg(&path)
        .spawn()
        .unwrap();
    child.wait().await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();

    let Caller::Process { namespace, .. } = Caller::of(&stream) else {
        panic!("a process");
    };

    assert!(
        matches!(namespace, Err(Unattested::Process { .. })),
        "{namespace:?}"
    );
}

#[test]
fn the_start_time_of_a_process_is_read_behind_its_name() {
    let pid = i32::try_from(std::process::id()).unwrap();

    assert!(start_time(pid).unwrap() > 0);
    assert!(Proof::StartTime(start_time(pid).unwrap()).still_holds(pid));
    assert!(!Proof::StartTime(0).still_holds(pid));
}

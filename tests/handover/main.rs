//! Processes of `weft proxy`: replaced by another, so that nothing that was begun is lost and nobody is refused; told by a
//! signal that its logs were moved away.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod load;
mod process;
mod upstream;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use load::{Load, get};
use nix::sys::signal::Signal;
use process::{Place, until};
use weft_proxy::handover::Epoch;
use weft_proxy::handover::predecessor::Offer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_replaced_under_load_and_nobody_notices() {
    let place = Place::new().await;
    let first = place.start();
    place.until_epoch(0).await;
    let load = Load::start(place.web, place.bytes);
    let mut idle = load::KeepAlive::connect(place.web).await.unwrap();
    idle.get().await.unwrap();
    load.until_each_has_done(20).await;

    let second = place.start();
    place.until_epoch(1).await;
    load.until_each_has_done(60).await;
    // Longer than the last call of an ordinary drain: whoever was silent meanwhile is still heard.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let last = idle.get().await.unwrap();
    assert!(last.is_last, "the older process says that it is the last");
    let third = place.start();
    place.until_epoch(2).await;
    load.until_each_has_done(100).await;

    let done = load.stop().await;
    assert_eq!(done.failures, Vec::<String>::new());
    assert_eq!(done.bytes_connections, 1, "a connection of bytes lives on");
    assert!(
        first.ended().await && second.ended().await,
        "the older ones end by themselves"
    );
    assert_eq!(get(place.web).await.unwrap(), 200);
    drop(third);
}

#[tokio::test]
async fn a_newer_process_that_fails_changes_nothing() {
    let place = Place::new().await;
    let first = place.start();
    place.until_epoch(0).await;

    let refused = place.start_with(&serde_json::json!({"static_resources": {"listeners": [{}]}}));
    assert!(!refused.ended().await, "its configuration is no good");
    let never_ready = place.start_with(&place.without_control_plane());
    until("the older one is asked", || {
        first.has_said("asks for the sockets")
    })
    .await;
    assert_eq!(get(place.web).await.unwrap(), 200);
    never_ready.kill();
    until("the older one goes on", || first.has_said("serving on")).await;

    assert_eq!(get(place.web).await.unwrap(), 200);
    assert_eq!(place.epoch().await, Some(0));
    let second = place.start();
    place.until_epoch(1).await;
    assert_eq!(get(place.web).await.unwrap(), 200);
    assert!(first.ended().await);
    drop(second);
}

#[tokio::test]
async fn whoever_serves_can_be_replaced_before_the_older_one_has_let_go() {
    let place = Place::new().await;
    let older = Offer::at(&place.handover()).unwrap();
    let offered = || std::fs::metadata(place.handover()).unwrap().ino();
    let by_older = offered();
    let newer = place.start();
    let mut asking = older.asked().await;
    let epoch = Epoch {
        number: 6,
        first_started: 1,
    };
    asking.hand(epoch, &[]).await.unwrap();

    // It serves, and the older one has neither confirmed it nor given up its own name.
    place.until_epoch(7).await;
    assert_ne!(offered(), by_older, "the newer one is asked from now on");
    let newest = place.start();
    drop(older);
    asking.confirm().await;

    place.until_epoch(8).await;
    assert!(newer.ended().await, "it is relieved");
    assert_eq!(get(place.web).await.unwrap(), 200);
    drop(newest);
}

#[tokio::test]
async fn what_the_newer_one_does_not_listen_on_is_closed() {
    let place = Place::new().await;
    let first = place.start();
    place.until_epoch(0).await;
    assert_eq!(get(place.web).await.unwrap(), 200);

    let mut fewer = place.bootstrap();
    let listeners = fewer["static_resources"]["listeners"]
        .as_array_mut()
        .unwrap();
    listeners.remove(0);
    let second = place.start_with(&fewer);
    place.until_epoch(1).await;

    assert!(first.ended().await);
    let error = get(place.web).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(load::echo(place.bytes).await.is_ok());
    drop(second);
}

#[tokio::test]
async fn an_access_log_that_was_moved_away_is_begun_anew_at_a_signal() {
    let place = Place::new().await;
    let process = place.start();
    place.until_epoch(0).await;
    let log = place.access_log();
    let moved = log.with_extension("1");
    let lines = |path: &Path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    get(place.web).await.unwrap();
    until("the first request is logged", || lines(&log) == 1).await;

    std::fs::rename(&log, &moved).unwrap();
    get(place.web).await.unwrap();
    until("what is not told writes on", || lines(&moved) == 2).await;
    process.signal(Signal::SIGUSR1);
    until("the file is there again", || log.exists()).await;
    get(place.web).await.unwrap();
    until("the last request is logged", || lines(&log) == 1).await;

    assert_eq!(lines(&moved), 2);
    drop(process);
}

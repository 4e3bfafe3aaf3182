//! Network namespaces: made, held open by a bind mount, entered by threads that do one thing there and end.
//!
//! A thread that has changed its namespace is never used for anything else.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::oneshot;

use super::{NetworkError, link};

/// What a namespace is set to, as far as the kernel knows it.
const SETTINGS: [(&str, &str); 8] = [
    // Sidecars are not root; any process of a pod may bind any port, as in other runtimes.
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 65534"),
    // A host may have switched it off for new namespaces.
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/lo/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];
/// Of the mesh's own namespace besides.
const OWN: [(&str, &str); 4] = [
    // An unreachable network is answered, not silent.
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    // A host may have br_netfilter loaded: then each frame from pod to pod passes the hooks of IP, of which nobody here wants any.
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
];

/// Makes a namespace with loopback, held open by a mount at this path. Its inode.
pub(super) async fn make(path: &Path) -> Result<u64, NetworkError> {
    let path = path.to_owned();
    run(move || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(NetworkError::system("making a directory"))?;
        }
        File::create(&path).map_err(NetworkError::system("making the sandbox's mount point"))?;
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetworkError::system("making a network namespace")(errno.into()))?;
        apply(&SETTINGS);
        let source = Some("/proc/thread-self/ns/net");
        mount(source, &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|errno| NetworkError::system("holding the sandbox's network")(errno.into()))?;
        let metadata = fs::metadata(&path)
            .map_err(NetworkError::system("looking at the sandbox's network"))?;
        set_up_loopback_here()?;
        Ok(metadata.ino())
    })
    .await
}

/// Loopback of the calling thread's namespace.
pub(crate) fn set_up_loopback_here() -> Result<(), NetworkError> {
    block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(NetworkError::system("opening a netlink socket"))?;
        let connection = tokio::spawn(connection);
        let done = link::set_up_loopback(&handle).await;
        connection.abort();
        done
    })
}

/// Lets a namespace go; it vanishes with its last process.
pub(crate) fn unmake(path: &Path) {
    // Neither is there when the making failed early.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

/// Runs something in a namespace, on a thread of its own.
pub(crate) async fn enter<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let path = path.to_owned();
    run(move || {
        File::open(&path)
            .and_then(|namespace| Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?))
            .map_err(NetworkError::system("entering a sandbox's network"))?;
        work()
    })
    .await
}

/// The same for something that waits; its sockets belong to the namespace.
pub(super) async fn enter_and_await<T, F>(
    path: &Path,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T, NetworkError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, NetworkError>>,
{
    enter(path, move || block_on(work())).await
}

/// The mesh's own namespace.
pub(super) fn set_defaults() {
    apply(&SETTINGS);
    apply(&OWN);
}

fn block_on<T>(work: impl Future<Output = Result<T, NetworkError>>) -> Result<T, NetworkError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NetworkError::system("starting a runtime"))?
        .block_on(work)
}

async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let (send, receive) = oneshot::channel();
    let spawned: io::Result<_> =
        thread::Builder::new()
            .name("namespace".to_owned())
            .spawn(move || {
                // Nobody waits any more when the request was cancelled.
                let _ = send.send(work());
            });
    spawned.map_err(NetworkError::system("starting a thread"))?;
    receive.await.map_err(|_| NetworkError::Thread)?
}

/// Of the calling thread's namespace. A kernel without one of them has the behaviour anyway, or cannot.
fn apply(settings: &[(&str, &str)]) {
    for (name, value) in settings {
        let _ = fs::write(Path::new("/proc/sys/net").join(name), value);
    }
}

//! Where the mesh comes from: anything that holds the objects and says when they change.

use tokio::sync::watch;

use super::Objects;

/// A store of objects, as the rest of the control plane needs it.
pub trait ObjectSource: Send + Sync + 'static {
    /// All objects at one revision, consistent with each other.
    fn objects(&self) -> Objects;

    /// Changes whenever objects may have changed; the value is the newest revision.
    fn changes(&self) -> watch::Receiver<u64>;
}

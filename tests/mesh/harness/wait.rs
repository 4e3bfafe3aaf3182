//! Waiting for a condition, never for a time.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for a slow machine; nobody waits that long where all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Repeats `look` until it gives a value, and fails with the last reason when patience ends.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(value) => return value,
            Err(reason) => assert!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} for {what}: {reason}"
            ),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// A condition in the words that [`eventually`] wants.
pub(crate) fn holds(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise()) }
}

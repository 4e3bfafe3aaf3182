//! Misbehaviour on request: a file in the container says how. For trying out what the mesh makes of it.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use crate::Error;

const FILE: &str = "/tmp/chaos";

/// What `bookstore chaos MODE` does.
pub(crate) fn set(mode: &str) -> Result<(), Error> {
    match mode {
        "fail" | "slow" => {
            fs::create_dir_all("/tmp")?;
            Ok(fs::write(FILE, mode)?)
        }
        "off" => match fs::remove_file(FILE) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        },
        _ => Err(format!("unknown mode {mode:?}: fail, slow, or off").into()),
    }
}

/// Waits where the service is told to be slow; true where it is told to fail.
pub(crate) async fn fails_after_delay() -> bool {
    match fs::read_to_string(FILE).as_deref() {
        Ok("fail") => true,
        Ok("slow") => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            false
        }
        _ => false,
    }
}

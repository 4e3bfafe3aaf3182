//! What the runtime's own processes run: the program calls it first, before it has any thread.
//!
//! | verb | process |
//! |---|---|
//! | `node` | makes the mesh's namespaces and holds them; restarts the server |
//! | `node-helper` | stays outside the namespaces: writes their id maps, removes their cgroups |
//! | `node-check` | tries in namespaces of its own what a node needs |
//! | `node-server` | serves `weft.node.v1` |
//! | `shim` | parent of one container's first process |
//! | `init` | becomes a container's first process, or a command beside it |

use std::ffi::OsString;
use std::process::ExitCode;

use crate::{check, container, node, server};

/// The exit status of a node that ends because its directories belong to a node that runs.
pub const ALREADY_RUNNING: u8 = 75;

/// Runs the process that the verb names; `None` where it is not one of the runtime's.
///
/// Must be called from a process with one thread: these processes enter namespaces and copy themselves.
pub fn run(verb: &str, arguments: &[OsString]) -> Option<ExitCode> {
    match verb {
        "node" => Some(node::main(arguments)),
        "node-helper" => Some(node::helper_main(arguments)),
        "node-check" => Some(check::scratch_main(arguments)),
        "node-server" => Some(server::main(arguments)),
        "shim" => Some(container::shim_main(arguments)),
        "init" => Some(container::init_main(arguments)),
        _ => None,
    }
}

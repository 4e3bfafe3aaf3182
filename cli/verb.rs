//! One file per verb: its flags, and what it does.

pub(crate) mod apply;
pub(crate) mod certs;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod daemon;
pub(crate) mod delete;
pub(crate) mod down;
pub(crate) mod exec;
pub(crate) mod fault;
pub(crate) mod get;
pub(crate) mod image;
pub(crate) mod logs;
pub(crate) mod proxy;
pub(crate) mod proxy_config;
pub(crate) mod proxy_status;
pub(crate) mod ps;
pub(crate) mod restart;
pub(crate) mod split;
pub(crate) mod status;
pub(crate) mod top;
pub(crate) mod up;
pub(crate) mod version;

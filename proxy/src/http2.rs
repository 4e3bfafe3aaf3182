//! HTTP/2 as both sides speak it, straight on the library's streams: how bodies are sent.
//!
//! [`upstream`](crate::upstream) sends requests with it, [`http`](crate::http) responses.

pub mod sending;

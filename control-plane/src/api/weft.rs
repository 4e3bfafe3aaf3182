//! weft's own requests, below `/weft/v1`.

mod apply_all;
mod images;
mod machine;
mod programs;
mod revisions;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post};

use super::Api;

/// Every path there is.
pub(super) fn router() -> Router<Arc<Api>> {
    Router::new()
        .route("/status", get(status::status))
        .route("/proxies", get(status::proxies))
        .route("/certificates", get(status::certificates))
        .route("/revisions", get(revisions::list))
        .route("/revisions/{number}", get(revisions::get))
        .route("/apply", post(apply_all::apply))
        .route("/node", get(machine::node))
        .route("/containers", get(machine::containers))
        .route("/programs", post(programs::import))
        .route("/programs/{digest}/use", post(programs::use_for_new))
        .route("/containers/{id}/replace", post(programs::replace_process))
        .route("/volumes/{name}", delete(machine::remove_volume))
        .route("/shutdown", post(machine::shutdown))
        .route("/images", get(images::list))
        .route("/images/import", post(images::import))
        .route("/images/build", post(images::build))
        .route(
            "/images/{reference}",
            get(images::inspect).delete(images::remove),
        )
}

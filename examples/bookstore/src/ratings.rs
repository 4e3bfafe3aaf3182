//! Stars for a book, over gRPC; counts in Redis how often it was asked.

use tonic::{Request, Response, Status};

use crate::pb::ratings_server::{Ratings, RatingsServer};
use crate::pb::{RateRequest, RateResponse};
use crate::{Error, chaos, redis, server, setting};

pub(crate) async fn serve() -> Result<(), Error> {
    tonic::transport::Server::builder()
        .add_service(RatingsServer::new(Shop))
        .serve(server::address()?)
        .await?;
    Ok(())
}

struct Shop;

#[tonic::async_trait]
impl Ratings for Shop {
    async fn rate(&self, request: Request<RateRequest>) -> Result<Response<RateResponse>, Status> {
        if chaos::fails_after_delay().await {
            return Err(Status::internal("told to fail"));
        }
        let book = request.into_inner().book;
        let views = redis::increment(&setting("REDIS", "redis:6379"), &format!("views:{book}"))
            .await
            .map_err(|error| Status::unavailable(format!("redis: {error}")))?;
        let stars = 3 + u32::try_from(book.len() % 3).unwrap_or_default();
        Ok(Response::new(RateResponse { stars, views }))
    }
}

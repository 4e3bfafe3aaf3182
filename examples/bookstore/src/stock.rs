//! How many copies of a book there are, over gRPC.

use tonic::{Request, Response, Status};

use crate::pb::stock_server::{Stock, StockServer};
use crate::pb::{CountRequest, CountResponse};
use crate::{Error, chaos, server};

pub(crate) async fn serve() -> Result<(), Error> {
    tonic::transport::Server::builder()
        .add_service(StockServer::new(Shelf))
        .serve(server::address()?)
        .await?;
    Ok(())
}

struct Shelf;

#[tonic::async_trait]
impl Stock for Shelf {
    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<CountResponse>, Status> {
        if chaos::fails_after_delay().await {
            return Err(Status::internal("told to fail"));
        }
        let copies = request
            .into_inner()
            .book
            .bytes()
            .map(u32::from)
            .sum::<u32>()
            % 40;
        Ok(Response::new(CountResponse { copies }))
    }
}

//! How long a request may take, and how long it may be silent.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::alarm::{self, Alarm};
use super::failure::Failure;
use crate::clock;
use crate::config::http::HttpConfig;
use crate::config::route::Forward;
use crate::upstream::body::meter::BodyMeter;

/// The limits of one request, or of one try.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// From the end of the request to the end of the response, over all tries; to its head where it is that of a try.
    route: Option<Duration>,
    /// Without a byte either way.
    pub(super) idle: Option<Duration>,
    /// From when its filters were done with it to the end of the request.
    request: Option<Duration>,
    /// From the beginning of the request to the end of the response.
    stream: Option<Duration>,
}

impl Limits {
    /// Those of a route, where it has its own, else those of the chain.
    pub(super) fn of(
        config: &HttpConfig,
        forward: &Forward,
        route: Option<Duration>,
        stream: Option<Duration>,
    ) -> Self {
        Limits {
            route,
            idle: forward.idle_timeout.or(config.stream_idle_timeout),
            request: config.request_timeout,
            stream,
        }
    }

    /// Those of a try.
    pub(super) fn of_try(limit: Option<Duration>, idle: Option<Duration>) -> Self {
        Limits {
            route: limit,
            idle,
            ..Limits::default()
        }
    }

    /// With the limit of a try on how long it may be silent.
    pub(super) fn within_try(self, idle: Option<Duration>) -> Self {
        let both = self.idle.into_iter().chain(idle);
        Limits {
            idle: both.min(),
            ..self
        }
    }

    /// What comes of `work`, unless a limit is over before. What is read of the request's body meanwhile is read by it. Pinned by
    /// the caller: what is moved into a future is in it twice.
    pub(super) async fn watch<T>(
        self,
        mut work: Pin<&mut impl Future<Output = T>>,
        progress: &mut Progress<'_>,
        alarm: &mut Alarm,
    ) -> Result<T, Exceeded> {
        if let (None, None, None, None) = (self.route, self.idle, self.request, self.stream) {
            return Ok(work.await);
        }
        poll_fn(|context| {
            if let Poll::Ready(ended) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(ended));
            }
            alarm.poll(context, || progress.first_due(&self)).map(Err)
        })
        .await
    }

    /// What is said of a request of which a limit is over.
    pub(super) fn failure(self, exceeded: Exceeded, progress: &Progress<'_>) -> Failure {
        let has_request = progress.request_ended().is_some();
        match exceeded {
            Exceeded::Route(limit) => Failure::Timeout { limit },
            Exceeded::Idle(limit) => Failure::Idle { limit, has_request },
            Exceeded::Request(limit) => Failure::RequestTimeout { limit },
            Exceeded::Stream(limit) => Failure::Duration { limit, has_request },
        }
    }

    /// When the response must have ended. Not known while the request has not.
    pub(super) fn deadline(self, progress: &Progress<'_>) -> Option<Instant> {
        progress.request_ended()?.checked_add(self.route?)
    }

    /// When the stream must have ended.
    pub(super) fn stream_deadline(self, started: Instant) -> Option<Instant> {
        started.checked_add(self.stream?)
    }
}

/// A limit that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// From the end of the request on.
    Route(Duration),
    /// Without a byte of the client.
    Idle(Duration),
    /// Until the end of the request.
    Request(Duration),
    /// From the beginning of the request on.
    Stream(Duration),
}

/// How what is limited goes on.
pub(super) struct Progress<'a> {
    /// When the request began.
    started: Instant,
    /// When its filters were done with it, or its try began.
    begun: Instant,
    body: Option<&'a Arc<BodyMeter>>,
    /// Bytes of the body when it was last looked.
    received: u64,
    /// When there were more of them than before.
    heard: Instant,
}

impl<'a> Progress<'a> {
    /// Of a request that began at `started`, from now on. `body`: what has come of its body, where it has one.
    pub(super) fn begin(started: Instant, body: Option<&'a Arc<BodyMeter>>) -> Self {
        let begun = clock::now();
        Progress {
            started,
            begun,
            body,
            received: received(body),
            heard: begun,
        }
    }

    /// When all of the request had come, if it has; not before it was begun with. A body that is kept may have ended earlier.
    fn request_ended(&self) -> Option<Instant> {
        match self.body {
            Some(body) => body.ended_at().map(|ended| ended.max(self.begun)),
            None => Some(self.begun),
        }
    }

    /// The limit that is over first, and when.
    fn first_due(&mut self, limits: &Limits) -> Option<(Instant, Exceeded)> {
        let received = received(self.body);
        if received != self.received {
            (self.received, self.heard) = (received, clock::now());
        }
        let ended = self.request_ended();
        let unended = ended.is_none().then_some(self.begun);
        let due = |since: Option<Instant>, limit: Option<Duration>, of: fn(_) -> _| {
            let limit = limit?;
            Some((since?.checked_add(limit)?, of(limit)))
        };
        alarm::first([
            due(ended, limits.route, Exceeded::Route),
            due(Some(self.heard), limits.idle, Exceeded::Idle),
            due(unended, limits.request, Exceeded::Request),
            due(Some(self.started), limits.stream, Exceeded::Stream),
        ])
    }
}

fn received(body: Option<&Arc<BodyMeter>>) -> u64 {
    body.map_or(0, |body| body.bytes())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;
    use crate::upstream::body::RequestBody;
    use crate::upstream::body::client::ClientBody;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Of a request that began a second ago.
    fn progress(body: Option<&Arc<BodyMeter>>) -> Progress<'_> {
        let before = Instant::now().checked_sub(Duration::from_secs(1));
        Progress::begin(before.expect("a machine that runs for longer"), body)
    }

    /// Reads a body to its end.
    fn read(text: &'static str, meter: &Arc<BodyMeter>) {
        let body = RequestBody::Once {
            incoming: ClientBody::Whole(Bytes::from_static(text.as_bytes())),
            meter: Arc::clone(meter),
        };
        let read = body.collect().now_or_never().expect("it is here");
        assert!(read.is_ok());
    }

    #[test]
    fn the_limit_that_is_over_first_is_told() {
        let mut progress = progress(None);
        let limits = Limits {
            route: Some(2 * LIMIT),
            idle: Some(3 * LIMIT),
            request: Some(LIMIT),
            stream: Some(3 * LIMIT),
        };

        let route = progress.first_due(&limits);
        let without = progress.first_due(&Limits {
            route: None,
            ..limits
        });

        // What has no body has ended, and the stream began before.
        assert_eq!(
            route,
            Some((progress.begun + 2 * LIMIT, Exceeded::Route(2 * LIMIT)))
        );
        assert_eq!(
            without,
            Some((progress.started + 3 * LIMIT, Exceeded::Stream(3 * LIMIT)))
        );
        assert_eq!(progress.first_due(&Limits::default()), None);
        // Its response has as long as its head had.
        assert_eq!(limits.deadline(&progress), route.map(|(at, _)| at));
    }

    #[test]
    fn a_route_and_a_request_are_limited_by_the_end_of_the_body() {
        let body = Arc::new(BodyMeter::default());
        let mut progress = progress(Some(&body));
        let limits = Limits {
            route: Some(LIMIT),
            request: Some(2 * LIMIT),
            ..Limits::default()
        };

        let before = progress.first_due(&limits);
        read("x", &body);
        let after = progress.first_due(&limits);

        let request = (progress.begun + 2 * LIMIT, Exceeded::Request(2 * LIMIT));
        assert_eq!(before, Some(request));
        let ended = body.ended_at().expect("it has ended");
        assert_eq!(after, Some((ended + LIMIT, Exceeded::Route(LIMIT))));
    }

    #[test]
    fn who_says_something_is_not_silent() {
        let body = Arc::new(BodyMeter::default());
        let mut progress = progress(Some(&body));
        progress.heard -= Duration::from_millis(1);
        let limits = Limits::of_try(None, Some(LIMIT));
        let silent = progress.first_due(&limits);

        read("x", &body);
        let heard = progress.first_due(&limits);

        assert_eq!(
            silent.map(|(_, exceeded)| exceeded),
            Some(Exceeded::Idle(LIMIT))
        );
        assert!(heard.map(|(at, _)| at) > silent.map(|(at, _)| at));
        assert_eq!(progress.first_due(&limits), heard);
    }
}

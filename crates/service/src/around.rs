//! Middleware at a price that does not grow with what it is laid around. A router copies a route for each request, and every
//! middleware function copies what is below it once more; below ten of them that is a hundred boxes a request. Here what is
//! copied is a pointer.

use std::sync::Arc;
use std::task::{Context, Poll};

use tower::layer::Layer;
use tower::layer::util::Stack;
use tower::util::Oneshot;
use tower::{Service, ServiceExt as _};

/// Prepares a layer for [`axum::Router::layer`]: whoever copies what it makes copies a pointer, and only the request that goes
/// through it copies the one service below.
pub fn around<L>(layer: L) -> Stack<L, Sharing> {
    Stack::new(layer, Sharing)
}

/// Makes a [`Shared`] of a service.
#[derive(Clone, Copy, Debug)]
pub struct Sharing;

impl<S> Layer<S> for Sharing {
    type Service = Shared<S>;

    fn layer(&self, service: S) -> Self::Service {
        Shared(Arc::new(service))
    }
}

/// A service of which a copy is a pointer.
#[derive(Debug)]
pub struct Shared<S>(Arc<S>);

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, Request> Service<Request> for Shared<S>
where
    S: Service<Request> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Oneshot<S, Request>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Each call waits for a copy of its own.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        S::clone(&self.0).oneshot(request)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::body::Body;
    use axum::extract::Request;
    use axum::middleware::{Next, from_fn};
    use axum::routing::any_service;

    use super::*;

    /// A service that counts its copies.
    #[derive(Default)]
    struct Copied(Arc<AtomicUsize>);

    impl Clone for Copied {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(&self.0))
        }
    }

    impl Service<Request> for Copied {
        type Response = axum::response::Response;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: Request) -> Self::Future {
            std::future::ready(Ok(axum::response::Response::new(Body::empty())))
        }
    }

    async fn pass(request: Request, next: Next) -> axum::response::Response {
        next.run(request).await
    }

    #[tokio::test]
    async fn what_a_request_copies_does_not_grow_with_the_layers() {
        let copies_below = async |layers| {
            let copied = Copied::default();
            let count = Arc::clone(&copied.0);
            let mut router: Router = Router::new().route("/", any_service(copied));
            for _ in 0..layers {
                router = router.layer(around(from_fn(pass)));
            }
            let before = count.load(Ordering::Relaxed);
            let request = Request::builder().uri("/").body(Body::empty());
            let answer = router.oneshot(request.expect("a request")).await;
            assert!(answer.expect("an answer").status().is_success());
            count.load(Ordering::Relaxed) - before
        };
        let few = copies_below(2).await;
        assert_eq!(copies_below(12).await, few);
        assert!(few > 0, "it is copied for the request");
    }
}

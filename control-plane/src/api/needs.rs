//! What a key must be good for, route by route: asked once it is known who calls. Knows no key.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use service::{Caller, Problem, Scope, around};

use crate::app::App;

/// The scopes that a path needs, to look and to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    reads: Scope,
    changes: Scope,
}

/// Looking only, also where that is asked for with a body.
pub(super) const READ: Needs = Needs::to_change(Scope::Read);
/// Jobs are recorded or begun.
pub(super) const ENQUEUE: Needs = Needs::to_change(Scope::Enqueue);
/// What is there is steered.
pub(super) const OPERATE: Needs = Needs::to_change(Scope::Operate);
/// Where events are told to: their addresses may hold a secret of the receiver's, and a new one gets what jobs hold.
pub(super) const WEBHOOKS: Needs = Needs {
    reads: Scope::Operate,
    changes: Scope::Admin,
};
/// Keys: also to look at them.
pub(super) const ADMIN: Needs = Needs {
    reads: Scope::Admin,
    changes: Scope::Admin,
};

impl Needs {
    const fn to_change(changes: Scope) -> Self {
        Self {
            reads: Scope::Read,
            changes,
        }
    }

    /// What a request of this method needs.
    pub(super) fn of(self, method: &Method) -> Scope {
        match *method {
            Method::GET | Method::HEAD => self.reads,
            _ => self.changes,
        }
    }

    /// Lets only callers of the right scope reach these methods; a method that is not there stays 405 for everybody.
    pub(super) fn guard(self, methods: MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>> {
        methods.route_layer(around(from_fn_with_state(self, check)))
    }
}

async fn check(
    State(needs): State<Needs>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Response {
    let needed = needs.of(request.method());
    if caller.scope.allows(needed) {
        return next.run(request).await;
    }
    let held = caller.scope;
    Problem::forbidden(format!(
        "This needs a key of the scope {needed}; the one that was shown has {held}."
    ))
    .with_code("scope-needed", "Scope needed")
    .with_member("scope_needed", needed.as_str())
    .with_member("scope", held.as_str())
    .into_response()
}

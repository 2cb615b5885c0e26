//! Names resolved for a guarded client: once a connection, and nothing is connected to that was not looked at.

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Egress, Forbidden};

/// Resolves names as the machine does, and hands on what may be called. One address that may not spoils the name: a
/// receiver that is public and near us at once is none.
#[derive(Clone, Debug)]
pub(crate) struct Guarded(pub(crate) Arc<Egress>);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = Arc::clone(&self.0);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await;
            let found: Vec<SocketAddr> = found.map_err(|_| Forbidden::Unknown)?.collect();
            if found.is_empty() {
                return Err(Forbidden::Unknown.into());
            }
            for address in &found {
                egress.check_ip(address.ip(), Some(&host))?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

//! Asking again where a failure passes by itself: a deadlock, a restart, a connection that broke. Knows no statement.

use std::time::{Duration, Instant};

use super::Store;
use crate::error::StoreError;

/// The first pause, doubled each time.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// After which failures the same may be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// After any that passes: asking twice does the same as asking once.
    Always,
    /// Only where PostgreSQL itself took everything back.
    Undone,
}

impl Again {
    fn fits(self, error: &StoreError) -> bool {
        let StoreError::Unavailable(cause) = error else {
            return false;
        };
        match cause {
            sqlx::Error::Database(refused) => match refused.code().as_deref() {
                // serialization failure, deadlock; and where nothing was begun, because it starts or shuts down
                Some("40001" | "40P01" | "57P03") => true,
                // shut down, crashed, connection failures
                Some("57P01" | "57P02" | "08000" | "08003" | "08006" | "08P01") => {
                    self == Self::Always
                }
                _ => false,
            },
            // It broke; silence is another matter, and has cost its time already.
            sqlx::Error::Io(broken) => {
                self == Self::Always && broken.kind() != std::io::ErrorKind::TimedOut
            }
            _ => false,
        }
    }
}

impl Store {
    /// Asks until there is an answer, a failure that lasts, or no time left. Whoever waits no longer drops this.
    pub(super) async fn persist<T, Asked>(
        &self,
        again: Again,
        ask: impl Fn() -> Asked,
    ) -> Result<T, StoreError>
    where
        Asked: Future<Output = Result<T, StoreError>>,
    {
        let begun = Instant::now();
        let mut pause = PAUSE;
        loop {
            match ask().await {
                Err(error) if again.fits(&error) && begun.elapsed() + pause < self.persistence => {
                    tracing::debug!(event = "asking_again", %error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => return answer,
            }
        }
    }
}

//! Sealing: the histories of ended jobs get their seals in small pages, with pauses, so that whoever waits for the database waits
//! for a page at most.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{Store, seconds};
use crate::error::StoreError;

/// The pause after a page, by how long the page took: a third of the time is sealed.
const PAUSE: u32 = 2;
/// The same where seals come a minute later than they should: half of the time.
const PAUSE_WHEN_LATE: u32 = 1;

/// A page is sealed once it is so much later than it may be: not for the moment that the page before took.
const WORTH_A_PAGE: Duration = Duration::from_secs(1);
/// Whoever begins leaves it to others, if they have sealed a page so recently.
const AT_IT: Duration = Duration::from_millis(50);

impl Store {
    /// Seals the histories of jobs that have ended, until all are sealed or `budget` is over. Whoever has something better to do
    /// says by `later`, which is asked before each page, how much later than usual it may be. Any number of programs may do this:
    /// one of them at a time seals, and whoever finds that another has sealed in its pause leaves it to that one.
    ///
    /// # Errors
    /// When the database does not answer; what is sealed by then stays sealed, and the next call goes on.
    pub async fn seal(
        &self,
        actor: &str,
        budget: Duration,
        later: impl Fn() -> Duration + Send,
    ) -> Result<(), StoreError> {
        let begun = Instant::now();
        let (mut page_begun, mut pause) = (begun, AT_IT);
        while let Some(is_late) = self.seal_page(actor, later(), pause).await? {
            pause = page_begun.elapsed() * if is_late { PAUSE_WHEN_LATE } else { PAUSE };
            if begun.elapsed() + pause >= budget {
                break;
            }
            sleep(pause).await;
            page_begun = Instant::now();
        }
        Ok(())
    }

    /// Seals a page where one is due and nobody has sealed for so long, and tells whether it came late; `None` where none is, or
    /// where another is at it.
    async fn seal_page(
        &self,
        actor: &str,
        later: Duration,
        pause: Duration,
    ) -> Result<Option<bool>, StoreError> {
        // The two walks are a second and ten behind the present where they should be.
        let page = sqlx::query!(
            r#"
            with walks as (
              select s.ran_at, clock_timestamp() - s.reached - w.usual - make_interval(secs => $2) as late
              from ops_sweeps s
              join (values ('seal', interval '1 second'), ('seal_again', interval '10 seconds')) w (name, usual) on w.name = s.name
            )
            select
              case
                when max(late) > make_interval(secs => $3)
                  and coalesce(max(ran_at) <= clock_timestamp() - make_interval(secs => $4), true)
                then ops_seal($1)
              end as sealed,
              max(late) > interval '1 minute' as "is_late!"
            from walks
            "#,
            actor,
            seconds(later),
            seconds(WORTH_A_PAGE),
            seconds(pause),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(page.sealed.map(|_| page.is_late))
    }
}

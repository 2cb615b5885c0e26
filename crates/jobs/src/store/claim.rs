//! Claims: queued → running, under a new fence, in one statement that cannot take more than it was asked for.

use std::time::Duration;

use uuid::Uuid;

use super::Store;
use super::low_water::Place;
use super::persist::Again;
use super::submit::is_contended;
use super::take::take;
use crate::error::StoreError;
use crate::lease::{LeasedJob, RunnerIdentity, TypeTerms};
use crate::state::Status;

/// A claim by id is tried so often while others are at its job or its slot.
const RIVALS: usize = 4;

/// What a runner is ready to take.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest<'a> {
    /// Who claims.
    pub runner: &'a RunnerIdentity,
    /// The job types that it takes, with what holds where the caller left it open.
    pub types: &'a [TypeTerms],
    /// How long the claim holds unless it is renewed.
    pub lease: Duration,
    /// How many jobs it has at work already. A job that was lost before is given only to a runner that has none.
    pub at_work: usize,
    /// Whether it takes jobs with stages; where gates are switched off, it does not.
    pub stages: bool,
}

impl Store {
    /// Takes up to `limit` due jobs: by `run_at`, a step of priority being worth 5 minutes of it. A job that was lost
    /// before comes alone, and only to a runner with nothing at work; one that is first and has waited for 10 s keeps others
    /// from being taken until a runner has nothing at work. Jobs that have fallen due since the last claim are given their
    /// place meanwhile, and taken where there is room left. While an old snapshot makes looking dear, who comes before what
    /// this process took last is found with delay, which grows with what looking costs.
    ///
    /// # Errors
    /// When the database does not answer before anything was taken; then nothing is known of the claim, and what it took
    /// comes back by its lease or by [`Store::release_unheld`].
    pub async fn claim_due(
        &self,
        request: ClaimRequest<'_>,
        limit: i64,
    ) -> Result<Vec<LeasedJob>, StoreError> {
        // Side by side, so that what is in its place already does not wait for what is not.
        let ordering = self.persist(Again::Always, || self.order_due());
        let (taken, ordered) = tokio::join!(self.claim_in_turns(request, limit), ordering);
        let mut taken = taken?;
        let room = limit - i64::try_from(taken.len()).unwrap_or(i64::MAX);
        let more = match ordered {
            Ok(0) => return Ok(taken),
            Ok(_) if room <= 0 || taken.iter().any(|leased| leased.alone) => return Ok(taken),
            Ok(_) => {
                let at_work = request.at_work + taken.len();
                let request = ClaimRequest { at_work, ..request };
                self.claim_in_turns(request, room).await
            }
            Err(error) => Err(error),
        };
        match more {
            Ok(more) => taken.extend(more),
            // What was taken before is the caller's: it must be run.
            Err(error) if taken.is_empty() => return Err(error),
            Err(error) => tracing::warn!(event = "claim_failed", %error),
        }
        Ok(taken)
    }

    async fn claim_in_turns(
        &self,
        request: ClaimRequest<'_>,
        limit: i64,
    ) -> Result<Vec<LeasedJob>, StoreError> {
        let mut taken: Vec<LeasedJob> = Vec::new();
        for turn in self.turns(request, limit).await? {
            if taken.iter().any(|leased| leased.alone) {
                break;
            }
            let request = ClaimRequest {
                at_work: request.at_work + taken.len(),
                ..request
            };
            let free = limit - i64::try_from(taken.len()).unwrap_or(i64::MAX);
            let most = turn.most.min(free);
            if most <= 0 || turn.types.is_empty() {
                continue;
            }
            let claimed = match turn.limited {
                Some((terms, concurrency)) => {
                    let taking = || self.claim_with_slots(request, terms, concurrency, None, most);
                    self.persist(Again::Undone, taking).await
                }
                None => {
                    let beyond = self.low_water.place(&turn.types);
                    let taking = || take(&self.pool, request, &turn.types, None, most, beyond);
                    let taken = self.persist(Again::Undone, taking).await;
                    match taken {
                        Ok((taken, found)) => {
                            self.low_water.note(&turn.types, beyond, found);
                            Ok(taken)
                        }
                        Err(error) => {
                            self.low_water.note_failure(&turn.types, beyond);
                            Err(error)
                        }
                    }
                }
            };
            match claimed {
                Ok(more) => taken.extend(more),
                // What was taken before is the caller's: it must be run.
                Err(error) if taken.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(event = "claim_failed", %error);
                    break;
                }
            }
        }
        Ok(taken)
    }

    /// Takes this one job.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::WrongType`], [`StoreError::WrongStatus`], [`StoreError::NotDue`],
    /// [`StoreError::RunsAlone`], [`StoreError::FleetPaused`], [`StoreError::RunnerClosed`] or [`StoreError::ConcurrencyReached`]; the row is then unchanged.
    pub async fn claim_by_id(
        &self,
        request: ClaimRequest<'_>,
        id: Uuid,
    ) -> Result<LeasedJob, StoreError> {
        if let Some(leased) = self.claim_unlimited(request, id).await? {
            return Ok(leased);
        }
        let job = self.get(id).await?.ok_or(StoreError::NotFound(id))?;
        let Some(terms) = request
            .types
            .iter()
            .find(|terms| terms.job_type == *job.work_type())
            .filter(|_| job.stage.is_none() || request.stages)
        else {
            return Err(StoreError::WrongType(id));
        };
        for _ in 1..RIVALS {
            match self.claim_once(request, terms, id).await {
                // Whoever is at the job ends with it running, or as it was; and whoever held the free slot may have
                // found that it has no use for it.
                Err(StoreError::Contended(_)) => self.wait_for_rivals(id).await?,
                settled => return settled,
            }
        }
        self.claim_once(request, terms, id).await
    }

    /// Takes the job if it is of a type without a limit and nothing is in the way, which is the usual case, without reading
    /// it first.
    async fn claim_unlimited(
        &self,
        request: ClaimRequest<'_>,
        id: Uuid,
    ) -> Result<Option<LeasedJob>, StoreError> {
        let types = request.types.iter();
        let types: Vec<_> = types.filter(|terms| terms.concurrency.is_none()).collect();
        if types.is_empty() {
            return Ok(None);
        }
        let taking = || take(&self.pool, request, &types, Some(id), 1, Place::START);
        let (taken, _) = self.persist(Again::Undone, taking).await?;
        Ok(taken.into_iter().next())
    }

    /// Waits until no transaction is at the job; claims jump over a row that another one holds.
    async fn wait_for_rivals(&self, id: Uuid) -> Result<(), StoreError> {
        let waited = sqlx::query!(
            r#"select true as "there!" from ops_jobs where id = $1 for share"#,
            id
        )
        .fetch_optional(&self.pool)
        .await;
        match waited.map_err(StoreError::from) {
            Ok(_) => Ok(()),
            Err(StoreError::Unavailable(cause)) if is_contended(&cause) => {
                Err(StoreError::Contended(id))
            }
            Err(error) => Err(error),
        }
    }

    async fn claim_once(
        &self,
        request: ClaimRequest<'_>,
        terms: &TypeTerms,
        id: Uuid,
    ) -> Result<LeasedJob, StoreError> {
        let taken = match terms.concurrency {
            Some(concurrency) => {
                let taking = || self.claim_with_slots(request, terms, concurrency, Some(id), 1);
                let taken = self.persist(Again::Undone, taking).await?;
                taken.into_iter().next()
            }
            None => self.claim_unlimited(request, id).await?,
        };
        match taken {
            Some(leased) => Ok(leased),
            None => Err(self.why_not_claimed(request, id, terms).await?),
        }
    }

    /// After a claim that took nothing: reads again and names the reason.
    async fn why_not_claimed(
        &self,
        request: ClaimRequest<'_>,
        id: Uuid,
        terms: &TypeTerms,
    ) -> Result<StoreError, StoreError> {
        let row = sqlx::query!(
            r#"
            select
              status,
              run_at > clock_timestamp() as "not_due!",
              coalesce(expires_at <= clock_timestamp(), false) as "outlived!",
              lost_count > 0 as "alone!",
              $2::int is not null and not exists (
                select from ops_slots s where s.job_type = coalesce(j.stage_type, j.job_type) and s.slot_no <= $2 and s.job_id is null
              ) as "full!"
            from ops_jobs j
            where id = $1
            "#,
            id,
            terms.concurrency,
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else {
            return Ok(StoreError::NotFound(id));
        };
        let status = super::row::parsed(&row.status, "status", id)?;
        if status == Status::Queued
            && let Some(pause) = self.pause().await?
        {
            return Ok(StoreError::FleetPaused {
                job_id: Some(id),
                pause: Box::new(pause),
            });
        }
        if status == Status::Queued
            && let Some(closed) = self.closed_to(request.runner).await?
        {
            return Ok(StoreError::RunnerClosed {
                job_id: Some(id),
                closed: Box::new(closed),
            });
        }
        Ok(match status {
            Status::Queued if row.not_due => StoreError::NotDue(id),
            Status::Queued if row.outlived => StoreError::Outlived(id),
            Status::Queued if row.alone && request.at_work > 0 => StoreError::RunsAlone(id),
            Status::Queued if row.full => StoreError::ConcurrencyReached(id),
            Status::Queued => StoreError::Contended(id),
            status => StoreError::WrongStatus { job_id: id, status },
        })
    }
}

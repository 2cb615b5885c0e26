//! Finishes that are committed together: the usual ends of attempts, where nothing is to be decided beyond the fence.
//! Takes no row that somebody else holds; whoever is left out finishes by itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::Store;
use super::finish::Ending;
use super::persist::Again;
use crate::error::StoreError;
use crate::lease::LeaseKey;
use crate::state::Status;
use crate::storable::weight;

/// An attempt that has ended.
pub(super) struct Ended {
    key: LeaseKey,
    runner_id: String,
    ending: Arc<Ending>,
}

/// `None`: it is not recorded here, for whatever reason.
pub(super) type Answered = Result<Option<Status>, StoreError>;

impl Store {
    /// Records an end together with others that come at the same time. `None` is no answer: it must then be recorded alone.
    pub(super) async fn end_together(
        &self,
        key: LeaseKey,
        runner_id: &str,
        ending: &Arc<Ending>,
    ) -> Answered {
        // A retry or a release is decided by what the row says, and is rare.
        if !["succeeded", "failed", "aborted"].contains(&ending.to) {
            return Ok(None);
        }
        let ended = Ended {
            key,
            runner_id: runner_id.to_owned(),
            ending: Arc::clone(ending),
        };
        let size =
            ending.result.as_ref().map_or(0, weight) + ending.error.as_ref().map_or(0, String::len);
        let settle =
            self.serving(|store, ended: Vec<Ended>| async move { store.end_all(&ended).await });
        let answered = self.finishing.ask(ended, size, settle).await;
        answered.unwrap_or(Ok(None))
    }

    async fn end_all(&self, ended: &[Ended]) -> Vec<Answered> {
        // One statement a runner: in a program there is only one.
        let mut runners: BTreeMap<&str, Vec<&Ended>> = BTreeMap::new();
        for one in ended {
            runners.entry(&one.runner_id).or_default().push(one);
        }
        let (mut recorded, mut away) = (HashMap::new(), None);
        for (runner_id, ended) in runners {
            let once = || self.end_once(runner_id, &ended);
            match self.persist(Again::Always, once).await {
                Ok(statuses) => recorded.extend(statuses),
                Err(StoreError::Unavailable(cause)) => away = Some(cause.to_string()),
                // One of them is refused: each finds out by itself which.
                Err(error) => tracing::debug!(event = "group_refused", %error),
            }
        }
        let answer = |one: &Ended| match (recorded.get(&one.key.job_id), &away) {
            (Some(status), _) => Ok(Some(*status)),
            (None, Some(why)) => Err(StoreError::Unavailable(sqlx::Error::Protocol(why.clone()))),
            (None, None) => Ok(None),
        };
        ended.iter().map(answer).collect()
    }

    async fn end_once(
        &self,
        runner_id: &str,
        ended: &[&Ended],
    ) -> Result<Vec<(Uuid, Status)>, StoreError> {
        let ids: Vec<Uuid> = ended.iter().map(|one| one.key.job_id).collect();
        let fences: Vec<i64> = ended.iter().map(|one| one.key.fence).collect();
        let nexts: Vec<String> = ended.iter().map(|one| one.ending.to.to_owned()).collect();
        let results: Vec<Option<Value>> =
            ended.iter().map(|one| one.ending.result.clone()).collect();
        let errors: Vec<Option<String>> =
            ended.iter().map(|one| one.ending.error.clone()).collect();
        // It waits for no lock, so that it can neither be held up by one row nor deadlock with a renewal of the same rows.
        let rows = sqlx::query!(
            r#"
            with acting as materialized (
              select set_config('ops.actor', 'runner:' || $1, true) as actor
            ),
            held as materialized (
              select
                j.place, e.next, e.result, e.error, clock_timestamp() as at,
                e.next = 'succeeded' and j.stage_no is null as is_plain
              -- Behind a sub-select each, the planner does not see how many they are: it would plan every statement anew.
              from unnest(
                (select $2::uuid[]), (select $3::bigint[]), (select $4::text[]), (select $5::jsonb[]), (select $6::text[])
              ) as e (id, fence, next, result, error)
              -- One by one: a join would look through all that ran since the last vacuum.
              cross join lateral (
                select j.ctid as place, j.stage_no
                from ops_jobs j
                where j.id = e.id and j.fence = e.fence and j.status = 'running'
                limit 1
                for update of j skip locked
              ) j
            )
            update ops_jobs j
            set status = h.next,
              result = h.result,
              error = case when not h.is_plain then coalesce(h.error, j.error) end,
              dead_lettered_at = case
                when h.next = 'failed' and j.attempt >= j.max_attempts then clock_timestamp()
              end,
              -- What the guard would set: where it finds nothing to correct, it is not called for each row.
              moved = h.next,
              event_seq = j.event_seq + 1,
              updated_at = h.at,
              finished_at = h.at,
              lease_expires_at = null,
              held_at = null,
              left_runner_id = null
            from held h, acting a
            -- Held, a row stays in its place; one that was changed since the statement began is left out.
            where j.ctid = h.place and a.actor is not null
            returning j.id, j.status
            "#,
            runner_id,
            &ids,
            &fences,
            &nexts,
            &results as &[Option<Value>],
            &errors as &[Option<String>],
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| Ok((row.id, super::row::parsed(&row.status, "status", row.id)?)))
            .collect()
    }
}

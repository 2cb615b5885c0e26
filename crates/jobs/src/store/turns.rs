//! The turns of a claim: who of the limited and the unlimited job types takes how much, so that one priority serves all.
//! Reads; takes nothing.

use super::Store;
use super::claim::ClaimRequest;
use crate::error::StoreError;
use crate::lease::TypeTerms;

/// One statement of a claim.
pub(super) struct Turn<'a> {
    pub(super) types: Vec<&'a TypeTerms>,
    pub(super) limited: Option<(&'a TypeTerms, i32)>,
    pub(super) most: i64,
}

impl Store {
    /// In which turns a claim is made, so that limited and unlimited types are served by one priority. Limited types take
    /// what is theirs among the first due jobs; the others take the rest; and where full types fill the front of the
    /// queue, the limited ones behind them have their turn last.
    pub(super) async fn turns<'a>(
        &self,
        request: ClaimRequest<'a>,
        limit: i64,
    ) -> Result<Vec<Turn<'a>>, StoreError> {
        let unlimited = request
            .types
            .iter()
            .filter(|terms| terms.concurrency.is_none());
        let the_rest = Turn {
            types: unlimited.collect(),
            limited: None,
            most: limit,
        };
        if the_rest.types.len() == request.types.len() {
            return Ok(vec![the_rest]);
        }
        let shares = self.first_due(request, limit).await?;
        let is_cut = shares.iter().map(|(_, jobs)| jobs).sum::<i64>() >= limit;
        let of_limited = |most: &dyn Fn(&TypeTerms) -> i64| -> Vec<Turn<'a>> {
            let limited = request.types.iter().filter_map(|terms| {
                Some(Turn {
                    types: vec![terms],
                    limited: Some((terms, terms.concurrency?)),
                    most: most(terms),
                })
            });
            limited.collect()
        };
        let share = |terms: &TypeTerms| {
            let share = shares
                .iter()
                .find(|(name, _)| name == terms.job_type.as_str());
            share.map_or(0, |(_, jobs)| *jobs)
        };
        let mut turns = of_limited(&share);
        turns.push(the_rest);
        if is_cut {
            turns.extend(of_limited(&|_| limit));
        }
        Ok(turns)
    }

    /// How many of the first due jobs are of which type.
    async fn first_due(
        &self,
        request: ClaimRequest<'_>,
        limit: i64,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let names: Vec<String> = request
            .types
            .iter()
            .map(|terms| terms.job_type.to_string())
            .collect();
        let rows = sqlx::query!(
            r#"
            -- As a claim does it: nothing of other types is read.
            with span as materialized (
              select min(b.first) as first, max(b.last) as last
              from unnest($1::text[]) as t (job_type)
              cross join lateral (
                select
                  f.claim_order as first,
                  (
                    select l.claim_order
                    from ops_jobs l
                    where l.status = 'queued' and l.claim_order is not null
                      and coalesce(l.stage_type, l.job_type) collate "C" = t.job_type
                    order by l.claim_order desc, l.id desc
                    limit 1
                  ) as last
                from ops_jobs f
                where f.status = 'queued' and f.claim_order is not null
                  and coalesce(f.stage_type, f.job_type) collate "C" = t.job_type
                order by f.claim_order, f.id
                limit 1
              ) b
            )
            select d.job_type as "job_type!", count(*) as "jobs!"
            from (
              select coalesce(j.stage_type, j.job_type) as job_type
              from ops_jobs j
              where j.status = 'queued'
                and j.claim_order is not null
                and j.claim_order between (select s.first from span s) and (select s.last from span s)
                and j.run_at <= now()
                and coalesce(j.stage_type, j.job_type) = any($1)
                and (j.stage_no is null or $3)
                and (j.expires_at is null or j.expires_at > now())
              order by j.claim_order, j.id
              limit $2
            ) d
            group by d.job_type
            "#,
            &names,
            limit,
            request.stages,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.job_type, row.jobs))
            .collect())
    }
}

//! Seals: the hashes of ended jobs' events, computed again and compared. Changes nothing.

use uuid::Uuid;

use super::Store;
use crate::error::StoreError;
use crate::verify::Finding;

/// Seals that are computed again in one statement.
const PAGE: i64 = 500;

impl Store {
    /// Tells `found` of every sealed history that is not the one that was sealed, with the first event that does not fit;
    /// gives how many seals there are.
    pub(super) async fn verify_seals(
        &self,
        instant: Option<&str>,
        mut found: impl FnMut(Finding),
    ) -> Result<u64, StoreError> {
        let mut seals = 0;
        let mut after = (Uuid::nil(), 0);
        loop {
            let mut page = self.page_of(instant).await?;
            let rows = sqlx::query!(
                r#"
                select s.job_id, s.seq, coalesce(last.seq, 0) + wrong.place as broken
                from (
                  select o.job_id, o.seq, o.hashes
                  from ops_seals o
                  where (o.job_id, o.seq) > ($1, $2)
                  order by o.job_id, o.seq
                  limit $3
                ) s
                left join lateral (
                  select p.seq, p.hashes[cardinality(p.hashes)] as hash
                  from ops_seals p
                  where p.job_id = s.job_id and p.seq < s.seq
                  order by p.seq desc
                  limit 1
                ) last on true
                cross join lateral (
                  select ops_event_hashes(s.job_id, coalesce(last.seq, 0), s.seq, last.hash) as hashes
                ) now
                cross join lateral (
                  select min(i) as place
                  from generate_series(
                    1, greatest(cardinality(s.hashes), cardinality(now.hashes), s.seq - coalesce(last.seq, 0))
                  ) i
                  where s.hashes[i] is null or s.hashes[i] is distinct from now.hashes[i]
                ) wrong
                order by s.job_id, s.seq
                "#,
                after.0,
                after.1,
                PAGE,
            )
            .fetch_all(&mut *page)
            .await?;
            page.commit().await?;
            let Some(last) = rows.last() else {
                return Ok(seals);
            };
            after = (last.job_id, last.seq);
            for row in rows {
                seals += 1;
                if let Some(seq) = row.broken {
                    found(Finding {
                        job_id: row.job_id,
                        seq: Some(seq),
                        subject: "seal",
                        detail: format!(
                            "it, or one after it, is not what was sealed up to number {}",
                            row.seq
                        ),
                    });
                }
            }
        }
    }
}

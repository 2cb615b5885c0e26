//! Files of jobs: their records, and their bytes where PostgreSQL keeps them. Bytes go in and out in chunks, each in a
//! statement of its own, so that no file is ever whole in memory and no reader keeps a connection.

use std::collections::HashMap;

use futures_util::future::join_all;
use time::OffsetDateTime;
use uuid::Uuid;

use super::persist::Again;
use super::{Store, seconds};
use crate::error::StoreError;
use crate::file::{File, NewFile, Sum};
use crate::lease::LeaseKey;

/// Rows a statement of a sweep.
const PAGE: i64 = 100;

/// What one of those who ask together for the files of their jobs is told.
pub(super) type Given = Result<Vec<File>, StoreError>;

struct FileRow {
    id: Uuid,
    name: String,
    content_type: String,
    stage: Option<String>,
    object: Option<String>,
    size: i64,
    sha256: Vec<u8>,
    crc32: i64,
    created_at: OffsetDateTime,
}

impl TryFrom<FileRow> for File {
    type Error = StoreError;

    fn try_from(row: FileRow) -> Result<Self, StoreError> {
        let wrong = || StoreError::Internal(format!("file {} has impossible sums", row.id).into());
        let sum = Sum {
            size: u64::try_from(row.size).map_err(|_| wrong())?,
            sha256: row.sha256.as_slice().try_into().map_err(|_| wrong())?,
            crc32: u32::try_from(row.crc32).map_err(|_| wrong())?,
        };
        Ok(Self {
            id: row.id,
            name: row.name,
            content_type: row.content_type,
            stage: row.stage,
            object: row.object,
            sum,
            created_at: row.created_at,
        })
    }
}

impl Store {
    /// Begins a file for a job that is still to be recorded.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin_input(&self, new: &NewFile) -> Result<(), StoreError> {
        self.persist(Again::Always, async || {
            sqlx::query!(
                r#"
                insert into ops_files (id, kind, name, content_type, object)
                values ($1, 'input', $2, $3, $4)
                on conflict (id) do nothing
                "#,
                new.id,
                new.name,
                new.content_type,
                new.object,
            )
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }

    /// Begins a file of a running attempt.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when the lease is another's by now.
    pub async fn begin_artifact(&self, key: LeaseKey, new: &NewFile) -> Result<(), StoreError> {
        self.persist(Again::Always, async || {
            let held = sqlx::query_scalar!(
                r#"
                with held as materialized (
                  select
                    j.id, j.fence, j.attempt,
                    (select s.name from ops_job_stages s where s.job_id = j.id and s.stage_no = j.stage_no) as stage
                  from ops_jobs j
                  where j.id = $1 and j.fence = $2 and j.status = 'running'
                ),
                begun as (
                  insert into ops_files (id, job_id, kind, fence, attempt, stage, name, content_type, object)
                  select $3, h.id, 'artifact', h.fence, h.attempt, h.stage, $4, $5, $6 from held h
                  on conflict (id) do nothing
                )
                select exists (select from held) as "held!"
                "#,
                key.job_id,
                key.fence,
                new.id,
                new.name,
                new.content_type,
                new.object,
            )
            .fetch_one(&self.pool)
            .await?;
            still(key, held)
        })
        .await
    }

    /// Stores a chunk of a file that was begun.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the file is gone.
    pub async fn append_chunk(
        &self,
        file: Uuid,
        chunk: i32,
        body: &[u8],
    ) -> Result<(), StoreError> {
        self.persist(Again::Always, async || {
            sqlx::query!(
                "insert into ops_file_chunks (file_id, chunk, body) values ($1, $2, $3) on conflict do nothing",
                file,
                chunk,
                body,
            )
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }

    /// Says that all of an input is stored, and its place in its upload.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when it is gone.
    pub async fn complete_input(
        &self,
        file: Uuid,
        place: i32,
        sum: &Sum,
    ) -> Result<(), StoreError> {
        self.persist(Again::Always, async || {
            let done = sqlx::query!(
                "update ops_files set place = $2, size = $3, sha256 = $4, crc32 = $5 where id = $1 and kind = 'input'",
                file,
                place,
                size(sum)?,
                sum.sha256.as_slice(),
                i64::from(sum.crc32),
            )
            .execute(&self.pool)
            .await?;
            if done.rows_affected() == 1 {
                Ok(())
            } else {
                Err(StoreError::Refused("the upload was given up".to_owned()))
            }
        })
        .await
    }

    /// Says that all of an artifact is stored; it shows once its attempt has ended.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when the lease is another's by now.
    pub async fn complete_artifact(
        &self,
        key: LeaseKey,
        file: Uuid,
        sum: &Sum,
    ) -> Result<(), StoreError> {
        self.persist(Again::Always, async || {
            let done = sqlx::query!(
                r#"
                update ops_files f
                set size = $4, sha256 = $5, crc32 = $6
                from ops_jobs j
                where f.id = $3 and j.id = $1 and j.fence = $2 and j.status = 'running'
                  and f.job_id = j.id and f.fence = j.fence
                "#,
                key.job_id,
                key.fence,
                file,
                size(sum)?,
                sum.sha256.as_slice(),
                i64::from(sum.crc32),
            )
            .execute(&self.pool)
            .await?;
            still(key, done.rows_affected() == 1)
        })
        .await
    }

    /// Forgets files, whole or not, unless they are a job's inputs by now.
    ///
    /// # Errors
    /// When the database does not answer; a sweep forgets what was not whole.
    pub async fn discard_files(&self, files: &[Uuid]) -> Result<(), StoreError> {
        sqlx::query!(
            "delete from ops_files where id = any($1) and (kind = 'artifact' or job_id is null)",
            files
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What the newest attempt of a job left, once it has ended, by name; `None` for an unknown job.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn artifacts(&self, job_id: Uuid) -> Result<Option<Vec<File>>, StoreError> {
        let rows = sqlx::query_as!(
            FileRow,
            r#"
            select
              id as "id!", name as "name!", content_type as "content_type!", stage, object, size as "size!",
              sha256 as "sha256!", crc32 as "crc32!", created_at as "created_at!"
            from ops_artifacts
            where job_id = $1
            order by stage nulls first, name
            "#,
            job_id,
        )
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() && self.get(job_id).await?.is_none() {
            return Ok(None);
        }
        rows.into_iter()
            .map(File::try_from)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// The artifact of this name, of the newest stage that left one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn artifact(&self, job_id: Uuid, name: &str) -> Result<Option<File>, StoreError> {
        sqlx::query_as!(
            FileRow,
            r#"
            select
              id as "id!", name as "name!", content_type as "content_type!", stage, object, size as "size!",
              sha256 as "sha256!", crc32 as "crc32!", created_at as "created_at!"
            from ops_artifacts
            where job_id = $1 and name = $2
            order by created_at desc
            limit 1
            "#,
            job_id,
            name,
        )
        .fetch_optional(&self.pool)
        .await?
        .map(File::try_from)
        .transpose()
    }

    /// What a job was given, in the order of its upload. Jobs that begin at the same time are asked for together.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn inputs(&self, job_id: Uuid) -> Result<Vec<File>, StoreError> {
        let settle = self
            .serving(|store, jobs: Vec<Uuid>| async move { store.inputs_of_group(&jobs).await });
        let given = self.giving.ask(job_id, 0, settle).await;
        given.unwrap_or_else(|| Err(StoreError::Internal("a group broke down".into())))
    }

    /// What is wrong with one job's files is its own affair: where they cannot be had together, each job is asked for alone.
    async fn inputs_of_group(&self, jobs: &[Uuid]) -> Vec<Given> {
        match self.inputs_of(jobs).await {
            Ok(mut files) => jobs
                .iter()
                .map(|job| Ok(files.remove(job).unwrap_or_default()))
                .collect(),
            Err(error) if jobs.len() == 1 => vec![Err(error)],
            Err(_) => {
                let alone = jobs.iter().map(async |job| {
                    let files = self.inputs_of(&[*job]).await;
                    files.map(|mut files| files.remove(job).unwrap_or_default())
                });
                join_all(alone).await
            }
        }
    }

    async fn inputs_of(&self, jobs: &[Uuid]) -> Result<HashMap<Uuid, Vec<File>>, StoreError> {
        self.persist(Again::Always, async || {
            let rows = sqlx::query!(
                r#"
                select
                  job_id as "job_id!", id, name, content_type, stage, object, size as "size!", sha256 as "sha256!",
                  crc32 as "crc32!", created_at
                from ops_files
                where job_id = any($1) and kind = 'input' and sha256 is not null
                order by place, id
                "#,
                jobs,
            )
            .fetch_all(&self.pool)
            .await?;
            let mut files: HashMap<Uuid, Vec<File>> = HashMap::new();
            for row in rows {
                let file = FileRow {
                    id: row.id,
                    name: row.name,
                    content_type: row.content_type,
                    stage: row.stage,
                    object: row.object,
                    size: row.size,
                    sha256: row.sha256,
                    crc32: row.crc32,
                    created_at: row.created_at,
                };
                files.entry(row.job_id).or_default().push(file.try_into()?);
            }
            Ok(files)
        })
        .await
    }

    /// A chunk of a file; `None` when it is gone, or never was.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn chunk(&self, file: Uuid, chunk: i32) -> Result<Option<Vec<u8>>, StoreError> {
        self.persist(Again::Always, async || {
            let body = sqlx::query_scalar!(
                "select body from ops_file_chunks where file_id = $1 and chunk = $2",
                file,
                chunk,
            )
            .fetch_optional(&self.pool)
            .await?;
            Ok(body)
        })
        .await
    }

    /// Forgets uploads that were broken off, and the artifacts of attempts that never ended; gives how many. What is
    /// younger than `age` may still be under way.
    ///
    /// # Errors
    /// When the database does not answer; the next sweep does it.
    pub async fn sweep_files(&self, age: std::time::Duration) -> Result<u64, StoreError> {
        let swept = sqlx::query!(
            r#"
            delete from ops_files f
            using (
              select u.id
              from ops_files u
              where (u.sha256 is null or u.job_id is null)
                and u.created_at < clock_timestamp() - make_interval(secs => $1)
              order by u.created_at
              limit $2
              for update of u skip locked
            ) old
            where f.id = old.id
            "#,
            seconds(age),
            PAGE,
        )
        .execute(&self.pool)
        .await?;
        Ok(swept.rows_affected())
    }

    /// Forgets what earlier attempts of a job left: the newest one's are all that shows.
    ///
    /// # Errors
    /// When the database does not answer; they then go with the job.
    pub async fn forget_earlier(&self, key: LeaseKey) -> Result<(), StoreError> {
        sqlx::query!(
            r#"
            delete from ops_files f
            where f.job_id = $1 and f.kind = 'artifact' and f.fence < $2
              -- The job may be at its next stage by now; the fence tells which one this attempt was of.
              and f.stage is not distinct from (
                select s.name from ops_job_stages s where s.job_id = $1 and $2 between s.first_fence and s.last_fence
              )
            "#,
            key.job_id,
            key.fence,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Objects whose files are gone, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn garbage(&self) -> Result<Vec<String>, StoreError> {
        let keys = sqlx::query_scalar!(
            "select object from ops_file_garbage order by noted_at limit $1",
            PAGE
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(keys)
    }

    /// Says that objects are removed.
    ///
    /// # Errors
    /// When the database does not answer; removing them twice does no harm.
    pub async fn garbage_removed(&self, objects: &[String]) -> Result<(), StoreError> {
        sqlx::query!(
            "delete from ops_file_garbage where object = any($1)",
            objects
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

fn still(key: LeaseKey, held: bool) -> Result<(), StoreError> {
    if held {
        Ok(())
    } else {
        Err(StoreError::LeaseLost(key.job_id))
    }
}

fn size(sum: &Sum) -> Result<i64, StoreError> {
    i64::try_from(sum.size).map_err(|_| StoreError::Refused("the file is too large".to_owned()))
}

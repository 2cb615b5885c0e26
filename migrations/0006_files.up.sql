-- Files: what a job is given (inputs), and what its attempts leave (artifacts). Their bytes stand in chunks here, or in an
-- object store under the key that the row names.

create table ops_files (
  id uuid not null,
  job_id uuid,
  kind text not null,
  fence bigint not null default 0,
  attempt int not null default 0,
  stage text,
  place int not null default 0,
  name text not null,
  content_type text not null,
  size bigint,
  sha256 bytea,
  crc32 bigint,
  object text,
  created_at timestamptz not null default clock_timestamp(),
  -- No foreign key: it would lock the job's row for each file. Files go with their job by ops_drop_files.
  constraint ops_files_pkey primary key (id),
  constraint ops_files_kind_known check (kind in ('input', 'artifact')),
  constraint ops_files_artifacts_have_a_job check (kind = 'input' or job_id is not null),
  constraint ops_files_whole check (
    (size is null) = (sha256 is null) and (size is null) = (crc32 is null) and size >= 0 and octet_length(sha256) = 32
  )
);
comment on table ops_files is 'Files that jobs are given (inputs) and that their attempts leave (artifacts); to look at artifacts, use the view ops_artifacts.';
comment on column ops_files.id is 'UUIDv7, made by the program that wrote it.';
comment on column ops_files.job_id is 'The job; null while an upload is under way and its job not yet recorded.';
comment on column ops_files.kind is 'input: given with the job. artifact: left by an attempt.';
comment on column ops_files.fence is 'The claim whose attempt left it; 0 for inputs.';
comment on column ops_files.attempt is 'The attempt that left it; 0 for inputs.';
comment on column ops_files.stage is 'The stage that left it; null where the job has none.';
comment on column ops_files.place is 'Its place in the upload, from 0; orders inputs.';
comment on column ops_files.name is 'An artifact''s path in the artifacts folder; an input''s name as its sender wrote it, which is no path.';
comment on column ops_files.content_type is 'What it is, by its name or its sender''s word.';
comment on column ops_files.size is 'Bytes; null until all of it is stored.';
comment on column ops_files.sha256 is 'SHA-256 of its bytes; null until all of it is stored.';
comment on column ops_files.crc32 is 'CRC-32 of its bytes, as ZIP archives have it; null until all of it is stored.';
comment on column ops_files.object is 'Its key in the object store (ARTIFACT_STORE); null: its bytes are in ops_file_chunks.';
comment on column ops_files.created_at is 'When it was begun.';

create unique index ops_files_of_job on ops_files (job_id, kind, fence, coalesce(stage, ''), place, name)
where sha256 is not null and job_id is not null;
comment on index ops_files_of_job is 'The files of a job, whole ones only; one artifact a name and attempt.';
create index ops_files_by_job on ops_files (job_id) where sha256 is null and job_id is not null;
comment on index ops_files_by_job is 'The unfinished files of a job that is removed.';
create index ops_files_unfinished on ops_files (created_at) where sha256 is null or job_id is null;
comment on index ops_files_unfinished is 'Sweeps of uploads that were broken off.';

create table ops_file_chunks (
  file_id uuid not null,
  chunk int not null,
  body bytea not null,
  constraint ops_file_chunks_pkey primary key (file_id, chunk),
  constraint ops_file_chunks_file_fkey foreign key (file_id) references ops_files (id) on delete cascade
);
-- Most files are compressed already; a second time costs time and saves nothing.
alter table ops_file_chunks alter column body set storage external;
comment on table ops_file_chunks is 'The bytes of files that are kept in PostgreSQL.';
comment on column ops_file_chunks.file_id is 'The file.';
comment on column ops_file_chunks.chunk is 'Its number within the file: 0, 1, 2 …';
comment on column ops_file_chunks.body is 'Its bytes: 256 KiB, the last one what is left.';

create table ops_file_garbage (
  object text not null,
  noted_at timestamptz not null default clock_timestamp(),
  constraint ops_file_garbage_pkey primary key (object)
);
comment on table ops_file_garbage is 'Objects whose files are gone, until a runner has removed them from the object store.';
comment on column ops_file_garbage.object is 'The key in the object store.';
comment on column ops_file_garbage.noted_at is 'When its file went.';

create function ops_note_garbage() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  insert into ops_file_garbage (object) values (old.object) on conflict do nothing;
  return null;
end
$$;
comment on function ops_note_garbage() is 'Notes the object of a file that is removed, whoever removes it.';

create trigger ops_files_note_garbage after delete on ops_files
for each row when (old.object is not null)
execute function ops_note_garbage();

create function ops_drop_files() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  delete from ops_files f where f.job_id = old.id and f.sha256 is not null;
  delete from ops_files f where f.job_id = old.id and f.sha256 is null;
  return null;
end
$$;
comment on function ops_drop_files() is 'Removes the files of a job that is removed: retention takes them along.';

create trigger ops_jobs_drop_files after delete on ops_jobs
for each row execute function ops_drop_files();

-- An attempt that ended by itself leaves its fence on the job; whoever takes a job from its runner raises it. So the files
-- of a lost attempt never show, and nothing has to be written to show those of one that ended.
create view ops_artifacts as
select
  f.job_id, f.name, f.stage, f.size, f.content_type, f.sha256, f.crc32, f.attempt, f.object, f.created_at, f.id
from ops_files f
join ops_jobs j on j.id = f.job_id and j.fence = f.fence and j.status <> 'running'
where f.kind = 'artifact' and f.sha256 is not null;
comment on view ops_artifacts is 'What the newest attempt of each job left, once it has ended.';
comment on column ops_artifacts.job_id is 'The job.';
comment on column ops_artifacts.name is 'Its path in the artifacts folder.';
comment on column ops_artifacts.stage is 'The stage that left it; null where the job has none.';
comment on column ops_artifacts.size is 'Bytes.';
comment on column ops_artifacts.content_type is 'What it is, by its name.';
comment on column ops_artifacts.sha256 is 'SHA-256 of its bytes.';
comment on column ops_artifacts.crc32 is 'CRC-32 of its bytes.';
comment on column ops_artifacts.attempt is 'The attempt that left it.';
comment on column ops_artifacts.object is 'Its key in the object store; null: its bytes are in ops_file_chunks.';
comment on column ops_artifacts.created_at is 'When it was begun.';
comment on column ops_artifacts.id is 'The file.';
